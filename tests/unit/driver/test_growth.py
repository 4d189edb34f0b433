"""When a pool opens one more connection, and when it lets operations wait for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.errors import WaitQueueTimeoutError

from motorlike import green
from motorlike.driver import growth
from motorlike.driver.growth import EAGER_CONNECTIONS, TICK_SECONDS, Growth
from tests.unit.driver.scripted_pool import Pool, run


class Loop:
    """A loop and its hub, whose next tick comes when the test says so."""

    is_closed = False

    def __init__(self) -> None:
        self.loop = self
        self.scheduled: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def call_later(self, delay: float, call: Callable[..., object], *args: Any, **_: Any) -> None:
        assert delay == TICK_SECONDS
        self.scheduled.append((call, args))

    def spawn(self, function: Callable[..., object], args: Any, kwargs: Any) -> None:
        function(*args, **kwargs)


class Line:
    """A pool's line of waiting operations, as a `Growth` sees it, and the clocks."""

    def __init__(self, patch: pytest.MonkeyPatch, *, largest: float = 100) -> None:
        self.length = self.sleeps = 0
        self.seconds = 0.0
        self.woken: list[int] = []
        self.hub: Any = Loop()
        self.growth = Growth(10, largest, lambda: self.length, self.woken.append)
        patch.setattr(growth, "_sleeps_of_thread", lambda: self.sleeps)
        patch.setattr(growth, "time", SimpleNamespace(monotonic=lambda: self.seconds))

    def join(self, count: int) -> None:
        for _ in range(count):
            self.growth.note_wait(self.hub)
            self.length += 1

    def serve(self, count: int) -> None:
        for _ in range(count):
            self.length -= 1
            self.growth.note_served()

    def tick(self, seconds: float = TICK_SECONDS) -> None:
        self.seconds += seconds
        ((call, args),) = self.hub.scheduled
        self.hub.scheduled.clear()
        call(*args)


def test_a_line_that_stands_still_raises_the_limit_for_all_who_stood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(monkeypatch)
    line.join(30)
    line.tick()
    assert line.growth.limit == 10, "nobody has stood for a whole tick yet"
    line.tick()
    assert line.growth.limit == 40
    assert line.woken == [30]


def test_the_limit_never_passes_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch, largest=12)
    line.join(30)
    line.tick()
    line.tick()
    assert line.growth.limit == 12
    assert line.woken == [2], "no more are woken than there is room for"
    line.tick()
    assert line.growth.limit == 12
    assert line.woken == [2]


@pytest.mark.skipif(growth._THREAD is None, reason="this system counts no thread's sleeps")
@pytest.mark.parametrize("length", [TICK_SECONDS, 3 * TICK_SECONDS])
def test_connections_that_come_back_fast_on_a_busy_loop_are_enough(
    monkeypatch: pytest.MonkeyPatch, length: float
) -> None:
    line = Line(monkeypatch)
    line.join(60)
    for _ in range(20):
        line.serve(10)
        line.join(10)
        line.tick(length)
    assert line.growth.limit == 10
    assert not line.woken


def test_connections_that_come_back_slowly_get_company(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch)
    line.join(60)
    line.tick()
    for _ in range(growth._IDLE_TICKS):
        assert line.growth.limit == 10
        line.serve(1)
        line.join(1)
        line.tick()
    assert line.growth.limit == 69


def test_a_loop_that_rests_gets_more_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch)
    line.join(60)
    line.tick()
    for _ in range(growth._IDLE_TICKS):
        assert line.growth.limit == 10
        line.serve(50)
        line.sleeps += 40
        line.join(50)
        line.tick()
    assert line.growth.limit == 20


@pytest.mark.skipif(growth._THREAD is None, reason="this system counts no thread's sleeps")
def test_the_limit_sinks_again_while_connections_come_back_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(monkeypatch)
    line.join(90)
    line.tick()
    line.tick()
    assert line.growth.limit == 100
    line.join(90)
    for _ in range(50):
        line.serve(60)
        line.join(60)
        line.tick()
    assert line.growth.limit < 20


def test_a_line_that_empties_within_a_tick_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(monkeypatch)
    line.join(5)
    line.serve(5)
    line.tick()
    assert line.growth.limit == 10
    assert not line.hub.scheduled
    line.join(1)
    assert line.hub.scheduled, "a new line is watched anew"


def test_the_first_connections_are_opened_without_waiting() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=100)
        gate = asyncio.Event()
        users = [
            green.spawn(pool.use, lambda: green.wait(gate.wait())) for _ in range(EAGER_CONNECTIONS)
        ]
        await asyncio.sleep(0)
        assert len(pool.made) == EAGER_CONNECTIONS
        gate.set()
        await asyncio.gather(*users)
        pool.assert_at_rest()

    run(main)


def test_min_pool_size_raises_how_many_are_opened_without_waiting() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=100, min_pool_size=30)
        assert pool.growth.limit == 30

    run(main)


def test_operations_that_keep_their_connections_get_all_that_the_pool_may_have() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=60)
        gate = asyncio.Event()
        start = time.monotonic()
        users = [green.spawn(pool.use, lambda: green.wait(gate.wait())) for _ in range(80)]
        while len(pool.made) < 60:
            assert time.monotonic() - start < 10
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.sleep(3 * TICK_SECONDS)
        assert len(pool.made) == 60
        gate.set()
        await asyncio.gather(*users)
        pool.assert_at_rest()

    run(main)


def test_who_waits_for_growth_is_served_in_order_and_newcomers_wait_behind() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=20)
        order: list[int] = []
        gate = asyncio.Event()

        def use(number: int) -> None:
            with pool.checkout():
                order.append(number)
                green.wait(gate.wait())

        users = [green.spawn(use, number) for number in range(15)]
        await asyncio.sleep(TICK_SECONDS / 4)
        users += [green.spawn(use, number) for number in range(15, 20)]
        while len(order) < 20:
            await asyncio.sleep(TICK_SECONDS)
        assert order == list(range(20))
        gate.set()
        await asyncio.gather(*users)
        pool.assert_at_rest()

    run(main)


def test_a_wait_for_growth_ends_with_the_time_that_the_application_allows() -> None:
    async def main() -> None:
        pool: Any = Pool(max_pool_size=100, wait_queue_timeout=TICK_SECONDS / 5)
        gate = asyncio.Event()
        users = [
            green.spawn(pool.use, lambda: green.wait(gate.wait())) for _ in range(EAGER_CONNECTIONS)
        ]
        with pytest.raises(WaitQueueTimeoutError):
            await green.spawn(pool.use)
        gate.set()
        await asyncio.gather(*users)
        pool.assert_at_rest()

    run(main)


def test_one_cancelled_while_it_waits_for_growth_leaves_the_line_in_order() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=100)
        gate = asyncio.Event()
        users = [green.spawn(pool.use, lambda: green.wait(gate.wait())) for _ in range(14)]
        await asyncio.sleep(0)
        assert users[11].cancel()
        while len(pool.made) < 13:
            await asyncio.sleep(TICK_SECONDS)
        gate.set()
        await asyncio.gather(*users, return_exceptions=True)
        pool.assert_at_rest()

    run(main)
