"""Locks and conditions for child greenlets.

`green.threading` offers them under the standard library's names. Where those
would stop the thread, these suspend a greenlet. An uncontended lock costs no
switch.

Rule: waiters are served in the order in which they came. One that was woken
and waits again for the same thing keeps its place; one that is cancelled
after it was woken passes the wake-up on.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from bisect import bisect, bisect_left
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Protocol

from greenlet import getcurrent

from motorlike.green.hub import Hub, Waiter, current_hub

__all__ = ["Condition", "Lock", "LoopLock", "RLock", "get_ident", "wait_seconds"]


def get_ident() -> int:
    """Return a number that identifies the running greenlet."""
    return id(getcurrent())


def wait_seconds(blocking: bool, timeout: float | None) -> float | None:
    """Return how long an ``acquire`` may wait: ``None`` without limit.

    Raises:
        ValueError: The arguments contradict each other.
    """
    if timeout is None or timeout == -1:
        return None if blocking else 0
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    return timeout


class Lock:
    """A `threading.Lock`; contended, it suspends the greenlet."""

    __slots__ = ("__weakref__", "_hold", "_waiters")

    def __init__(self) -> None:
        # False while free; while held, True or what `_acquire_restore` left.
        self._hold: object = False
        self._waiters: deque[Waiter] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; return whether it was to be had in time.

        Raises:
            NotInGreenlet: It is taken, and the hub must not wait.
        """
        if blocking and timeout == -1:
            return self.__enter__()
        seconds = wait_seconds(blocking, timeout)
        if not self._hold:
            self._hold = True
            return True
        return seconds != 0 and self._wait(seconds)

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
            if not waiter.is_woken and waiter in self._waiters:
                self._waiters.remove(waiter)

    def release(self) -> None:
        """Give the lock to the next waiter, or free it."""
        if not self._hold:
            raise RuntimeError("release unlocked lock")
        while self._waiters:
            if self._waiters.popleft().wake():
                self._hold = True
                return
        self._hold = False

    def locked(self) -> bool:
        """Return whether somebody holds the lock."""
        return bool(self._hold)

    def __enter__(self) -> bool:
        if not self._hold:
            self._hold = True
            return True
        return self._wait(None)

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        if self._waiters or not self._hold:
            self.release()
        else:
            self._hold = False

    def _is_owned(self) -> bool:
        return bool(self._hold)

    def _release_save(self) -> int:
        self.release()
        return 1

    def _acquire_restore(self, count: int, hold: object) -> None:
        # A greenlet that is cancelled here must still come back with the
        # lock, as its caller will release it.
        cancelled = None
        while True:
            try:
                self.__enter__()
                break
            except asyncio.CancelledError as exc:
                cancelled = exc
        self._hold = hold
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                # Its traceback holds this frame: without it, no cycle.
                del cancelled


class LoopLock:
    """A lock for each loop: who was left on another one, or before a fork, holds none here."""

    __slots__ = ("_hub", "_lock")

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._lock = Lock()

    def here(self) -> Lock:
        """Return the lock of the running loop."""
        hub = current_hub()
        if self._hub is not hub:
            self._hub, self._lock = hub, Lock()
        return self._lock

    @property
    def is_held(self) -> bool:
        """Whether somebody holds the lock, on whatever loop."""
        return self._lock.locked()


class RLock:
    """A `threading.RLock`: its greenlet may take it again."""

    __slots__ = ("__weakref__", "_count", "_lock", "_owner")

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

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        self.release()

    @property
    def _hold(self) -> object:
        return self._lock._hold

    def _is_owned(self) -> bool:
        return self._owner == get_ident()

    def _release_save(self) -> int:
        count, self._count, self._owner = self._count, 0, None
        self._lock.release()
        return count

    def _acquire_restore(self, count: int, hold: object) -> None:
        try:
            self._lock._acquire_restore(1, hold)
        finally:
            if self._lock._hold is hold:
                self._owner = get_ident()
                self._count = count


class Standing(Protocol):
    """What can stand in a condition's line: see `Condition.enlist`."""

    number: int
    is_woken: bool

    def wake(self) -> bool:
        """Let it go on soon, and return whether it will."""


class _Turn(Waiter):
    """One wait in the line of a condition, and its place there.

    While its greenlet holds the lock again, it is the lock's `_hold`: a wait
    that finds it there was not served, and keeps the place.
    """

    __slots__ = ("condition", "number")

    def __init__(self, condition: Condition) -> None:
        super().__init__("Condition.wait()")
        self.condition = condition
        self.number = condition._number()


_place = attrgetter("number")


class Condition:
    """A `threading.Condition` that serves its waiters strictly in order."""

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        self._lock = RLock() if lock is None else lock
        # Where an uncontended lock needs no call.
        self._plain_lock = self._lock if type(self._lock) is Lock else None
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._numbers = itertools.count()
        # Sorted by number: the order of the first wait.
        self._waiting: deque[Standing] = deque()
        self._woken = 0

    @property
    def has_line(self) -> bool:
        """Whether anybody waits, or was woken and does not hold the lock yet."""
        return bool(self._waiting or self._woken)

    @property
    def line_length(self) -> int:
        """How many wait, or were woken and do not hold the lock yet."""
        return len(self._waiting) + self._woken

    # The next three are passed several times by each operation of a driver:
    # what an uncontended lock would do is written out.

    def __enter__(self) -> bool:
        lock = self._plain_lock
        if lock is None or lock._hold:
            return self._lock.__enter__()
        lock._hold = True
        return True

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        lock = self._plain_lock
        if lock is None or lock._waiters or not lock._hold:
            self._lock.__exit__(exc_type, exc, traceback)
        else:
            lock._hold = False

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait to be notified, and take the lock again.

        Returns:
            False if *timeout* seconds passed first.
        """
        self._check_owned("wait on")
        turn = _Turn(self)
        self._enqueue(turn)
        saved = self._lock._release_save()
        is_served = False
        try:
            try:
                turn.wait(timeout)
            finally:
                self._lock._acquire_restore(saved, turn)
            is_served = True
        finally:
            self._leave(turn, is_served)
        return turn.is_woken

    def enlist(self, each: Standing) -> None:
        """Let *each* stand in the line; `strike_off` it after it was woken.

        The lock is not asked for: nothing is waited for here. It gets a number,
        unless it has one from when it stood there before, and not a negative one.
        """
        if each.number < 0:
            each.number = next(self._numbers)
            self._waiting.append(each)
        else:
            self._enqueue(each)

    def withdraw(self, each: Standing) -> None:
        """Take *each*, unwoken, out of the line if it is there. Thousands may do so at once."""
        place = bisect_left(self._waiting, each.number, key=_place)
        if place < len(self._waiting) and self._waiting[place] is each:
            del self._waiting[place]

    def strike_off(self, *, is_served: bool) -> None:
        """Count off one that was enlisted and woken, and wake another if it took nothing."""
        self._woken -= 1
        if not is_served:
            self._wake(1)

    def _leave(self, turn: _Turn, is_served: bool) -> None:
        if turn.is_woken:
            # If not served: the wake-up stood for something that is free now.
            self.strike_off(is_served=is_served)
        else:
            self.withdraw(turn)

    def _number(self) -> int:
        hold = self._lock._hold
        if isinstance(hold, _Turn) and hold.condition is self:
            return hold.number
        return next(self._numbers)

    def _enqueue(self, turn: Standing) -> None:
        waiting = self._waiting
        if not waiting or waiting[-1].number < turn.number:
            waiting.append(turn)
            return
        # All who were woken may come back, and newcomers stand here already.
        waiting.insert(bisect(waiting, turn.number, key=_place), turn)

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
        lock = self._plain_lock
        if lock is None or not lock._hold:
            self._check_owned("notify")
        if self._waiting:
            self._wake(n)

    def pass_on(self) -> None:
        """Wake the one that has waited longest, as `notify`, without the lock.

        For who knows that nobody holds it, and has changed what it guards.
        """
        if self._waiting:
            self._wake(1)

    def notify_all(self) -> None:
        """Wake all who wait."""
        self.notify(len(self._waiting))

    def _wake(self, n: int) -> None:
        while n > 0 and self._waiting:
            if self._waiting.popleft().wake():
                self._woken += 1
                n -= 1

    def _check_owned(self, verb: str) -> None:
        if not self._lock._is_owned():
            raise RuntimeError(f"cannot {verb} un-acquired lock")
