"""The line of those who wait for a place in a pool.

A pool hands places over; whoever was handed one holds it, even if it is
cancelled before it runs again.

Rule: strictly in order of arrival, and nothing is handed to one who has gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from motorlike.errors import LoopClosed
from motorlike.green.hub import Waiter

__all__ = ["Line", "Turn"]

_T = TypeVar("_T")


class Turn(Generic[_T]):
    """One wait in the line, and how it ended.

    Attributes:
        grant: What was handed over, if anything was.
        error: Why nothing will be, if the line was dissolved.
    """

    __slots__ = ("_waiter", "error", "grant")

    def __init__(self, operation: str) -> None:
        self._waiter = Waiter(operation)
        self.grant: _T | None = None
        self.error: Exception | None = None

    def wait(self, timeout: float | None) -> None:
        """Suspend the greenlet until its turn has ended, or for *timeout* seconds."""
        self._waiter.wait(timeout)

    def wake(self) -> bool:
        """Let it run again soon; False if it waits no more."""
        return self._waiter.wake()


class Line(Generic[_T]):
    """Those who wait, first comers first."""

    def __init__(self) -> None:
        self._turns: deque[Turn[_T]] = deque()

    def __len__(self) -> int:
        return len(self._turns)

    def join(self, operation: str) -> Turn[_T]:
        """Stand at the end.

        Raises:
            NotInGreenlet: Outside a child greenlet nobody can wait.
        """
        turn: Turn[_T] = Turn(operation)
        self._turns.append(turn)
        return turn

    def leave(self, turn: Turn[_T]) -> None:
        """Step out, if *turn* has not ended."""
        if turn.grant is None and turn.error is None:
            self._turns.remove(turn)

    def hand(self, grant: _T) -> bool:
        """Give *grant* to the first who still waits; False if nobody does."""
        while self._turns:
            turn = self._turns.popleft()
            turn.grant = grant
            if turn.wake():
                return True
            turn.grant = None
            turn.error = LoopClosed("waiting for a connection")
        return False

    def dissolve(self, reason: Callable[[], Exception]) -> None:
        """Send everybody away, each with an error of its own."""
        while self._turns:
            turn = self._turns.popleft()
            turn.error = reason()
            turn.wake()
