"""Malformed calls of every public function are refused at once, by an error that names an argument."""

import functools
import importlib
import inspect
import pkgutil

import pytest

import bism_jax
from benchmarks.malformed import __main__ as program
from benchmarks.malformed import campaign

MODULES = campaign.list_modules()
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.PACKAGE)


@functools.cache
def cases(module):
    return list(campaign.cases(module))


def faults(found):
    outcomes = [campaign.run(case) for case in found]
    return "\n".join(
        f"{one.kind}: {one.label}: {one.detail}" for one in outcomes if one.kind in campaign.FAULTS
    )


@each_module
def test_some_are_refused_or_allowed_for_a_reason(module):
    assert faults(cases(module)[::25]) == ""


@pytest.mark.slow
@each_module
def test_all_are(module):
    assert faults(cases(module)) == ""


@pytest.mark.slow
@each_module
def test_the_calls_that_they_are_made_of_are_valid(module):
    for call in module.calls().values():
        if call.before is not None:
            call.before()
        call.target(**call.arguments)


@each_module
def test_every_public_name_is_called(module):
    package = importlib.import_module(module.PACKAGE)
    listed = {case.name.partition(" ")[0].partition(".")[0] for case in cases(module)}
    public = {name for name in package.__all__ if callable(getattr(package, name))}
    assert public - listed - set(module.EXEMPT) == set()
    assert set(module.EXEMPT) <= set(package.__all__)


@each_module
def test_every_argument_has_a_kind_and_every_reason_a_case(module):
    whats = {}
    for case in cases(module):
        whats.setdefault(case.name, set()).add(case.what)
    calls = {case.name: case.call for case in cases(module)}
    stale = {name: set(call.allowed) - whats[name] for name, call in calls.items()}
    assert {name: reasons for name, reasons in stale.items() if reasons} == {}
    for call in calls.values():
        assert set(call.kinds) <= set(inspect.signature(call.target).parameters)


def test_every_package_has_a_list():
    packages = {
        f"bism_jax.{found.name}"
        for found in pkgutil.iter_modules(bism_jax.__path__)
        if found.name[0] != "_" and hasattr(importlib.import_module(f"bism_jax.{found.name}"), "__all__")
    }
    assert packages - {module.PACKAGE for module in MODULES} == set()


# The campaign itself, on functions whose answers are known.


def clear(x):
    raise ValueError(f"x must be a number, not {x!r}.")


def outcome(target, allowed=(), limit_s=5):
    call = campaign.Call(target, {"x": 1.0}, {"x": "number"}, allowed=dict(allowed))
    case = campaign.Case("package", "f", "x: text", call, {"x": "3"})
    return campaign.run(case, limit_s).kind


def test_outcomes_are_told_apart(monkeypatch):
    def hang(x):
        while True:
            pass

    def says_something_else(x):
        raise ValueError("no good")

    assert outcome(clear) == "raw"  # for it is not the library's own
    monkeypatch.setattr(campaign, "_LIBRARY", __file__)
    assert outcome(clear) == "clear"
    assert outcome(says_something_else) == "raw"
    assert outcome(lambda x: x / 2) == "raw"
    assert outcome(lambda x: x) == "wrong"
    assert outcome(lambda x: x, {"x: text": "a reason"}) == "ran"
    assert outcome(hang, limit_s=1) == "hang"


def test_the_program_writes_a_table_and_the_faults(tmp_path, monkeypatch):
    ours = campaign.Call(lambda x: x, {"x": 1.0}, {"x": "flag"}, allowed={"x: none": "a reason"})
    module = type("module", (), {"PACKAGE": "package", "calls": staticmethod(lambda: {"f": ours})})
    monkeypatch.setattr(program, "list_modules", lambda: [module])
    assert program.main(program.Options(tmp_path)) == 3
    table = (tmp_path / "malformed.md").read_text()
    assert "| package | 4 | 0 | 1 | 0 | 3 | 0 |" in table
    assert "- `package.f(x: yes)`" not in table and "- `package.f(x: text)`: ran and gave" in table
    assert len((tmp_path / "malformed.csv").read_text().splitlines()) == 5
