"""Malformed calls of every public function are refused at once, by an error that names an argument."""

import importlib
import inspect

import pytest

from benchmarks.malformed import __main__ as program
from benchmarks.malformed import campaign

MODULES = campaign.list_modules()
ALL = {case.label: case for module in MODULES for case in campaign.cases(module)}
SAMPLE = sorted(ALL)[::10]


def refused(label):
    found = campaign.run(ALL[label])
    return None if found.kind not in campaign.FAULTS else f"{found.kind}: {label}: {found.detail}"


def test_a_tenth_is_refused_or_allowed_for_a_reason():
    faults = [fault for label in SAMPLE if (fault := refused(label))]
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.PACKAGE)
def test_all_are(module):
    faults = [fault for case in campaign.cases(module) if (fault := refused(case.label))]
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.PACKAGE)
def test_the_calls_that_they_are_made_of_are_valid(module):
    for call in module.calls().values():
        if call.before is not None:
            call.before()
        call.target(**call.arguments)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.PACKAGE)
def test_every_public_name_is_called(module):
    package, called = importlib.import_module(module.PACKAGE), module.calls()
    listed = {name.partition(" ")[0].partition(".")[0] for name in called}
    public = {name for name in package.__all__ if callable(getattr(package, name))}
    assert public - listed - set(module.EXEMPT) == set()
    assert set(module.EXEMPT) <= set(package.__all__)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.PACKAGE)
def test_every_argument_has_a_kind_and_every_reason_a_case(module):
    for name, call in module.calls().items():
        assert set(call.kinds) <= set(inspect.signature(call.target).parameters)
        whats = {case.what for case in campaign.cases(module) if case.name == name}
        assert set(call.allowed) <= whats, name


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
