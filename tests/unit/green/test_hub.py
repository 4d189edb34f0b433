"""Child greenlets: starting, waiting, cancelling, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import traceback
import weakref
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from tornado import gen

from motorlike.errors import LoopClosed, NotInGreenlet
from motorlike.green import hub
from motorlike.green.hub import (
    GreenFuture,
    Waiter,
    current_hub,
    offload,
    open_hubs,
    sleep,
    spawn,
    wait,
)
from motorlike.green.signals import Event
from motorlike.green.worker import Worker, in_greenlet


class Thing:
    """Something that weak references can watch."""


def raises(error: BaseException) -> None:
    raise error


# -- starting, results ------------------------------------------------------


def test_spawn_starts_at_once(run_on_each: Any) -> None:
    async def main() -> None:
        steps: list[str] = []
        future = spawn(steps.append, "started")
        assert steps == ["started"]
        await future

    run_on_each(main)


def test_spawn_returns_the_result(run_on_each: Any) -> None:
    async def main() -> int:
        return await spawn(lambda a, b: a + b, 1, b=2)

    assert run_on_each(main) == 3


def test_spawn_carries_the_exception(run_on_each: Any) -> None:
    error = KeyError("no")

    async def main() -> None:
        future = spawn(raises, error)
        with pytest.raises(KeyError) as caught:
            await future
        assert caught.value is error

    run_on_each(main)


def test_stop_iteration_reaches_the_caller_as_a_runtime_error(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await spawn(raises, StopIteration(1))
        assert isinstance(caught.value.__cause__, StopIteration)

    run(main)


def test_spawn_without_a_running_loop_says_so() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        spawn(print)


def test_the_future_is_an_asyncio_future_in_every_use(run_on_each: Any) -> None:
    async def main() -> None:
        called: list[int] = []
        future = spawn(lambda: 1)
        assert isinstance(future, asyncio.Future)
        future.add_done_callback(lambda done: called.append(done.result()))
        assert await asyncio.gather(future, spawn(lambda: 2)) == [1, 2]
        await asyncio.sleep(0)
        assert called == [1]
        done, pending = await asyncio.wait([spawn(lambda: 3), spawn(lambda: 3)])
        assert [each.result() for each in done] == [3, 3] and not pending
        assert await asyncio.wait_for(spawn(lambda: 4), 5) == 4
        assert await gen.multi([spawn(lambda: 5), spawn(lambda: 6)]) == [5, 6]
        assert await yields() == 7

    @gen.coroutine
    def yields() -> Any:
        return (yield spawn(lambda: 7))

    run_on_each(main)


def test_spawn_inside_a_greenlet_goes_through_the_loop(run_on_each: Any) -> None:
    steps: list[str] = []

    def parent() -> None:
        child = spawn(lambda: steps.append("child"))
        steps.append("parent")
        wait(child)

    async def main() -> None:
        await spawn(parent)

    run_on_each(main)
    assert steps == ["parent", "child"]


def test_every_childs_parent_is_the_hub_also_when_spawned_from_a_child(run: Any) -> None:
    parents: list[Any] = []

    def child() -> None:
        parents.append(getcurrent().parent)

    def parent() -> None:
        child()
        wait(spawn(child))

    async def main() -> None:
        me = getcurrent()
        await spawn(parent)
        assert parents == [me, me]

    run(main)


def test_a_child_never_resumes_its_starter(run: Any) -> None:
    steps: list[str] = []

    def parent() -> None:
        child = spawn(lambda: steps.append("child ended"))
        sleep(0.01)
        steps.append("parent slept on")
        assert child.done()

    async def main() -> None:
        await spawn(parent)

    run(main)
    assert steps == ["child ended", "parent slept on"]


def test_spawn_from_a_foreign_greenlet_works(run_on_each: Any) -> None:
    """SQLAlchemy's bridge runs its callers in greenlets of its own."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        me = getcurrent()
        first = loop.create_future()

        def foreign() -> None:
            assert not in_greenlet()
            spawn(lambda: sleep(0) or "done").add_done_callback(
                lambda done: first.set_result(done.result())
            )
            assert me.switch("back") == "again"
            spawn(lambda: None)

        other = greenlet(foreign)
        assert other.switch() == "back"
        assert await first == "done"
        other.switch("again")
        await asyncio.sleep(0)

    run_on_each(main)


def test_a_loop_may_run_in_another_greenlet_than_main(run_on_each: Any) -> None:
    async def main() -> int:
        return await spawn(lambda: wait(asyncio.sleep(0, 5)))

    assert greenlet(run_on_each).switch(main) == 5
    # And afterwards where it began.
    assert run_on_each(main) == 5


def test_one_loop_may_run_in_several_greenlets_in_turn() -> None:
    loop = asyncio.new_event_loop()
    event = None
    results: list[int] = []

    def waits() -> None:
        nonlocal event
        event = Event()
        event.wait()
        results.append(1)

    async def begin() -> None:
        spawn(waits)

    async def end() -> None:
        assert event is not None
        event.set()
        await spawn(sleep, 0)

    try:
        loop.run_until_complete(begin())
        greenlet(lambda: loop.run_until_complete(end())).switch()
        loop.run_until_complete(spawn_on(lambda: results.append(2)))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert results == [1, 2]


async def spawn_on(function: Callable[[], Any]) -> Any:
    return await spawn(function)


# -- the greenlets themselves -----------------------------------------------


def test_workers_are_reused(run: Any) -> None:
    async def main() -> None:
        seen = {await spawn(lambda: id(getcurrent())) for _ in range(20)}
        assert len(seen) == 1
        assert len(current_hub().workers) == len(current_hub().idle) == 1

    run(main)


def test_a_worker_is_reused_after_an_exception_and_after_a_cancel(run: Any) -> None:
    async def main() -> None:
        first = await spawn(lambda: id(getcurrent()))
        with pytest.raises(ValueError, match="x"):
            await spawn(raises, ValueError("x"))
        future = spawn(sleep, 10)
        future.cancel()
        assert await spawn(lambda: id(getcurrent())) == first
        assert current_hub().suspended == 0

    run(main)


def test_idle_workers_are_kept_within_a_limit(run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("motorlike.green.worker._MAX_IDLE_WORKERS", 3)

    async def main() -> None:
        await asyncio.gather(*[spawn(sleep, 0) for _ in range(10)])
        assert len(current_hub().idle) == len(current_hub().workers) == 3

    run(main)


def test_suspended_counts_the_callables_that_run(run: Any) -> None:
    async def main() -> None:
        futures = [spawn(sleep, 0.01) for _ in range(3)]
        assert current_hub().suspended == 3
        await asyncio.gather(*futures)
        assert current_hub().suspended == 0

    run(main)


# -- cancelling -------------------------------------------------------------


def test_cancel_throws_where_the_greenlet_waits(run_on_each: Any) -> None:
    steps: list[str] = []

    def waits() -> None:
        try:
            sleep(10)
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise
        finally:
            steps.append("cleaned up")

    async def main() -> None:
        future = spawn(waits)
        assert future.cancel()
        assert future.cancelled()
        assert steps == ["cancelled", "cleaned up"]
        with pytest.raises(asyncio.CancelledError):
            await future

    run_on_each(main)


def test_clean_up_code_of_a_cancelled_greenlet_may_wait(run: Any) -> None:
    steps: list[str] = []

    def waits() -> None:
        try:
            sleep(10)
        finally:
            sleep(0)
            steps.append("cleaned up")

    async def main() -> None:
        future = spawn(waits)
        future.cancel()
        assert steps == []
        while current_hub().suspended:
            await asyncio.sleep(0)
        assert steps == ["cleaned up"]

    run(main)


def test_cancelling_the_task_that_awaits_reaches_the_greenlet(run_on_each: Any) -> None:
    caught: list[BaseException] = []

    def waits() -> None:
        try:
            sleep(10)
        except BaseException as exc:
            caught.append(exc)
            raise

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await spawn(waits)

    run_on_each(main)
    assert [type(exc) for exc in caught] == [asyncio.CancelledError]


def test_a_spawn_that_was_cancelled_before_its_start_never_runs(run: Any) -> None:
    ran: list[str] = []

    def parent() -> None:
        child = spawn(ran.append, "ran")
        assert child.cancel()
        sleep(0)
        assert child.cancelled()

    async def main() -> None:
        await spawn(parent)

    run(main)
    assert ran == []


def test_a_greenlet_may_cancel_another(run_on_each: Any) -> None:
    steps: list[str] = []

    def victim() -> None:
        try:
            sleep(10)
        finally:
            steps.append("victim unwound")

    def killer(future: GreenFuture[None]) -> None:
        assert future.cancel()
        # Only the hub throws: the victim must not run inside this one.
        steps.append("killer goes on")

    async def main() -> None:
        future = spawn(victim)
        await spawn(killer, future)
        assert future.cancelled()

    run_on_each(main)
    assert steps == ["killer goes on", "victim unwound"]


def test_a_greenlet_that_cancels_itself_is_interrupted_at_its_next_wait(run: Any) -> None:
    steps: list[str] = []
    future: GreenFuture[None]

    def suicide() -> None:
        sleep(0)
        future.cancel()
        steps.append("still here")
        sleep(10)
        steps.append("never")

    async def main() -> None:
        nonlocal future
        future = spawn(suicide)
        await asyncio.wait([future])
        await asyncio.sleep(0)
        assert current_hub().suspended == 0

    run(main)
    assert steps == ["still here"]


def test_cancelling_a_finished_operation_does_nothing(run: Any) -> None:
    async def main() -> None:
        future = spawn(lambda: 1)
        assert not future.cancel()
        assert await future == 1

    run(main)


def test_a_cancel_never_reaches_the_next_job_of_the_same_worker(run: Any) -> None:
    def parent(victim: GreenFuture[int]) -> None:
        # The interrupt is scheduled; before it runs, the worker has ended
        # this job and begun the next.
        victim.cancel()

    async def main() -> None:
        event = Event()
        victim = spawn(lambda: event.wait() and 1)
        killer = spawn(parent, victim)
        event.set()
        await killer
        assert [await spawn(lambda: sleep(0) or 2) for _ in range(3)] == [2, 2, 2]

    run(main)


def test_pitfall_1_nothing_switches_or_throws_into_a_finished_greenlet(run: Any) -> None:
    async def main() -> None:
        kept: list[Waiter] = []

        def waits() -> None:
            kept.append(Waiter("test"))
            kept[0].wait()

        future = spawn(waits)
        home = current_hub()
        kept[0].wake()
        await future
        worker = next(iter(home.workers))
        worker.throw()  # as the hub does when it ends
        assert worker.dead
        home.resume(kept[0])
        assert not kept[0].wake()
        home.interrupt(worker, future)
        assert not future.cancel()

    run(main)


def test_pitfall_2_a_late_completion_does_not_wake_a_later_wait(run_on_each: Any) -> None:
    waiters: list[Waiter] = []

    def waits() -> list[bool]:
        results = []
        for timeout in (0.001, 0.03):
            waiters.append(Waiter("test"))
            results.append(waiters[-1].wait(timeout))
        return results

    async def main() -> None:
        home = current_hub()
        future = spawn(waits)
        while len(waiters) < 2:
            await asyncio.sleep(0)
        home.resume(waiters[0])
        assert not waiters[0].wake()
        assert await future == [False, False]

    run_on_each(main)


def test_a_waiter_wakes_once(run: Any) -> None:
    async def main() -> None:
        waiters: list[Waiter] = []

        def waits() -> int:
            waiters.append(Waiter("test"))
            waiters[0].wait()
            sleep(0.01)
            return 1

        future = spawn(waits)
        assert waiters[0].wake()
        assert not waiters[0].wake()
        assert await future == 1

    run(main)


def test_greenlets_that_wake_one_another_leave_the_loop_its_turn(run: Any) -> None:
    turns = 0
    events = [Event(), Event()]

    def ping(mine: Event, other: Event) -> None:
        while turns < 5:
            mine.wait()
            mine.clear()
            other.set()

    async def main() -> None:
        nonlocal turns
        futures = [spawn(ping, events[0], events[1]), spawn(ping, events[1], events[0])]
        events[0].set()
        for _ in range(5):
            await asyncio.sleep(0)
            turns += 1
        for event in events:
            event.set()
        await asyncio.gather(*futures)

    run(main)


# -- context ----------------------------------------------------------------

variable: ContextVar[Any] = ContextVar("variable", default=None)


def test_the_callers_context_is_copied(run_on_each: Any) -> None:
    def inside() -> list[Any]:
        seen = [variable.get()]
        sleep(0)
        seen.append(variable.get())
        variable.set("changed")
        sleep(0)
        return [*seen, variable.get()]

    async def main() -> None:
        variable.set("caller's")
        assert await spawn(inside) == ["caller's", "caller's", "changed"]
        assert variable.get() == "caller's"
        assert await spawn(lambda: spawn_and_wait(variable.get)) == "caller's"

    run_on_each(main)


def spawn_and_wait(function: Callable[[], Any]) -> Any:
    return wait(spawn(function))


def test_a_finished_operation_keeps_no_context_alive(run: Any) -> None:
    async def main() -> None:
        def operation() -> None:
            variable.set(thing)  # noqa: F821 - deleted after the call
            sleep(0)

        thing = Thing()
        gone = weakref.ref(thing)
        await spawn(operation)
        del thing, operation
        assert gone() is None

    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


# -- what is left behind ----------------------------------------------------


@pytest.fixture
def no_collector() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("number", [0, 1])
def test_arguments_and_result_go_without_the_collector(
    run: Any, no_collector: None, number: int
) -> None:
    """Of a new worker's first operation, and of a reused one's."""

    async def main() -> None:
        for _ in range(number):
            await spawn(lambda: None)
        argument, keyword = Thing(), Thing()
        references = [weakref.ref(argument), weakref.ref(keyword)]
        result = await spawn(lambda first, second: sleep(0) or Thing(), argument, second=keyword)
        references.append(weakref.ref(result))
        del argument, keyword, result
        # The loop holds the future for the turn in which it wakes the caller.
        await asyncio.sleep(0)
        assert [each() for each in references] == [None] * 3

    run(main)


def test_a_failed_operation_goes_without_the_collector(run: Any, no_collector: None) -> None:
    async def main() -> None:
        argument = Thing()
        gone = weakref.ref(argument)

        def fails(thing: Thing) -> None:
            sleep(0)
            raise LookupError

        async def caller() -> None:
            await spawn(fails, argument)  # noqa: F821 - deleted after the call

        with contextlib.suppress(LookupError):
            await caller()
        del argument
        await asyncio.sleep(0)
        assert gone() is None

    run(main)


def test_a_failed_wait_goes_without_the_collector(run: Any, no_collector: None) -> None:
    async def main() -> None:
        thing = Thing()
        gone = weakref.ref(thing)

        async def fails(thing: Thing) -> None:
            await asyncio.sleep(0)
            raise LookupError

        def waits() -> None:
            with contextlib.suppress(LookupError):
                wait(fails(thing))  # noqa: F821 - deleted after the call

        await spawn(waits)
        del thing, waits
        await asyncio.sleep(0)
        assert gone() is None

    run(main)


def test_a_cancelled_operation_goes_without_the_collector(run: Any, no_collector: None) -> None:
    async def main() -> None:
        argument = Thing()
        gone = weakref.ref(argument)
        future = spawn(lambda thing: sleep(10), argument)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        del argument, future
        assert gone() is None

    run(main)


# -- tracebacks -------------------------------------------------------------


def test_pitfall_16_tracebacks_show_the_driver_and_the_line_that_awaits(run: Any) -> None:
    def driver_inner() -> None:
        sleep(0)
        raise LookupError("deep")

    def driver_outer() -> None:
        driver_inner()

    async def main() -> str:
        try:
            await spawn(driver_outer)  # the user's line
        except LookupError:
            return traceback.format_exc()
        return ""

    text = run(main)
    assert "await spawn(driver_outer)  # the user's line" in text
    assert "in driver_outer" in text
    assert "in driver_inner" in text
    assert text.index("the user's line") < text.index("in driver_outer")


# -- errors on misuse -------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "call"),
    [("sleep()", lambda: sleep(1)), ("wait()", lambda: wait(asyncio.sleep(0)))],
)
def test_waiting_outside_a_greenlet_names_the_call_and_the_remedy(
    run: Any, operation: str, call: Callable[[], Any]
) -> None:
    async def main() -> None:
        with pytest.raises(NotInGreenlet) as caught:
            call()
        assert str(caught.value).startswith(f"{operation} would block the IOLoop")
        assert "green.spawn()" in str(caught.value)

    run(main)


def test_waiting_on_a_loop_that_has_ended_says_so() -> None:
    errors: list[Exception] = []

    def waits() -> None:
        try:
            sleep(10)
        finally:
            try:
                sleep(1)
            except LoopClosed as exc:
                errors.append(exc)

    async def main() -> None:
        spawn(waits)

    asyncio.run(main())
    assert str(errors[0]).startswith("sleep() cannot go on: its event loop has been closed")


def test_sleep_refuses_a_negative_time(green: Any) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        green(sleep, -1)


# -- wait, sleep, offload ---------------------------------------------------


def test_wait_takes_coroutines_futures_and_tasks(run_on_each: Any) -> None:
    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    def waits(future: asyncio.Future[int], task: asyncio.Task[int]) -> list[int]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(3)
        return [wait(seven()), wait(future), wait(task), wait(done)]

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, 5)
        return await spawn(waits, future, loop.create_task(seven()))

    assert run_on_each(main) == [7, 5, 7, 3]


def test_wait_raises_what_the_awaitable_raised(run: Any) -> None:
    async def fails() -> None:
        raise LookupError("there")

    async def main() -> None:
        with pytest.raises(LookupError, match="there"):
            await spawn(lambda: wait(fails()))

    run(main)


def test_a_cancelled_wait_cancels_what_it_waits_for(run_on_each: Any) -> None:
    async def main() -> None:
        inner = asyncio.get_running_loop().create_future()
        future = spawn(lambda: wait(inner))
        future.cancel()
        assert inner.cancelled()

    run_on_each(main)


def test_a_cancelled_awaitable_cancels_the_operation(run: Any) -> None:
    async def main() -> None:
        inner = asyncio.get_running_loop().create_future()
        future = spawn(lambda: wait(inner))
        inner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert future.cancelled()

    run(main)


def test_sleep_lets_others_run_and_lasts_its_time(run_on_each: Any) -> None:
    async def main() -> None:
        ticks = 0
        began = time.monotonic()
        future = spawn(sleep, 0.05)
        while not future.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert time.monotonic() - began >= 0.045
        assert ticks > 5

    run_on_each(main)


def test_offload_runs_in_the_executor_with_the_callers_context(run_on_each: Any) -> None:
    import threading

    def blocking(number: int) -> tuple[int, Any, bool]:
        return number, variable.get(), threading.current_thread() is threading.main_thread()

    async def main() -> Any:
        variable.set("mine")
        return await spawn(offload, blocking, 3)

    assert run_on_each(main) == (3, "mine", False)


def test_offload_where_no_loop_runs_makes_the_call() -> None:
    assert offload(lambda: 4) == 4


def test_offload_on_the_loop_itself_is_refused(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(NotInGreenlet, match="blocking\\(\\) would block"):
            offload(blocking)

    def blocking() -> None: ...

    run(main)


def test_pitfall_14_a_jump_of_the_wall_clock_changes_nothing(run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(time, "time", iter(range(0, 10**12, 10**6)).__next__)

    async def main() -> None:
        began = time.monotonic()
        await spawn(sleep, 0.02)
        assert 0.015 <= time.monotonic() - began < 5

    run(main)


def test_pitfall_15_code_in_a_greenlet_needs_no_current_task(run_on_each: Any) -> None:
    async def one() -> int:
        return 1

    def operation() -> int:
        sleep(0)
        # Resumed by a timer: no task is current now.
        assert asyncio.current_task() is None
        total = wait(one()) + offload(lambda: 1) + wait(spawn(lambda: 1))
        sleep(0)
        return total

    async def main() -> int:
        return await spawn(operation)

    assert run_on_each(main) == 3


# -- SystemExit and KeyboardInterrupt ---------------------------------------


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("waits_first", [False, True])
def test_an_exit_leaves_the_loop_as_from_a_task(
    error: type[BaseException], waits_first: bool
) -> None:
    # Not on uvloop: after an exit from a task, it cannot run again at all.
    def exits() -> None:
        if waits_first:
            sleep(0)
        raise error("now")

    async def main() -> None:
        await spawn(exits)

    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(main())
        with pytest.raises(error, match="now"):
            loop.run_until_complete(task)
        home = next(each for each in open_hubs() if each.loop is loop)
        assert home.suspended == 0
        if waits_first:
            # Then it comes once more, from the task that awaited it.
            with pytest.raises(error, match="now"):
                loop.run_until_complete(task)
        assert isinstance(task.exception(), error)
        # The loop can go on.
        assert loop.run_until_complete(spawn_on(lambda: sleep(0) or 1)) == 1
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_an_exit_loses_no_wake_up_of_other_greenlets() -> None:
    woken: list[int] = []
    loop = asyncio.new_event_loop()
    event = Event()

    def waits(number: int) -> None:
        event.wait()
        if number == 0:
            raise SystemExit
        woken.append(number)

    async def begin() -> list[GreenFuture[None]]:
        return [spawn(waits, number) for number in range(3)]

    futures = loop.run_until_complete(begin())
    event.set()
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.run_until_complete(asyncio.wait(futures[1:]))
    assert woken == [1, 2]
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


# -- the loop's end ---------------------------------------------------------

UNWIND = """
    import asyncio, sys
    from motorlike import green
    from motorlike.green.hub import current_hub, open_hubs
    from motorlike.green.locks import Lock
    from motorlike.green import socket

    unwound = []
    pair = []

    def lock_waiter(lock):
        try:
            with lock:
                green.sleep(100)
        finally:
            unwound.append("lock")

    def reader():
        pair.extend(socket.socketpair())
        try:
            pair[0].recv(1)
        finally:
            unwound.append("reader")
            pair[0].close(), pair[1].close()

    def sleeper():
        try:
            green.sleep(100)
        finally:
            unwound.append("sleeper")
            try:
                green.sleep(1)
            except RuntimeError:
                unwound.append("no more waits")

    def fails():
        try:
            green.wait(asyncio.get_running_loop().create_future())
        finally:
            raise ValueError("nobody hears it")

    async def main():
        lock = Lock()
        green.spawn(lock_waiter, lock), green.spawn(lock_waiter, lock)
        green.spawn(reader), green.spawn(sleeper), green.spawn(fails)
        await asyncio.sleep(0)

    def check():
        expected = ["lock", "lock", "no more waits", "reader", "sleeper"]
        assert sorted(unwound) == expected, unwound
        unwound.clear(), pair.clear()
"""


def test_asyncio_run_unwinds_suspended_greenlets(program: Any) -> None:
    program(
        UNWIND
        + """
    for _ in range(2):
        asyncio.run(main())
        check()
        assert not list(open_hubs())
    """
    )


def test_uvloop_unwinds_suspended_greenlets(program: Any) -> None:
    pytest.importorskip("uvloop")
    program(
        UNWIND
        + """
    import uvloop
    for _ in range(2):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        check()
        assert not list(open_hubs())
    """
    )


def test_the_next_loop_unwinds_what_a_bare_close_left(program: Any) -> None:
    program(
        UNWIND
        + """
    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        async def nothing():
            await green.spawn(int)
        asyncio.run(nothing())
        check()
    """
    )


def test_the_exit_unwinds_what_a_bare_close_left(program: Any) -> None:
    program(
        UNWIND
        + """
    import atexit
    from motorlike.green import hub
    atexit.unregister(hub._close_hubs_at_exit)
    atexit.register(check)
    atexit.register(hub._close_hubs_at_exit)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    """
    )


def test_tornados_close_with_all_descriptors_unwinds_too(program: Any) -> None:
    program(
        UNWIND
        + """
    from tornado.ioloop import IOLoop
    for _ in range(2):
        loop = IOLoop(make_current=False)
        loop.run_sync(main)
        loop.close(all_fds=True)
        async def nothing():
            await green.spawn(int)
        asyncio.run(nothing())
        check()
    """
    )


@pytest.mark.parametrize("closes_the_loop", [False, True])
def test_the_interpreter_exits_quietly_with_suspended_greenlets(
    program: Any, closes_the_loop: bool
) -> None:
    ending = "atexit.register(loop.close)" if closes_the_loop else "loop._selector.close"
    program(
        UNWIND
        + f"""
    import atexit
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    {ending}
    # An open loop is warned of by asyncio itself, whatever ran on it.
    atexit.register(lambda: loop.is_closed() or setattr(loop, "_closed", False))
    """
    )


def test_a_second_run_after_a_client_was_left_open_is_quiet(program: Any) -> None:
    program(
        """
        import asyncio
        from motorlike import green
        from motorlike.green import socket
        listener = __import__("socket").create_server(("127.0.0.1", 0))
        kept = []
        def connect():
            kept.append(socket.create_connection(listener.getsockname()))
            kept[-1].settimeout(0.5)
            try:
                kept[-1].recv(1)
            except TimeoutError:
                pass
        async def main():
            future = green.spawn(connect)
            await asyncio.sleep(0.01)
        for _ in range(3):
            asyncio.run(main())
        listener.close()
        """
    )


def test_green_code_runs_in_the_clean_up_of_an_async_generator(program: Any) -> None:
    """asyncio.run closes generators when the hub's own time has come."""
    program(
        """
        import asyncio
        from motorlike import green
        done = []
        async def items():
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                await green.spawn(green.sleep, 0)
                done.append(1)
        async def main():
            await green.spawn(int)
            global kept
            kept = items()
            await kept.__anext__()
        asyncio.run(main())
        assert done == [1]
        """
    )


def test_a_forked_childs_clean_up_does_not_disturb_the_parent(program: Any) -> None:
    out = program(
        """
        import asyncio, gc, os, socket as stdlib, sys, warnings
        # Python 3.12 warns of forking with threads; there are none but the executor's.
        warnings.simplefilter("ignore", DeprecationWarning)
        from motorlike import green
        from motorlike.green import socket
        from motorlike.green.hub import open_hubs

        unwound = []

        def talk(sock, ready):
            try:
                ready.set_result(None)
                assert sock.recv(5) == b"hello"
                sock.sendall(b"world")
                return "answered"
            finally:
                unwound.append(os.getpid())
                if os.getpid() != parent:
                    os.write(1, b"the child ran the parent's clean-up\\n")

        async def main():
            ours, theirs = stdlib.socketpair()
            sock = socket.socket(fileno=ours.detach())
            ready = asyncio.get_running_loop().create_future()
            talking = green.spawn(talk, sock, ready)
            await ready
            pid = os.fork()
            if not pid:
                assert not list(open_hubs())
                theirs.close()
                sock.close()
                async def in_the_child():
                    await green.spawn(green.sleep, 0)
                asyncio.run(in_the_child())
                gc.collect()
                os.write(1, b"child\\n")
                raise SystemExit(0)
            _, status = os.waitpid(pid, 0)
            assert status == 0, status
            theirs.sendall(b"hello")
            assert await talking == "answered"
            assert theirs.recv(5) == b"world"
            theirs.close(), sock.close()
            os.write(1, b"parent\\n")

        parent = os.getpid()
        asyncio.run(main())
        """
    )
    assert out.splitlines() == ["child", "parent"]


def test_locks_that_the_parents_greenlets_wait_for_are_free_in_a_forked_child(
    program: Any,
) -> None:
    program(
        """
        import asyncio, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from motorlike import green
        from motorlike.green.locks import Lock

        lock = Lock()

        def take():
            with lock:
                green.sleep(0.01)

        async def main():
            futures = [green.spawn(take) for _ in range(3)]
            pid = os.fork()
            if not pid:
                lock.release()
                asyncio.run(child())
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            await asyncio.gather(*futures)

        async def child():
            await asyncio.wait_for(green.spawn(take), 5)

        asyncio.run(main())
        """
    )


def test_hubs_of_other_threads_are_closed_with_their_loops(run: Any) -> None:
    import threading

    unwound: list[str] = []

    def waits() -> None:
        try:
            sleep(100)
        finally:
            unwound.append("there")

    async def other() -> None:
        spawn(waits)

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    thread.start()
    thread.join()
    assert unwound == ["there"]


def test_a_thread_is_not_taken_for_an_earlier_one_whose_ident_it_has(run: Any) -> None:
    import threading

    idents: list[int] = []
    hubs: list[hub.Hub] = []

    async def leave_a_greenlet() -> None:
        idents.append(threading.get_ident())
        hubs.append(current_hub())
        spawn(sleep, 100)

    async def use_another_loop() -> None:
        idents.append(threading.get_ident())
        await spawn(sleep, 0)

    def by_hand(main: Any) -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        # Without `shutdown_asyncgens`: the hub is told nothing.
        loop.close()

    def in_thread(main: Any) -> None:
        failed: list[BaseException] = []

        def target() -> None:
            try:
                by_hand(main)
            except BaseException as exc:  # noqa: BLE001 - it is raised again
                failed.append(exc)

        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    for _ in range(5):
        in_thread(leave_a_greenlet)
        in_thread(use_another_loop)
    assert len(set(idents)) < len(idents)
    assert all(each.is_closed for each in hubs)


def test_two_loops_in_two_threads_have_a_hub_each(run: Any) -> None:
    import threading

    hubs: list[hub.Hub] = []

    async def record() -> None:
        await spawn(sleep, 0)
        hubs.append(current_hub())

    thread = threading.Thread(target=lambda: asyncio.run(record()))

    async def main() -> None:
        await record()
        thread.start()
        await asyncio.to_thread(thread.join)

    run(main)
    assert len({id(each) for each in hubs}) == 2


def test_waking_from_another_thread_reaches_the_loop(run_on_each: Any, script: Any) -> None:
    async def main() -> None:
        waiters: list[Waiter] = []

        def waits() -> bool:
            waiters.append(Waiter("test"))
            return waiters[0].wait(20)

        future = spawn(waits)
        script(waiters[0].wake)
        assert await future

    run_on_each(main)


def test_in_greenlet_tells_where_one_may_wait(run: Any) -> None:
    async def main() -> None:
        assert not in_greenlet()
        assert await spawn(in_greenlet)
        assert isinstance(await spawn(getcurrent), Worker)

    assert not in_greenlet()
    assert copy_context().run(in_greenlet) is False
    run(main)
