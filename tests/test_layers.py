"""Imports go down only, as docs/design.md says; heavy libraries, backends and private JAX have one room."""

import ast
import builtins
import re
import symtable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bism_jax"
DESIGN = PACKAGE.parent / "docs" / "design.md"


def _layers():
    """The layer of each room, from the table in docs/design.md."""
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", DESIGN.read_text(), re.MULTILINE)
    names = [(name, int(layer)) for layer, rooms in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", rooms)]
    assert len(dict(names)) == len(names)
    return dict(names)


LAYERS = _layers()
# What only one room may import, at all or at module level.
OWNERS = {
    "flax": ("_contract", "models"),
    "flowjax": ("models",),
    "equinox": ("models",),
    "paramax": ("models",),
    "tensorflow_datasets": ("data",),
    "orbax": ("training",),
    "matplotlib": ("plotting",),
}
# What a release of JAX may move, and the one module that may name it.
JAX_INTERNALS = re.compile(
    r"jax\.(core|extend|interpreters|_src)\b|_src/|default_registry|jax\.config\.(jax_|values)"
    r"|\beqn\.(ctx|source_info|params\[|params\.get)|\bprimitive\.(bind|get_bind_params)|\.aval\b"
)
INTERNALS_MODULE = "_tracing/jax_internals.py"


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module in {"bism_jax", "tests"}:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    here = room(path)
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "bism_jax" and len(parts) > 1:
            there = parts[1]
            assert there == here or LAYERS[there] < LAYERS[here], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_heavy_library_has_one_room(path):
    for name in imported_modules(path):
        owner = OWNERS.get(name.split(".")[0])
        assert owner is None or room(path) in owner, f"{path.name} imports {name}, which belongs to {owner}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_room_asks_which_backend_it_is(path):
    """The operating system (`sys.platform`) is another matter."""
    asked = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) != "sys.platform"
    }
    is_asking = bool(asked & {"default_backend", "platform", "device_kind"})
    assert is_asking == (room(path) == "_backend"), f"{path.name}: ask bism_jax._backend instead"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_inside_of_jax_is_named_in_one_module(path):
    found = JAX_INTERNALS.search(path.read_text().replace("optax._src", ""))
    if str(path.relative_to(PACKAGE)) == INTERNALS_MODULE:
        assert found
    else:
        assert not found, f"{path.name} names {found[0]}; take it from bism_jax/{INTERNALS_MODULE}"


def test_every_room_has_a_layer():
    assert {room(path) for path in modules()} == set(LAYERS)


def test_scripts_use_the_public_packages_only():
    root = PACKAGE.parent
    for folder in ("experiments", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            for name in imported_modules(path):
                if name.startswith("bism_jax."):
                    assert len(name.split(".")) == 2, f"{path.name} imports the inner module {name}"


def test_no_test_module_imports_another():
    """What two of them need stands in a helper module, so that a file of tests can change or go alone."""
    for path in Path(__file__).parent.rglob("*.py"):
        for name in imported_modules(path):
            assert "test_" not in name, f"{path.name} imports {name}; move what it needs to a helper module"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_name_that_runs_is_defined(path):
    """Ruff and mypy cannot say so, as the shapes in jaxtyping annotations are names to them."""

    def tables(table):
        yield table
        for child in table.get_children():
            yield from tables(child)

    module = symtable.symtable(path.read_text(), str(path), "exec")
    defined = {name.get_name() for name in module.get_symbols() if name.is_assigned() or name.is_imported()}
    used = {name.get_name() for table in tables(module) for name in table.get_symbols() if name.is_global()}
    assert used - defined - set(dir(builtins)) - {"__file__", "__name__"} == set()
