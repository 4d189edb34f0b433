"""Events and semaphores for child greenlets.

`green.threading` offers them under the standard library's names.

Rule: waiters are served in the order in which they came; what is handed to
one that is cancelled goes to the next.
"""

from __future__ import annotations

from collections import deque

from motorlike.green.hub import Waiter
from motorlike.green.worker import in_greenlet

__all__ = ["BoundedSemaphore", "Event", "Semaphore"]


class Event:
    """A `threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False
        # A dictionary is a set that keeps its order.
        self._waiters: dict[Waiter, None] = {}

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
        """Wait until the event is set; return False after *timeout* seconds.

        With no time at all, it still lets other greenlets run, so that a
        loop which asks again and again does not keep the event from being set.
        """
        if self._is_set:
            return True
        if timeout is not None and timeout <= 0 and not in_greenlet():
            return False
        waiter = Waiter("Event.wait()")
        self._waiters[waiter] = None
        try:
            return waiter.wait(timeout)
        finally:
            del self._waiters[waiter]


class Semaphore:
    """A `threading.Semaphore`."""

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        # Positive only while nobody waits: otherwise it is handed over.
        self._value = value
        self._waiters: deque[Waiter] = deque()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take one; return whether there was one in time."""
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        if self._value:
            self._value -= 1
            return True
        if not blocking or (timeout is not None and timeout <= 0):
            return False
        return self._wait(timeout)

    def _wait(self, timeout: float | None) -> bool:
        waiter = Waiter("Semaphore.acquire()")
        self._waiters.append(waiter)
        try:
            return waiter.wait(timeout)
        except BaseException:
            if waiter.is_woken:
                self._hand_over(1)
            raise
        finally:
            if not waiter.is_woken and waiter in self._waiters:
                self._waiters.remove(waiter)

    def release(self, n: int = 1) -> None:
        """Give *n* back."""
        if n < 1:
            raise ValueError("n must be one or more")
        self._hand_over(n)

    def _hand_over(self, n: int) -> None:
        while n and self._waiters:
            if self._waiters.popleft().wake():
                n -= 1
        self._value += n

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
