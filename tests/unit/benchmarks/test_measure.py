"""The clocks of the benchmarks: what is counted, and what is made of it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.unit.benchmarks.suite import module, peers

measure = module("measure")


def case(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "task": "operations.ping",
        "peer": "motorlike",
        "loop": "asyncio",
        "transport": "plain",
        "at_once": 1,
        "seconds": 0.0,
        "warm_up": 0.0,
        "uri": "mongodb://127.0.0.1",
        "folder": "/nowhere",
    }
    return measure.Case(**{**values, **changes})


def repeat(**changes: Any) -> tuple[Any, list[int]]:
    """Repeat an operation that takes three turns of the loop; count those under way."""
    under_way: list[int] = []
    now = 0

    async def operation() -> None:
        nonlocal now
        now += 1
        under_way.append(now)
        for _ in range(3):
            await asyncio.sleep(0)
        now -= 1

    bench = measure.Bench(case(**changes), peers.PEERS["motorlike"])
    return asyncio.run(bench.repeat(operation)), under_way


@pytest.mark.parametrize(
    "share, expected", [(0.0, 1), (0.5, 50), (0.95, 95), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert measure.percentile(range(1, 101), share) == expected


def test_the_percentile_of_one_value_is_that_value() -> None:
    assert {measure.percentile([7.0], share) for share in (0.0, 0.5, 0.99, 1.0)} == {7.0}


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        measure.percentile([], 0.5)


def test_figures_are_made_of_the_times() -> None:
    measured = measure.Measured(seconds=2.0, cpu_seconds=0.5, times=[0.004, 0.001, 0.002, 0.003])
    assert measured.figures() == {"rate": 2.0, "cpu": 125_000, "p50": 2.0, "p95": 4.0, "p99": 4.0}


def test_volume_is_for_each_document() -> None:
    measured = measure.Measured(seconds=2.0, cpu_seconds=0.5, times=[1.0, 1.0])
    found = measured.volume(documents=100, megabytes=3.0)
    assert found == {"documents": 100.0, "megabytes": 3.0, "cpu": 2500.0}


def test_as_many_are_under_way_at_a_time_as_asked() -> None:
    _, under_way = repeat(at_once=7)
    assert max(under_way) == 7


def test_warm_up_is_not_counted() -> None:
    measured, under_way = repeat(at_once=5)
    # In no time at all, each is done once in the warm-up and once after it.
    assert (len(measured.times), len(under_way)) == (5, 10)


def test_operations_are_repeated_until_the_time_is_over() -> None:
    measured, _ = repeat(seconds=0.05)
    assert len(measured.times) > 1
    assert measured.seconds >= 0.05


def test_an_error_of_an_operation_is_raised() -> None:
    async def operation() -> None:
        raise OSError("refused")

    bench = measure.Bench(case(at_once=3), peers.PEERS["motorlike"])
    with pytest.raises(OSError, match="refused"):
        asyncio.run(bench.repeat(operation))


def test_a_case_survives_the_way_to_the_child() -> None:
    original = case(is_quick=True)
    assert measure.Case(**asdict(original)) == original
    assert measure.Bench(original, peers.PEERS["motorlike"]).folder == Path("/nowhere")
