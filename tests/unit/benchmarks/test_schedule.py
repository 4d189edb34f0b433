"""Which cells are measured, in which order, and what is made of their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.benchmarks.suite import Nothing, fill, peers, schedule, table, task

Contender = schedule.Contender


def run(tables: Sequence[Any], rounds: int, measure: Any) -> list[str]:
    return list(schedule.run(tables, rounds, measure))


def only_cell(filled: Any) -> Any:
    (cell,) = filled.cells.values()
    return cell


# -- order -----------------------------------------------------------------


def test_rounds_are_interleaved() -> None:
    measured: list[str] = []

    def measure(_: Any, contender: Any) -> dict[str, float]:
        measured.append(contender.peer)
        return {"rate": 1.0, "cpu": 1.0}

    run([table(["motorlike", "pymongo", "threads"])], 3, measure)
    assert measured == ["motorlike", "pymongo", "threads"] * 3


def test_each_step_is_named_before_it_is_taken() -> None:
    measured: list[str] = []

    def measure(_: Any, contender: Any) -> dict[str, float]:
        measured.append(contender.peer)
        return {"rate": 1.0, "cpu": 1.0}

    steps = schedule.run([table(["motorlike", "pymongo"])], 1, measure)
    assert "motorlike" in next(steps)
    assert measured == []
    assert "pymongo" in next(steps)
    assert measured == ["motorlike"]


def test_steps_of_cells_that_are_over_are_counted_too() -> None:
    def measure(*_: Any) -> dict[str, float]:
        raise task.Unavailable("not here")

    assert len(run([table(["motorlike", "pymongo"])], 4, measure)) == 8


# -- failures --------------------------------------------------------------


def test_a_crash_ends_nothing_but_its_own_round() -> None:
    crashes = iter([False, True, False])

    def measure(_: Any, contender: Any) -> dict[str, float]:
        if contender.peer == "threads" and next(crashes):
            raise schedule.CellFailed("crashed with SIGSEGV")
        return {"rate": 1.0, "cpu": 1.0}

    filled = table(["motorlike", "threads"])
    run([filled], 3, measure)
    ours, theirs = filled.cells.values()
    assert (len(ours.values("rate")), ours.failures) == (3, 0)
    assert [each is None for each in theirs.rounds] == [False, True, False]
    assert (theirs.failures, theirs.problem) == (1, "crashed with SIGSEGV")


def test_two_crashes_in_a_row_give_the_cell_up() -> None:
    tried = 0

    def measure(*_: Any) -> dict[str, float]:
        nonlocal tried
        tried += 1
        raise schedule.CellFailed("gave up after 60 s")

    filled = table(["motorlike"])
    run([filled], 5, measure)
    assert tried == 2
    assert only_cell(filled).is_over


def test_what_is_unavailable_is_asked_for_once_and_is_no_failure() -> None:
    tried = 0

    def measure(*_: Any) -> dict[str, float]:
        nonlocal tried
        tried += 1
        raise task.Unavailable("no change streams")

    filled = table(["motorlike"])
    run([filled], 5, measure)
    cell = only_cell(filled)
    assert tried == 1
    assert (cell.failures, cell.problem, cell.has_figures) == (0, "no change streams", False)


# -- the plan --------------------------------------------------------------


def test_a_peer_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = replace(peers.PEERS["mongojet"], module="a_module_that_is_absent")
    monkeypatch.setitem(peers.PEERS, "mongojet", absent)
    cell = only_cell(table(["mongojet"]))
    assert (cell.is_over, cell.problem) == (True, "not installed: pip install mongojet")


def test_a_loop_that_is_not_installed_says_how_to_install_it() -> None:
    cell = only_cell(table(["motorlike"], loops=["a_loop_that_is_absent"]))
    assert cell.problem == "not installed: pip install a_loop_that_is_absent"


def test_a_peer_without_the_feature_says_so() -> None:
    cell = only_cell(table(["mongojet"], needs=frozenset({"change_streams"})))
    assert cell.is_over
    if peers.PEERS["mongojet"].is_installed:
        assert cell.problem == "mongojet has no change streams"


def test_a_synchronous_client_has_one_row_and_does_one_thing_at_a_time() -> None:
    filled = table(["pymongo", "motorlike"], 10, ["asyncio", "uvloop"])
    labels = [row.label(10, with_loop=filled.has_many_loops) for row in filled.cells]
    assert labels == ["pymongo (1 at a time)", "motorlike on asyncio", "motorlike on uvloop"]
    assert [row.at_once(10) for row in filled.cells] == [1, 10, 10]


@pytest.mark.parametrize(
    "has_limit, names", [(True, ["motorlike", "limit"]), (False, ["motorlike"])]
)
def test_the_limit_has_a_row_where_the_task_has_one(has_limit: bool, names: list[str]) -> None:
    filled = table(["motorlike", "limit"], has_limit=has_limit)
    assert [row.peer for row in filled.cells] == names


def plan(asked_for: Sequence[str], numbers: Sequence[int] | None, **attributes: Any) -> list[Any]:
    nothing = Nothing()
    vars(nothing).update(attributes)
    chosen = schedule.Selection(["motorlike"], ["asyncio"], asked_for, numbers)
    return [(each.transport, each.at_once) for each in schedule.plan([nothing], chosen)]


def test_there_is_a_table_for_each_transport_and_number_at_a_time() -> None:
    assert plan(["plain", "tls"], None) == [("plain", 1), ("plain", 10), ("tls", 1), ("tls", 10)]
    assert plan(["unix"], [3]) == [("unix", 3)]


def test_a_task_without_numbers_at_a_time_is_not_given_any() -> None:
    assert plan(["plain"], [3, 4], at_once=None) == [("plain", 1)]


def test_a_task_with_transports_of_its_own_runs_on_the_first_if_none_was_asked_for() -> None:
    assert plan(["plain"], [1], transports=("tls", "unix")) == [("tls", 1)]
    assert plan(["plain", "unix"], [1], transports=("tls", "unix")) == [("unix", 1)]


# -- ratios ----------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    filled = table(["motorlike", "threads"])
    fill(filled, "motorlike", [100, 300, 50], [1, 1, 1])
    fill(filled, "threads", [50, 100, 100], [1, 1, 1])
    # Of the medians it would be 100 to 100.
    assert filled.ratio(Contender("threads", "asyncio"), task.RATE) == 2.0


def test_a_round_that_failed_makes_no_pair() -> None:
    filled = table(["motorlike", "threads"])
    fill(filled, "motorlike", [100, 300, 100], [1, 1, 1])
    fill(filled, "threads", [50, None, 50], [1, 1, 1])
    assert filled.ratio(Contender("threads", "asyncio"), task.RATE) == 2.0


def test_a_ratio_without_figures_is_none() -> None:
    filled = table(["motorlike", "threads"])
    fill(filled, "motorlike", [100], [1])
    assert filled.ratio(Contender("threads", "asyncio"), task.RATE) is None


def test_a_ratio_compares_what_ran_on_the_same_loop() -> None:
    loops = ["asyncio", "uvloop"]
    filled = table(["motorlike", "motor", "pymongo"], 10, loops)
    for row, cell in filled.cells.items():
        rates = {"asyncio": 10.0, "uvloop": 30.0}
        cell.succeed({"rate": rates[row.loop] if row.peer == "motorlike" else 10.0, "cpu": 1.0})
    assert filled.ratio(Contender("motor", "uvloop"), task.RATE) == 3.0
    assert filled.ratio(Contender("motor", "asyncio"), task.RATE) == 1.0
    assert filled.ratio(Contender("pymongo", "asyncio"), task.RATE) == 1.0


def test_the_distance_from_the_limit_is_in_cpu_time_pair_by_pair() -> None:
    filled = table(["motorlike", "limit"])
    fill(filled, "motorlike", [1, 1, 1], [30, 20, 90])
    limit = fill(filled, "limit", [], [])
    for cpu in (10, 20, 30):
        limit.succeed({"cpu": cpu})
    assert filled.distance(Contender("motorlike", "asyncio")) == 3.0
