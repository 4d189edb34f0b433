"""Results that are handed over one by one, while large sends are under way."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket as stdlib_socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from motorlike.green import results as module
from motorlike.green import socket as green_socket
from motorlike.green.hub import current_hub, spawn, wait
from motorlike.green.results import Results

from .conftest import LIMIT_SECONDS

SLOW_SECONDS = 0.02
LARGE = 8 << 20


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let held results wait for sends alone, and set other limits."""

    def set_limits(**seconds: float) -> None:
        for name, value in seconds.items():
            monkeypatch.setattr(module, name, value)

    set_limits(
        _SLOW_SECONDS=SLOW_SECONDS / 2,
        _SHARE=LIMIT_SECONDS / SLOW_SECONDS,
        _STALL_SECONDS=LIMIT_SECONDS,
        _MEMORY_SECONDS=LIMIT_SECONDS,
        SLICE_SECONDS=LIMIT_SECONDS,
    )
    return set_limits


class Callers:
    """Tasks that wait for greenlets, and then hold the loop for some time.

    Attributes:
        order: The names of those that went on.
        ended: The names of those whose greenlets have ended.
    """

    def __init__(self) -> None:
        self.order: list[Any] = []
        self.ended: list[Any] = []
        self.results: Results = current_hub().results
        self._gate = asyncio.get_running_loop().create_future()

    def start(self, name: Any, seconds: float = SLOW_SECONDS) -> asyncio.Task[Any]:
        return asyncio.create_task(self._call(name, self._gate, seconds))

    async def _call(self, name: Any, gate: asyncio.Future[None], seconds: float) -> Any:
        result = await spawn(self._work, name, gate)
        self.order.append(name)
        time.sleep(seconds)
        return result

    def _work(self, name: Any, gate: asyncio.Future[None]) -> Any:
        wait(gate)
        self.ended.append(name)
        return name

    async def let_go(self, then: Callable[[], Any] | None = None) -> None:
        """Let the greenlets end, all in one turn of the loop, and *then* be called in it."""
        await asyncio.sleep(0)
        self._gate.set_result(None)
        if then is not None:
            asyncio.get_running_loop().call_soon(then)
        self._gate = asyncio.get_running_loop().create_future()
        await turns(2)

    async def be_slow(self) -> None:
        """Let it be seen that callers are slow."""
        task = self.start("first")
        await self.let_go()
        assert await task == "first"
        await turns(2)
        self.order.clear()
        self.ended.clear()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_without_a_large_send_nothing_is_held(run_on_each: Any) -> None:
    async def main() -> None:
        callers = Callers()
        await callers.be_slow()
        tasks = [callers.start(number) for number in range(5)]
        await callers.let_go()
        assert callers.order == list(range(5))
        assert await asyncio.gather(*tasks) == list(range(5))

    run_on_each(main)


def test_quick_callers_get_their_results_at_once(run_on_each: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        for _ in range(3):
            # Together they hold the loop for long, but none of them does.
            tasks = [callers.start(number, SLOW_SECONDS / 20) for number in range(50)]
            await callers.let_go()
            assert callers.order == list(range(50))
            assert await asyncio.gather(*tasks) == callers.order
            callers.order.clear()
        callers.results.end_send()

    run_on_each(main)


def test_other_work_in_the_loops_turn_makes_no_caller_slow(run_on_each: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        for _ in range(3):
            tasks = [callers.start(number, 0) for number in range(5)]
            await callers.let_go(lambda: time.sleep(SLOW_SECONDS))
            assert await asyncio.gather(*tasks) == callers.order == list(range(5))
            callers.order.clear()
        callers.results.end_send()

    run_on_each(main)


def test_slow_callers_are_seen_also_among_many(run_on_each: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        tasks = [callers.start(number) for number in range(10)]
        await callers.let_go()
        await asyncio.gather(*tasks)
        held = callers.start("held")
        await callers.let_go()
        await asyncio.sleep(0.01)
        assert not held.done()
        callers.results.end_send()
        await held

    run_on_each(main)


def test_slow_callers_wait_for_the_send(run_on_each: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        tasks = [callers.start(number) for number in range(5)]
        await callers.let_go()
        await asyncio.sleep(0.05)
        assert callers.ended == list(range(5))
        assert callers.order == []
        callers.results.end_send()
        assert await asyncio.gather(*tasks) == callers.order == list(range(5))
        assert not callers.results.is_active

    run_on_each(main)


def test_between_two_slow_callers_the_loop_has_its_turn(run_on_each: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        tasks = [callers.start(number) for number in range(5)]
        await callers.let_go()
        callers.results.end_send()
        for count in range(1, 6):
            while len(callers.order) < count:
                await asyncio.sleep(0)
            assert len(callers.order) == count
        await asyncio.gather(*tasks)

    run_on_each(main)


def test_a_peer_that_takes_nothing_is_not_waited_for(run_on_each: Any, limits: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        limits(_STALL_SECONDS=0.001)
        tasks = [callers.start(number) for number in range(5)]
        await callers.let_go()
        # That was the last that it took.
        callers.results.progress()
        assert await asyncio.gather(*tasks) == callers.order == list(range(5))
        assert callers.results.sends == 1

    run_on_each(main)


@pytest.mark.parametrize(
    "least",
    [{"SLICE_SECONDS": 0.05}, {"_SHARE": 0.05 / SLOW_SECONDS}],
    ids=["a slice", "a part of a caller's time"],
)
def test_a_send_without_end_holds_each_for_no_longer_than(
    run_on_each: Any, limits: Any, least: dict[str, float]
) -> None:
    async def main() -> None:
        limits(_STALL_SECONDS=0.002, **least)
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()

        async def progress() -> None:
            while True:
                callers.results.progress()
                await asyncio.sleep(0)

        progressing = asyncio.create_task(progress())
        started = time.monotonic()
        tasks = [callers.start(number) for number in range(3)]
        await callers.let_go()
        assert await asyncio.gather(*tasks) == callers.order == [0, 1, 2]
        assert time.monotonic() - started > 3 * 0.05
        progressing.cancel()

    run_on_each(main)


def test_when_callers_are_quick_again_all_go_on(run_on_each: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        callers.results.begin_send()
        await callers.be_slow()
        tasks = [callers.start(number, 0) for number in range(20)]
        await callers.let_go()
        assert callers.order == []
        callers.results.end_send()
        await turns(3)
        assert callers.order == []
        callers.results.end_send()
        # One to see how long it takes; then the others, which no send could hold.
        callers.results.begin_send()
        await turns(4)
        assert callers.order == list(range(20))
        assert await asyncio.gather(*tasks) == callers.order
        callers.results.end_send()

    run_on_each(main)


def test_slow_callers_of_long_ago_hold_nobody_up(run: Any, limits: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        limits(_MEMORY_SECONDS=0.0)
        task = callers.start("later")
        await callers.let_go()
        assert callers.order == ["later"]
        await task
        callers.results.end_send()

    run(main)


def test_a_result_that_comes_while_a_slow_caller_goes_on_waits_behind_it(run: Any) -> None:
    async def main() -> None:
        callers = Callers()
        results = callers.results
        results.begin_send()
        await callers.be_slow()
        first, second, third = (asyncio.get_running_loop().create_future() for _ in range(3))
        results.give(first, 1)
        results.give(second, 2)
        results.end_send()
        assert first.done()
        assert not second.done()
        # Another send that comes and goes meanwhile changes nothing.
        results.begin_send()
        results.end_send()
        assert results.is_active
        results.give(third, 3)
        assert not second.done()
        assert [await future for future in (first, second, third)] == [1, 2, 3]
        assert not results.is_active
        # With none that is held before it, too.
        results.begin_send()
        await callers.be_slow()
        first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
        results.give(first, 1)
        results.end_send()
        results.give(second, 2)
        assert first.done()
        assert not second.done()
        assert await second == 2

    run(main)


def test_who_comes_when_the_sends_have_ended_does_not_overtake(run: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        tasks = [callers.start(number) for number in range(4)]
        await callers.let_go()
        callers.results.end_send()
        tasks.append(callers.start(4))
        await callers.let_go()
        assert len(callers.ended) == 5
        assert await asyncio.gather(*tasks) == callers.order == list(range(5))

    run(main)


@pytest.mark.parametrize("way", ["future", "task"])
def test_who_is_cancelled_while_the_result_is_held_is_passed_over(run: Any, way: str) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        tasks = [callers.start(number) for number in range(4)]
        futures = [spawn(callers._work, f"future {number}", callers._gate) for number in range(4)]
        await callers.let_go()
        assert len(callers.ended) == 8
        assert futures[1].cancel()
        tasks[0 if way == "task" else 1].cancel()
        callers.results.end_send()
        outcomes = await asyncio.gather(*tasks, *futures, return_exceptions=True)
        cancelled = [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]
        first = 0 if way == "task" else 1
        assert [index for index, was in enumerate(cancelled) if was] == [first, 5]
        assert [each for each in outcomes if not isinstance(each, BaseException)] == [
            *(number for number in range(4) if not cancelled[number]),
            *("future 0", "future 2", "future 3"),
        ]
        assert current_hub().suspended == 0

    run(main)


def test_errors_and_cancels_are_told_at_once(run: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        gate = callers._gate

        def fail() -> None:
            wait(gate)
            raise LookupError

        held = callers.start("held")
        failed = spawn(fail)
        await callers.let_go()
        with pytest.raises(LookupError):
            await failed
        assert not held.done()
        callers.results.end_send()
        await held

    run(main)


def test_a_greenlet_that_waits_for_another_gets_the_held_result(run: Any) -> None:
    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        gate = callers._gate
        outer = spawn(lambda: wait(spawn(callers._work, "inner", gate)))
        await callers.let_go()
        assert callers.ended == ["inner"]
        assert not outer.done()
        callers.results.end_send()
        assert await outer == "inner"

    run(main)


def test_a_loop_that_ends_gives_the_results_that_are_held() -> None:
    futures: list[asyncio.Future[Any]] = []

    async def main() -> None:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        futures.extend(spawn(callers._work, number, callers._gate) for number in range(3))
        await callers.let_go()
        assert not any(future.done() for future in futures)

    asyncio.run(main())
    assert [future.result() for future in futures] == [0, 1, 2]


def test_a_loop_that_was_closed_without_notice_is_left_alone() -> None:
    loop = asyncio.new_event_loop()

    async def main() -> Results:
        callers = Callers()
        callers.results.begin_send()
        await callers.be_slow()
        spawn(callers._work, "lost", callers._gate)
        await callers.let_go()
        return callers.results

    results = loop.run_until_complete(main())
    loop.close()
    results.give_all()
    results.end_send()


# -- real sends -------------------------------------------------------------


def pair() -> tuple[Any, stdlib_socket.socket]:
    ours, theirs = stdlib_socket.socketpair()
    theirs.setblocking(False)
    return green_socket.socket._wrap(ours), theirs


def drain(peer: stdlib_socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while data := peer.recv(1 << 20):
            count += len(data)
    return count


def test_a_large_send_that_waits_is_counted_until_it_has_gone_out(
    run_on_each: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress: list[Results] = []
    monkeypatch.setattr(Results, "progress", lambda results: progress.append(results))

    async def main() -> None:
        ours, theirs = pair()
        results = current_hub().results
        sending = spawn(ours.sendall, bytes(LARGE))
        assert results.sends == 1
        assert not sending.done()
        received = 0
        while received < LARGE:
            received += drain(theirs)
            assert results.sends == (not sending.done())
            await asyncio.sleep(0)
        await sending
        assert results.sends == 0
        assert progress[-1] is results
        await spawn(ours.sendall, b"small")
        assert results.sends == 0
        ours.close()
        theirs.close()

    run_on_each(main)


@pytest.mark.parametrize("end", ["cancel", "timeout", "close", "reset", "not to wait"])
def test_a_large_send_that_fails_is_counted_no_more(run: Any, end: str) -> None:
    async def main() -> None:
        ours, theirs = pair()
        results = current_hub().results
        if end == "timeout":
            ours.settimeout(0.01)
        elif end == "not to wait":
            ours.settimeout(0)
        sending = spawn(ours.sendall, bytes(LARGE))
        assert results.sends == (end != "not to wait")
        if end == "cancel":
            sending.cancel()
        elif end == "close":
            ours.close()
        elif end == "reset":
            theirs.close()
        (outcome,) = await asyncio.gather(sending, return_exceptions=True)
        assert isinstance(outcome, OSError | asyncio.CancelledError)
        assert results.sends == 0
        ours.close()
        theirs.close()

    run(main)


def test_held_results_follow_a_real_send(run_on_each: Any) -> None:
    async def main() -> None:
        ours, theirs = pair()
        sending = spawn(ours.sendall, bytes(LARGE))
        callers = Callers()
        await callers.be_slow()
        tasks = [callers.start(number) for number in range(3)]
        await callers.let_go()
        received = 0
        while received < LARGE:
            assert callers.order == []
            received += drain(theirs)
            await asyncio.sleep(0)
        await sending
        assert await asyncio.gather(*tasks) == callers.order == [0, 1, 2]
        ours.close()
        theirs.close()

    run_on_each(main)


# -- storms -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_in_a_storm_each_gets_its_own_result_in_order(run: Any, limits: Any, seed: int) -> None:
    chance = random.Random(seed)
    limits(_SLOW_SECONDS=0.0005, _SHARE=1.0, _STALL_SECONDS=0.001, SLICE_SECONDS=0.003)

    async def main() -> None:
        callers = Callers()
        results = callers.results
        tasks: dict[int, asyncio.Task[Any]] = {}
        cancelled = set()
        for number in range(150):
            tasks[number] = callers.start(number, chance.choice([0, 0, 0.001]))
            step = chance.random()
            if step < 0.2:
                results.begin_send()
            elif step < 0.4 and results.sends:
                results.end_send()
            elif step < 0.6:
                results.progress()
            elif step < 0.8:
                await callers.let_go()
            elif step < 0.9:
                victim = chance.choice(list(tasks))
                if tasks[victim].cancel():
                    cancelled.add(victim)
        await callers.let_go()
        outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            assert outcome == number or (number in cancelled and not isinstance(outcome, Exception))
        # Nobody overtakes: callers go on in the order in which greenlets ended.
        went_on = set(callers.order)
        assert callers.order == [name for name in callers.ended if name in went_on]
        while results.sends:
            results.end_send()
        assert not results._held
        assert current_hub().suspended == 0

    run(main)
