"""Locks, conditions, events and semaphores for child greenlets.

`green.threading` offers them under the standard library's names. Where those
would stop the thread, these suspend a greenlet. An uncontended lock costs no
switch.

Rule: waiters are served in the order in which they came. One that was woken
and waits again for the same thing keeps its place; one that is cancelled
after it was woken passes the wake-up on.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent

from motorlike.green.hub import Waiter

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore", "get_ident"]


def get_ident() -> int:
    """Return a number that identifies the running greenlet."""
    return id(getcurrent())


class Lock:
    """A `threading.Lock`; contended, it suspends the greenlet."""

    __slots__ = ("__weakref__", "_is_locked", "_waiters")

    def __init__(self) -> None:
        self._is_locked = False
        self._waiters: deque[Waiter] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; return whether it was to be had in time.

        Raises:
            NotInGreenlet: It is taken, and the hub must not wait.
        """
        if not self._is_locked:
            self._is_locked = True
            return True
        if not blocking or timeout == 0:
            return False
        return self._wait(None if timeout < 0 else timeout)

    def _wait(self, timeout: float | None) -> bool:
        waiter = Waiter("Lock.acquire()")
        if self._waiters is None:
            self._waiters = deque()
        self._waiters.append(waiter)
        try:
            # The lock is handed over: it stays taken when a waiter wakes.
            return waiter.wait(timeout)
        except BaseException:
            if waiter.is_woken:
                self.release()
            raise
        finally:
            if not waiter.is_woken:
                self._waiters.remove(waiter)

    def release(self) -> None:
        """Give the lock to the next waiter, or free it."""
        if not self._is_locked:
            raise RuntimeError("release unlocked lock")
        if self._waiters:
            self._waiters.popleft().wake()
        else:
            self._is_locked = False

    def locked(self) -> bool:
        """Return whether somebody holds the lock."""
        return self._is_locked

    def __enter__(self) -> bool:
        if not self._is_locked:
            self._is_locked = True
            return True
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        if self._waiters:
            self.release()
        else:
            self._is_locked = False

    def _is_owned(self) -> bool:
        return self._is_locked

    def _release_save(self) -> int:
        self.release()
        return 1

    def _acquire_restore(self, count: int) -> None:
        self.acquire()


class RLock:
    """A `threading.RLock`: its greenlet may take it again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, or count once more for the greenlet that holds it."""
        me = get_ident()
        if self._owner == me:
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner = me
        self._count = 1
        return True

    def release(self) -> None:
        """Undo one `acquire`; the last one frees the lock."""
        if self._owner != get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self._owner == get_ident()

    def _release_save(self) -> int:
        count, self._count, self._owner = self._count, 0, None
        self._lock.release()
        return count

    def _acquire_restore(self, count: int) -> None:
        self._lock.acquire()
        self._owner = get_ident()
        self._count = count


class Condition:
    """A `threading.Condition` that serves its waiters strictly in order."""

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        self._lock = RLock() if lock is None else lock
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._numbers = itertools.count()
        # Sorted by number: the order of the first wait.
        self._waiters: deque[tuple[int, Waiter]] = deque()
        self._woken = 0
        # The greenlet that came back last, and its number, while the lock has
        # not been let go: if it waits again, it was not served.
        self._returned: tuple[int, int] | None = None

    @property
    def has_line(self) -> bool:
        """Whether anybody waits, or was woken and has not run yet."""
        return bool(self._waiters or self._woken)

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *exc_info: object) -> None:
        self._returned = None
        self._lock.__exit__(*exc_info)

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait to be notified, and take the lock again.

        Returns:
            False if *timeout* seconds passed first.
        """
        self._check_owned("wait on")
        waiter = Waiter("Condition.wait()")
        entry = (self._number(), waiter)
        self._enqueue(entry)
        saved = self._lock._release_save()
        try:
            return self._suspend(entry, timeout)
        finally:
            self._lock._acquire_restore(saved)
            self._returned = (get_ident(), entry[0])

    def _suspend(self, entry: tuple[int, Waiter], timeout: float | None) -> bool:
        waiter = entry[1]
        try:
            notified = waiter.wait(timeout)
        except BaseException:
            if waiter.is_woken:
                # The wake-up stood for something that is free now.
                self._wake(1)
            raise
        finally:
            if waiter.is_woken:
                self._woken -= 1
            else:
                self._waiters.remove(entry)
        return notified

    def _number(self) -> int:
        returned, self._returned = self._returned, None
        if returned is not None and returned[0] == get_ident():
            return returned[1]
        return next(self._numbers)

    def _enqueue(self, entry: tuple[int, Waiter]) -> None:
        waiters = self._waiters
        if not waiters or waiters[-1][0] < entry[0]:
            waiters.append(entry)
            return
        position = next(i for i, (number, _) in enumerate(waiters) if number > entry[0])
        waiters.insert(position, entry)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()`` is true; return its last value."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            self.wait(remaining)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake the *n* that have waited longest."""
        self._check_owned("notify")
        self._wake(n)

    def notify_all(self) -> None:
        """Wake all who wait."""
        self.notify(len(self._waiters))

    def _wake(self, n: int) -> None:
        # All in line are waiting: one that times out or is cancelled takes
        # itself out before any other greenlet runs.
        for _ in range(min(n, len(self._waiters))):
            _, waiter = self._waiters.popleft()
            self._woken += 1
            waiter.wake()

    def _check_owned(self, verb: str) -> None:
        if not self._lock._is_owned():
            raise RuntimeError(f"cannot {verb} un-acquired lock")


class Event:
    """A `threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: set[Waiter] = set()

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self._is_set

    def set(self) -> None:
        """Set the event, and wake all who wait for it."""
        self._is_set = True
        for waiter in self._waiters:
            waiter.wake()

    def clear(self) -> None:
        """Let later waits wait again."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set; return False after *timeout* seconds."""
        if self._is_set:
            return True
        waiter = Waiter("Event.wait()")
        self._waiters.add(waiter)
        try:
            return waiter.wait(timeout)
        finally:
            self._waiters.discard(waiter)


class Semaphore:
    """A `threading.Semaphore`."""

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._condition = Condition(Lock())
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take one; return whether there was one in time."""
        with self._condition:
            if not self._value and not blocking:
                return False
            if not self._condition.wait_for(lambda: self._value, timeout):
                return False
            self._value -= 1
            return True

    def release(self, n: int = 1) -> None:
        """Give *n* back."""
        with self._condition:
            self._value += n
            self._condition.notify(n)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class BoundedSemaphore(Semaphore):
    """A `threading.BoundedSemaphore`: more releases than acquires are an error."""

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._initial = value

    def release(self, n: int = 1) -> None:
        """Give *n* back.

        Raises:
            ValueError: More were given back than taken.
        """
        if self._value + n > self._initial:
            raise ValueError("Semaphore released too many times")
        super().release(n)
