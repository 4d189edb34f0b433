"""The command line of the benchmarks: what it accepts, and what it says of the rest."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from motorlike import __main__ as command_line
from tests.unit.benchmarks.suite import module, schedule

options = module("options")
command = module("__main__")


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--peers", "dancers"], "invalid choice: 'dancers'"),
        (["--loop", "trio"], "invalid choice: 'trio'"),
        (["--transport", "pigeon"], "invalid choice: 'pigeon'"),
        (["--rounds", "0"], "'0' is not a number from 1 on"),
        (["--at-once", "1", "many"], "'many' is not a number from 1 on"),
        (["--seconds", "-1"], "'-1' is not a number of seconds"),
        (["--warm-up", "nan"], "'nan' is not a number of seconds"),
        (["--plot-formats", "pdf"], "invalid choice: 'pdf'"),
        (["--dance"], "unrecognized arguments: --dance"),
    ],
)
def test_a_wrong_argument_is_explained(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options.parse(arguments, "bench")
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_plots_without_matplotlib_are_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def find_spec(name: str) -> Any:
        assert name == "matplotlib"

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(SystemExit):
        options.parse(["--plots", str(tmp_path)], "bench")
    assert "pip install 'motorlike[bench]'" in capsys.readouterr().err


def test_a_quick_run_is_short_but_for_what_is_asked() -> None:
    usual, quick = options.parse([], "bench"), options.parse(["--quick"], "bench")
    assert quick.rounds * (quick.seconds + quick.warm_up) < usual.rounds * usual.seconds
    assert quick.at_once is not None
    given = options.parse(["--quick", "--rounds", "9", "--seconds", "0", "--at-once", "4"], "bench")
    assert (given.rounds, given.seconds, given.at_once) == (9, 0.0, (4,))


def test_a_task_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--tasks", "ping", "pong*"], "bench") == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "bench: no task is called 'pong*'" in told.err


def test_list_names_the_tasks_that_were_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--tasks", "operations.*_one"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["operations.find_one", "operations.insert_one", "operations.update_one"]


def test_without_a_mongod_the_run_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MONGOD", str(tmp_path / "absent"))
    assert command.main(["--tasks", "ping", "--quick"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "$MONGOD is " in told.err


def test_an_interrupted_run_prints_what_it_has_and_says_that_it_is_not_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = 0

    def measure(*_: Any) -> dict[str, float]:
        nonlocal measured
        measured += 1
        if measured == 2:
            raise KeyboardInterrupt
        return {"rate": 1234.0, "cpu": 5.0}

    monkeypatch.setattr(module("runner").Runner, "measure", measure)
    written = tmp_path / "cut.json"
    arguments = ["--tasks", "ping", "--peers", "motorlike", "--at-once", "1"]
    assert command.main([*arguments, "--json", str(written)]) == 130
    told = capsys.readouterr()
    assert "cut short" in told.out
    assert "1,234" in told.out
    assert json.loads(written.read_text())["circumstances"]["was_cut_short"]


@pytest.mark.parametrize("peer, code", [("motorlike", 1), ("motor", 0)])
def test_only_a_failure_of_motorlike_changes_the_exit_code(
    peer: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(_: Any, __: Any, contender: Any) -> dict[str, float]:
        if contender.peer == peer:
            raise schedule.CellFailed("crashed with SIGSEGV")
        return {"rate": 1.0, "cpu": 5.0}

    monkeypatch.setattr(module("runner").Runner, "measure", measure)
    peers = ["--peers", "motorlike", "motor", "threads"]
    assert command.main(["--tasks", "ping", *peers, "--at-once", "1"]) == code
    told = capsys.readouterr()
    assert f"- {peer}: crashed with SIGSEGV" in told.out
    assert ("motorlike failed at operations.ping" in told.err) == bool(code)


def test_the_suite_is_a_command_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["bench", "--list", "--tasks", "ping"]) == 0
    assert capsys.readouterr().out.split()[0] == "operations.ping"


def test_the_command_says_so_where_the_suite_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "_BENCHMARKS", "motorlike._absent")
    # A package beside another motorlike, and any `benchmarks` of the user's.
    monkeypatch.setattr(command_line, "_FOLDER", tmp_path)
    assert command_line.main(["bench", "--list"]) == 2
    told = capsys.readouterr().err
    assert "pip install 'motorlike[bench,server]'" in told
    assert told.count("\n") == 1
