"""The child process of a cell, whatever it does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.unit.benchmarks.suite import module, schedule, task
from tests.unit.benchmarks.test_measure import case

runner = module("runner")


def run(program: str, patience: float = 30.0) -> dict[str, float]:
    figures: dict[str, float] = runner.run_child([sys.executable, "-c", program], case(), patience)
    return figures


def test_figures_are_on_the_last_line_whatever_was_printed_before() -> None:
    program = "print('a library says hello'); print('{\"figures\": {\"rate\": 2.5}}')"
    assert run(program) == {"rate": 2.5}


def test_the_child_is_given_its_case() -> None:
    program = (
        "import json, sys; at_once = json.loads(sys.argv[1])['at_once']; "
        "print(json.dumps({'figures': {'rate': at_once}}))"
    )
    assert run(program) == {"rate": 1}


def test_a_crash_at_exit_does_not_take_the_figures_along() -> None:
    program = 'import os; print(\'{"figures": {"rate": 1}}\', flush=True); os.kill(os.getpid(), 11)'
    assert run(program) == {"rate": 1}


def test_what_the_child_says_is_unavailable_is_raised_as_such() -> None:
    with pytest.raises(task.Unavailable, match="no such feature"):
        run('print(\'{"unavailable": "no such feature"}\')')


def test_a_crash_names_the_signal() -> None:
    with pytest.raises(schedule.CellFailed, match="crashed with SIGSEGV"):
        run("import os; os.kill(os.getpid(), 11)")


def test_an_exception_is_told_by_its_last_line() -> None:
    with pytest.raises(schedule.CellFailed, match=r"^failed: RuntimeError: too bad$"):
        run("raise RuntimeError('too bad')")


def test_a_child_that_ends_without_a_word_is_told_by_its_exit_code() -> None:
    with pytest.raises(schedule.CellFailed, match="exit code 3"):
        run("import sys; sys.exit(3)")


def test_a_child_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    # The pipe's other end is held by both: at its end, neither runs any more.
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    sleep = f"import os, time; os.fstat({writing}); time.sleep(600)"
    program = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {sleep!r}], close_fds=False); time.sleep(600)"
    )
    with pytest.raises(schedule.CellFailed, match="gave up after 1 s"):
        run(program, patience=1.0)
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.mark.parametrize(
    "uri, expected",
    [
        ("mongodb://a:1/", "mongodb://a:1/?maxPoolSize=5"),
        ("mongodb://a:1", "mongodb://a:1/?maxPoolSize=5"),
        ("mongodb://a:1/?tls=true", "mongodb://a:1/?tls=true&maxPoolSize=5"),
        ("mongodb://%2Ftmp%2Fa.sock/", "mongodb://%2Ftmp%2Fa.sock/?maxPoolSize=5"),
    ],
)
def test_a_pool_size_is_added_to_the_options_of_the_uri(uri: str, expected: str) -> None:
    assert runner.with_pool_size(uri, 5) == expected
    assert runner.with_pool_size(uri, None) == uri
