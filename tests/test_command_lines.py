"""A command line that its user got wrong ends in one line and exit status 2; a mistake of ours does not."""

import sys
from pathlib import Path

import pytest

from benchmarks.malformed import command_lines
from experiments.command_line import is_refusal, run_command
from experiments.run_folder import make_folder, read_json


def test_all_malformed_command_lines(tmp_path):
    outcomes = [command_lines.run(command) for command in command_lines.commands(tmp_path)]
    assert len(outcomes) > 200
    assert [one for one in outcomes if one.kind != "clear"] == []


def test_one_line_on_stderr(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/thing.py"])

    def refused():
        read_json(Path("/no/such/file"))

    with pytest.raises(SystemExit) as stop:
        run_command(refused)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.err.startswith("thing.py: error: /no/such/file cannot be read")
    assert captured.err.count("\n") == 1


def raised(fn):
    try:
        fn()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_mistake_in_the_code_keeps_its_traceback(tmp_path):
    (tmp_path / "file").write_text("x")
    assert is_refusal(raised(lambda: make_folder(tmp_path / "file" / "below")))
    assert is_refusal(raised((tmp_path / "file" / "below").read_text))  # of the file system
    assert not is_refusal(raised(lambda: make_folder(None)))
    assert not is_refusal(raised(lambda: int("three")))
    assert not is_refusal(raised((tmp_path / "absent").read_text))
    with pytest.raises(ValueError, match="three"):
        run_command(lambda: int("three"))
