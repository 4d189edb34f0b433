"""Threads that are greenlets on the loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading as stdlib_threading
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from motorlike.green import threading
from motorlike.green.hub import current_hub, sleep, spawn, wait


def test_a_thread_is_a_greenlet_and_no_operating_system_thread(green: Any) -> None:
    seen: list[Any] = []

    def check() -> None:
        before = set(stdlib_threading.enumerate())
        thread = threading.Thread(
            target=lambda *args, **kwargs: seen.append((args, kwargs)),
            args=(1,),
            kwargs={"b": 2},
            name="mine",
        )
        assert not thread.is_alive()
        assert "initial" in repr(thread)
        thread.start()
        assert thread.is_alive()
        assert seen == []
        thread.join()
        assert not thread.is_alive()
        assert "stopped" in repr(thread)
        assert set(stdlib_threading.enumerate()) <= before

    green(check)
    assert seen == [((1,), {"b": 2})]


def test_a_subclass_may_override_run(green: Any) -> None:
    class Mine(threading.Thread):
        ran = False

        def run(self) -> None:
            self.ran = True

    def check() -> bool:
        thread = Mine()
        thread.start()
        thread.join()
        return thread.ran

    assert green(check)


def test_join_times_out(green: Any) -> None:
    def check() -> None:
        thread = threading.Thread(target=sleep, args=(10,))
        thread.start()
        thread.join(0.01)
        assert thread.is_alive()
        thread.interrupt()
        thread.join()
        assert not thread.is_alive()

    green(check)


def test_interrupt_unwinds_the_thread_before_join_returns(green: Any) -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            sleep(10)
        finally:
            sleep(0)
            steps.append("cleaned up")

    def check() -> None:
        for waits_first in (True, False):
            thread = threading.Thread(target=work)
            thread.interrupt()  # not started: nothing to do
            thread.start()
            if waits_first:
                sleep(0)
            thread.interrupt()
            thread.join()
            assert not thread.is_alive()

    green(check)
    assert steps == ["cleaned up"]


def test_a_thread_starts_once_and_is_joined_after_its_start(green: Any) -> None:
    def check() -> None:
        thread = threading.Thread(target=lambda: None)
        with pytest.raises(RuntimeError, match="before it is started"):
            thread.join()
        thread.start()
        with pytest.raises(RuntimeError, match="only be started once"):
            thread.start()
        thread.join()

    green(check)


def test_a_thread_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        threading.Thread(target=print).start()


def test_a_thread_starts_with_an_empty_context(green: Any) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="empty")
    seen: list[str] = []

    def check() -> None:
        variable.set("the starter's")
        thread = threading.Thread(target=lambda: seen.append(variable.get()))
        thread.start()
        thread.join()

    green(check)
    assert seen == ["empty"]


def test_an_exception_in_a_thread_is_reported_at_once(
    green: Any, no_error_goes_unseen: list[logging.LogRecord]
) -> None:
    def fails() -> None:
        raise LookupError("in the thread")

    def check() -> None:
        thread = threading.Thread(target=fails, name="worker-7")
        thread.start()
        thread.join()
        (record,) = no_error_goes_unseen
        assert "worker-7" in record.getMessage()
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], LookupError)
        no_error_goes_unseen.clear()

    green(check)


def test_system_exit_ends_only_the_thread(green: Any) -> None:
    def check() -> None:
        thread = threading.Thread(target=raises_exit)
        thread.start()
        thread.join()

    def raises_exit() -> None:
        raise SystemExit

    green(check)


def test_current_thread_is_the_green_one_inside(green: Any) -> None:
    seen: list[Any] = []

    def inside() -> None:
        sleep(0)
        seen.append(threading.current_thread())
        seen.append(threading.get_ident())
        seen.append(threading.enumerate())
        seen.append(threading.active_count())

    def check() -> threading.Thread:
        thread = threading.Thread(target=inside)
        assert thread.ident is None
        thread.start()
        assert threading.current_thread() is stdlib_threading.current_thread()
        thread.join()
        return thread

    thread = green(check)
    assert seen == [thread, thread.ident, [thread], 1]
    assert threading.active_count() == 0


def test_each_greenlet_has_its_own_identifier(green: Any) -> None:
    def check() -> None:
        others = [spawn(lambda: sleep(0) or threading.get_ident()) for _ in range(3)]
        idents = {wait(other) for other in others} | {threading.get_ident()}
        assert len(idents) == 4

    green(check)


def test_a_timer_goes_off_unless_it_is_cancelled(green: Any) -> None:
    calls: list[Any] = []

    def check() -> None:
        first = threading.Timer(0.01, calls.append, [1])
        second = threading.Timer(0.01, calls.append, args=(2,))
        first.start()
        second.start()
        second.cancel()
        first.join()
        second.join()

    green(check)
    assert calls == [1]


def test_threads_end_with_the_loop(run: Any) -> None:
    ended: list[str] = []

    def forever() -> None:
        try:
            threading.Event().wait()
        finally:
            ended.append("ended")

    async def main() -> None:
        await spawn(lambda: threading.Thread(target=forever).start())
        await asyncio.sleep(0)
        assert current_hub().suspended == 1
        current_hub().close()

    run(main)
    assert ended == ["ended"]


def test_collect_starts_gathers_instead_of_starting(green: Any) -> None:
    ran: list[int] = []
    with threading.collect_starts() as threads:
        threading.Thread(target=ran.append, args=(1,)).start()
    assert len(threads) == 1
    assert not threads[0].is_alive()

    def check() -> None:
        threads[0].start()
        threads[0].join()

    green(check)
    assert ran == [1]


def test_collect_starts_concerns_its_own_greenlet_only(green: Any) -> None:
    ran: list[str] = []

    def other() -> None:
        thread = threading.Thread(target=ran.append, args=("other's",))
        thread.start()
        thread.join()

    def check() -> None:
        starting = asyncio.get_running_loop().create_future()

        def collects() -> None:
            with threading.collect_starts() as threads:
                wait(starting)
                threading.Thread(target=ran.append, args=("collected",)).start()
            assert len(threads) == 1

        collecting = spawn(collects)
        sleep(0)
        wait(spawn(other))
        starting.set_result(None)
        wait(collecting)

    green(check)
    assert ran == ["other's"]


def test_a_thread_can_be_held_weakly_as_pymongo_does(green: Any) -> None:
    def check() -> None:
        thread = threading.Thread(target=sleep, args=(0,))
        proxy = weakref.proxy(thread)
        thread.start()
        assert proxy.is_alive()
        assert proxy.myself() is thread
        thread.join()
        del thread
        gc.collect()
        with pytest.raises(ReferenceError):
            proxy.is_alive()

    green(check)


def test_what_is_missing_says_that_it_cannot_run_green() -> None:
    with pytest.raises(AttributeError, match="cannot run green"):
        assert threading.Barrier
