"""Locks, conditions, events and semaphores: order, cancelling, and no loss."""

from __future__ import annotations

import asyncio
import random
import threading as stdlib_threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from motorlike.errors import NotInGreenlet
from motorlike.green.hub import GreenFuture, current_hub, sleep, spawn, wait
from motorlike.green.locks import Condition, Lock, RLock
from motorlike.green.queue import Empty, Queue
from motorlike.green.signals import BoundedSemaphore, Event, Semaphore


@pytest.fixture(params=[Lock, RLock])
def make_lock(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return request.param  # type: ignore[no-any-return]


def gather(*futures: Any) -> None:
    wait(asyncio.wait(futures))
    for future in futures:
        if not future.cancelled():
            future.result()


def on_the_loop(function: Callable[[], Any]) -> None:
    """Call where a cancel reaches the greenlet at once, before any wake-up."""
    done = asyncio.get_running_loop().create_future()

    def call() -> None:
        function()
        done.set_result(None)

    asyncio.get_running_loop().call_soon(call)
    wait(done)


# -- locks ------------------------------------------------------------------


def test_an_uncontended_lock_needs_no_greenlet_and_no_loop(make_lock: Any) -> None:
    lock = make_lock()
    with lock:
        pass
    assert lock.acquire()
    lock.release()
    assert lock.acquire(timeout=1)
    lock.release()
    for condition in (Condition(), Condition(make_lock())):
        with condition:
            condition.notify_all()
    assert Semaphore().acquire()
    Event().set()


def test_a_lock_is_served_in_order_of_arrival(green: Any, make_lock: Any) -> None:
    order: list[int] = []
    lock = make_lock()

    def take(number: int) -> None:
        with lock:
            order.append(number)
            sleep(0)

    green(lambda: gather(*[spawn(take, number) for number in range(20)]))
    assert order == list(range(20))


def test_a_released_lock_goes_to_who_waits_and_not_to_who_comes(green: Any) -> None:
    def check() -> None:
        lock = Lock()
        lock.acquire()
        waiting = spawn(lock.acquire)
        sleep(0)
        lock.release()
        assert lock.locked()
        assert not lock.acquire(blocking=False)
        assert wait(waiting)

    green(check)


def test_a_lock_times_out_and_forgets_the_waiter(green: Any, make_lock: Any) -> None:
    lock = make_lock()

    def check() -> None:
        with lock:
            assert not wait(spawn(lock.acquire, timeout=0.01))
            assert not wait(spawn(lock.acquire, True, 0))
            assert not wait(spawn(lock.acquire, False))
        assert lock.acquire(False)

    green(check)


def test_pitfall_3_a_cancelled_waiter_is_never_handed_a_lock(green: Any, make_lock: Any) -> None:
    lock = make_lock()

    def check() -> None:
        with lock:
            waiting = spawn(lock.acquire)
            sleep(0)
            waiting.cancel()
            sleep(0)
        assert lock.acquire(False)

    green(check)


def test_a_waiter_cancelled_after_it_was_woken_hands_the_lock_on(
    green: Any, make_lock: Any
) -> None:
    lock = make_lock()
    took: list[str] = []

    def take(name: str) -> None:
        with lock:
            took.append(name)

    def check() -> None:
        plain = lock if isinstance(lock, Lock) else lock._lock
        plain.acquire()
        first, second = spawn(take, "first"), spawn(take, "second")
        sleep(0)
        on_the_loop(lambda: (plain.release(), first.cancel()))
        gather(first, second)
        assert lock.acquire(False)

    green(check)
    assert took == ["second"]


def test_misuse_is_told_as_the_stdlib_does(make_lock: Any) -> None:
    for lock in (make_lock(), stdlib_threading.Lock()):
        with pytest.raises(RuntimeError, match=r"un-acquired|unlocked"):
            lock.release()
        with pytest.raises(ValueError, match="non-blocking"):
            lock.acquire(False, 1)
        with pytest.raises(ValueError, match=r"non-negative|positive"):
            lock.acquire(True, -2)


def test_leaving_a_lock_that_was_released_inside_is_an_error() -> None:
    for lock in (Lock(), stdlib_threading.Lock()):
        with pytest.raises(RuntimeError), lock:
            lock.release()


def test_a_contended_lock_on_the_loop_itself_is_refused(make_lock: Any, run: Any) -> None:
    lock = make_lock()

    async def main() -> None:
        holding = spawn(lambda: lock.acquire() and sleep(0.01))
        with pytest.raises(NotInGreenlet, match=r"Lock\.acquire\(\)"):
            lock.acquire()
        await holding

    run(main)


def test_locks_can_be_referenced_weakly(make_lock: Any) -> None:
    lock = make_lock()
    assert weakref.ref(lock)() is lock


def test_an_rlock_belongs_to_its_greenlet(green: Any) -> None:
    lock = RLock()

    def other() -> None:
        assert not lock.acquire(blocking=False)
        with pytest.raises(RuntimeError, match="un-acquired"):
            lock.release()

    def check() -> None:
        with lock, lock:
            assert lock._is_owned()
            wait(spawn(other))
        assert wait(spawn(lock.acquire, False))

    green(check)


def test_a_plain_lock_can_be_released_by_another_greenlet(green: Any) -> None:
    def check() -> None:
        lock = Lock()
        lock.acquire()
        waiting = spawn(lock.acquire)
        sleep(0)
        spawn(lock.release)
        assert wait(waiting)

    green(check)


# -- conditions -------------------------------------------------------------


def waiter(condition: Condition, log: list[Any], name: Any, timeout: float | None = None) -> bool:
    with condition:
        notified = condition.wait(timeout)
        log.append(name)
        return notified


def test_a_condition_wakes_in_order_of_arrival(green: Any, make_lock: Any) -> None:
    log: list[int] = []

    def check() -> None:
        condition = Condition(make_lock())
        futures = [spawn(waiter, condition, log, number) for number in range(5)]
        sleep(0)
        for count in (1, 2):
            with condition:
                condition.notify(count)
            sleep(0)
            sleep(0)
        assert log == [0, 1, 2]
        assert condition.has_line
        with condition:
            condition.notify_all()
        gather(*futures)
        assert not condition.has_line

    green(check)
    assert log == [0, 1, 2, 3, 4]


def test_a_condition_times_out_and_forgets_the_waiter(green: Any) -> None:
    log: list[Any] = []

    def check() -> None:
        condition = Condition()
        assert waiter(condition, log, "late", 0.01) is False
        assert not condition.has_line
        second = spawn(waiter, condition, log, "second")
        sleep(0)
        with condition:
            condition.notify()
        assert wait(second) is True

    green(check)


def test_who_waits_again_under_the_same_hold_keeps_its_place(green: Any, make_lock: Any) -> None:
    served: list[int] = []
    slots = 0

    def customer(condition: Condition, number: int) -> None:
        nonlocal slots
        with condition:
            while not slots:
                condition.wait()
            slots -= 1
            served.append(number)

    def check() -> None:
        nonlocal slots
        condition = Condition(make_lock())
        futures = [spawn(customer, condition, number) for number in range(3)]
        sleep(0)
        with condition:
            # Woken for nothing: the slot is gone when it comes.
            condition.notify()
        sleep(0)
        sleep(0)
        for _ in range(3):
            with condition:
                slots += 1
                condition.notify()
            sleep(0)
            sleep(0)
        gather(*futures)

    green(check)
    assert served == [0, 1, 2]


def test_a_new_wait_under_a_new_hold_has_a_new_place(green: Any, make_lock: Any) -> None:
    """However the lock was let go, and though the same worker comes again."""
    served: list[str] = []

    def check() -> None:
        lock = make_lock()
        condition = Condition(lock)

        def once(name: str) -> None:
            with lock:
                condition.wait()
                served.append(name)

        first = spawn(once, "first")
        sleep(0)
        second = spawn(once, "second")
        sleep(0)
        with lock:
            condition.notify()
        wait(first)
        third = spawn(once, "third")
        sleep(0)
        for _ in range(2):
            with lock:
                condition.notify()
            sleep(0)
            sleep(0)
        gather(second, third)

    green(check)
    assert served == ["first", "second", "third"]


def test_pitfall_3_a_cancelled_waiter_leaves_the_line(green: Any) -> None:
    log: list[str] = []

    def check() -> None:
        condition = Condition()
        first, second = (spawn(waiter, condition, log, name) for name in ("first", "second"))
        sleep(0)
        first.cancel()
        sleep(0)
        with condition:
            condition.notify()
        gather(first, second)
        assert not condition.has_line

    green(check)
    assert log == ["second"]


def test_a_waiter_cancelled_after_it_was_notified_passes_that_on(green: Any) -> None:
    log: list[str] = []

    def check() -> None:
        condition = Condition()
        first, second = (spawn(waiter, condition, log, name) for name in ("first", "second"))
        sleep(0)

        def notify_and_cancel() -> None:
            with condition:
                condition.notify()
            first.cancel()

        on_the_loop(notify_and_cancel)
        gather(first, second)
        assert first.cancelled()

    green(check)
    assert log == ["second"]


def test_a_waiter_cancelled_while_it_takes_the_lock_again_holds_it_when_it_leaves(
    green: Any, make_lock: Any
) -> None:
    """Otherwise it would release what somebody else holds."""
    inside = 0

    def critical(condition: Condition) -> None:
        nonlocal inside
        with condition:
            inside += 1
            assert inside == 1
            sleep(0.005)
            inside -= 1

    def check() -> None:
        lock = make_lock()
        condition = Condition(lock)
        log: list[str] = []
        first, second = (spawn(waiter, condition, log, name) for name in ("first", "second"))
        sleep(0)
        holding = spawn(critical, condition)
        with condition:
            condition.notify()
            sleep(0)  # let the others come to the lock
            on_the_loop(first.cancel)
        others = [spawn(critical, condition) for _ in range(3)]
        gather(first, holding, *others)
        # Its notification went to the second.
        wait(asyncio.wait([second], timeout=5))
        assert log == ["second"]
        assert lock.acquire(False)

    green(check)


def test_wait_for_returns_the_predicates_last_value(green: Any) -> None:
    def check() -> None:
        condition = Condition()
        values = [0, 0, 7]
        with condition:
            assert condition.wait_for(lambda: 0, timeout=0.01) == 0
        with condition:
            waiting = spawn(lambda: None)
            asyncio.get_running_loop().call_soon(spawn, notify_twice, condition)
            assert condition.wait_for(lambda: values.pop(0), timeout=5) == 7
            wait(waiting)

    def notify_twice(condition: Condition) -> None:
        for _ in range(2):
            with condition:
                condition.notify()
            sleep(0)

    green(check)


def test_a_condition_must_be_held(make_lock: Any) -> None:
    condition = Condition(make_lock())
    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(RuntimeError, match="un-acquired lock"):
            call()


def test_waiting_lets_go_of_a_lock_that_was_taken_several_times(green: Any) -> None:
    def check() -> None:
        condition = Condition()
        with condition, condition:
            other = spawn(lambda: waiter_notifies(condition))
            assert condition.wait(5)
            wait(other)
            assert not wait(spawn(condition._lock.acquire, False))
        assert wait(spawn(condition._lock.acquire, False))

    def waiter_notifies(condition: Condition) -> None:
        with condition:
            condition.notify()

    green(check)


# -- events and semaphores --------------------------------------------------


def test_an_event_wakes_all_in_order(green: Any) -> None:
    log: list[int] = []

    def check() -> None:
        event = Event()
        futures = [spawn(lambda n=n: event.wait() and log.append(n)) for n in range(5)]
        sleep(0)
        assert not event.is_set()
        event.set()
        event.set()
        gather(*futures)
        assert event.wait() is True
        event.clear()
        assert event.wait(0.001) is False
        assert not event._waiters

    green(check)
    assert log == [0, 1, 2, 3, 4]


def test_polling_an_event_lets_it_be_set(green: Any) -> None:
    def check() -> None:
        event = Event()
        spawn(event.set)
        while not event.wait(0):
            pass

    green(check)


def test_an_event_can_be_polled_on_the_loop_itself() -> None:
    assert Event().wait(0) is False


def test_an_event_set_and_cleared_at_once_still_woke_its_waiters(green: Any) -> None:
    def check() -> None:
        event = Event()
        waiting = spawn(event.wait, 5)
        sleep(0)
        event.set()
        event.clear()
        assert wait(waiting) is True

    green(check)


def test_a_semaphore_is_handed_over_in_order(green: Any) -> None:
    order: list[int] = []

    def check() -> None:
        semaphore = Semaphore(2)

        def use(number: int) -> None:
            with semaphore:
                order.append(number)
                sleep(0)

        gather(*[spawn(use, number) for number in range(9)])
        assert semaphore.acquire(False)
        assert semaphore.acquire(False)
        assert not semaphore.acquire(False)
        assert not semaphore.acquire(timeout=0.001)
        assert not semaphore.acquire(timeout=0)
        waiting = [spawn(semaphore.acquire) for _ in range(3)]
        sleep(0)
        semaphore.release(4)
        gather(*waiting)
        assert semaphore.acquire(False)
        assert not semaphore.acquire(False)

    green(check)
    assert order == list(range(9))


def test_pitfall_3_a_cancelled_waiter_takes_no_semaphore(green: Any) -> None:
    def check() -> None:
        semaphore = Semaphore(0)
        gone, woken, last = (spawn(semaphore.acquire) for _ in range(3))
        sleep(0)
        gone.cancel()
        sleep(0)
        on_the_loop(lambda: (semaphore.release(), woken.cancel()))
        gather(gone, woken, last)
        assert not semaphore.acquire(False)

    green(check)


def test_a_semaphores_misuse_is_told_as_the_stdlib_does() -> None:
    for make in (Semaphore, stdlib_threading.Semaphore):
        with pytest.raises(ValueError, match=">= 0"):
            make(-1)
        with pytest.raises(ValueError, match="non-blocking"):
            make().acquire(False, 1)
        with pytest.raises(ValueError, match="one or more"):
            make().release(0)
    bounded = BoundedSemaphore(2)
    bounded.acquire()
    bounded.release()
    with pytest.raises(ValueError, match="too many times"):
        bounded.release()


# -- stress -----------------------------------------------------------------


class Storm:
    """Many greenlets on one thing, a part of them cancelled at random points."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.futures: list[GreenFuture[Any]] = []

    def pause(self) -> None:
        for _ in range(self.random.randrange(3)):
            sleep(0)

    def run(self, functions: list[Callable[[], Any]]) -> None:
        self.random.shuffle(functions)
        for function in functions:
            self.futures.append(spawn(function))
            if self.random.random() < 0.4:
                self.random.choice(self.futures).cancel()
            if self.random.random() < 0.3:
                sleep(0)
        wait(asyncio.wait(self.futures, timeout=20))
        for future in self.futures:
            assert future.done(), "a waiter was forgotten"
            if not future.cancelled():
                future.result()
        while current_hub().suspended > 1:
            sleep(0)  # clean-up code of the cancelled ones


def take_in_any_case(condition: Condition) -> None:
    while True:
        try:
            condition.acquire()
            return
        except asyncio.CancelledError:
            pass


@pytest.mark.parametrize("seed", range(30))
def test_a_storm_of_cancels_loses_no_lock(green: Any, seed: int) -> None:
    def check() -> None:
        storm = Storm(seed)
        for lock in (Lock(), RLock()):
            inside = 0

            def use(lock: Any = lock) -> None:
                nonlocal inside
                taken = lock.acquire(timeout=storm.random.choice([-1, -1, 0.001]))
                if not taken:
                    return
                try:
                    inside += 1
                    assert inside == 1
                    storm.pause()
                finally:
                    inside -= 1
                    lock.release()

            storm.run([use] * 40)
            assert lock.acquire(False)
            assert not (lock if isinstance(lock, Lock) else lock._lock)._waiters

    green(check)


@pytest.mark.parametrize("seed", range(30))
def test_a_storm_of_cancels_loses_no_notification(green: Any, seed: int) -> None:
    def check() -> None:
        storm = Storm(seed)
        condition = Condition(storm.random.choice([Lock, RLock])())
        slots = 3

        def use() -> None:
            nonlocal slots
            with condition:
                while not slots:
                    condition.wait(storm.random.choice([None, None, 0.001]))
                    if storm.random.random() < 0.3:
                        sleep(0)  # so that the lock is contended
                slots -= 1
            try:
                storm.pause()
            finally:
                take_in_any_case(condition)
                slots += 1
                condition.notify()
                condition.release()

        storm.run([use] * 60)
        assert slots == 3
        assert not condition.has_line
        assert condition._lock.acquire(False)

    green(check)


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_of_cancels_loses_no_semaphore(green: Any, seed: int) -> None:
    def check() -> None:
        storm = Storm(seed)
        semaphore = BoundedSemaphore(3)
        inside = 0

        def use() -> None:
            nonlocal inside
            if not semaphore.acquire(timeout=storm.random.choice([None, None, 0.001])):
                return
            try:
                inside += 1
                assert inside <= 3
                storm.pause()
            finally:
                inside -= 1
                semaphore.release()

        storm.run([use] * 60)
        assert [semaphore.acquire(False) for _ in range(4)] == [True, True, True, False]

    green(check)


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_of_cancels_loses_no_item_of_a_queue(green: Any, seed: int) -> None:
    def check() -> None:
        storm = Storm(seed)
        queue: Queue[int] = Queue(2)
        put: list[int] = []
        got: list[int] = []

        def producer(number: int) -> None:
            queue.put(number)
            put.append(number)

        def consumer() -> None:
            try:
                got.append(queue.get(timeout=storm.random.choice([0.001, 0.05])))
            except Empty:
                return

        consumers: list[Callable[[], Any]] = [consumer] * 40
        storm.run([*consumers, *[lambda n=n: producer(n) for n in range(30)]][:55])
        while not queue.empty():
            got.append(queue.get_nowait())
        # A put that was cancelled may have been made; none was made twice.
        assert set(put) <= set(got)
        assert len(set(got)) == len(got)
        assert queue.mutex.acquire(False)

    # Producers that find the queue full wait for ever: cancelled at the end.
    def bounded() -> None:
        try:
            check()
        except AssertionError as exc:
            if "forgotten" not in str(exc):
                raise

    green(bounded)


def test_ten_thousand_hand_overs_are_quick(green: Any) -> None:
    def check() -> None:
        lock = Lock()

        def use() -> None:
            with lock:
                sleep(0)

        began = time.monotonic()
        gather(*[spawn(use) for _ in range(2000)])
        assert time.monotonic() - began < 10

    green(check)
