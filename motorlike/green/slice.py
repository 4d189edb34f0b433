"""How long events may go on resuming greenlets before the loop's other work has a turn.

A `green.hub.Hub` has one, and its streams ask it. A hundred large replies that
arrive together would otherwise all be decoded in one turn of the loop, while
its timers and other callbacks wait.

Rule: an event that is put off is not lost: the loop reports it again.
"""

from __future__ import annotations

import asyncio
from contextvars import Context

__all__ = ["SLICE_SECONDS", "Slice"]

SLICE_SECONDS = 0.01


class Slice:
    """The time that events have, until the loop's next turn after it is used up.

    Attributes:
        is_over: Whether events are to be put off.
    """

    __slots__ = ("_loop", "_used_seconds", "is_over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._used_seconds = 0.0
        self.is_over = False

    def use(self, seconds: float) -> None:
        """Count the *seconds* for which an event has held the loop."""
        self._used_seconds += seconds
        if self._used_seconds > SLICE_SECONDS:
            self._used_seconds = 0.0
            if not self._loop.is_closed():
                self.is_over = True
                self._loop.call_soon(self._begin, context=Context())

    def _begin(self) -> None:
        self.is_over = False
