"""A thread that notices when the event loop is held, and says by whom.

`green.trace` starts one. A child greenlet's turn is timed by the switches that
the trace sees; the loop's own, by a callback that it does not get to run.

Rule: a stack is shown only if the turn that it was taken for still goes on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

from motorlike.green.trace_frames import Stack, operation, stack_of_thread
from motorlike.green.worker import Worker

__all__ = ["Turn", "Watchdog"]

# A handler may be slow to write the last warning; it must not hold up the end.
_END_SECONDS = 5
# A turn is looked at this often before it is too long.
_LOOKS = 4


class Turn(NamedTuple):
    """What the loop's thread does between two switches, and since when.

    Attributes:
        worker: The child greenlet that runs, ``None`` for the event loop itself.
        since: When it began, on the monotonic clock.
    """

    worker: Worker | None
    since: float


class Watchdog:
    """Warns once about each turn longer than *slow_seconds*, while it lasts.

    Args:
        loop: The event loop, which the calling thread runs.
        turn: Returns the present turn; called from the watchdog's thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slow_seconds: float,
        logger: logging.Logger,
        turn: Callable[[], Turn],
    ) -> None:
        self._loop = loop
        self._slow_seconds = slow_seconds
        self._logger = logger
        self._turn = turn
        self._watched = threading.get_ident()
        # Since when the loop owes a sign of life; ``None`` if it gave it.
        self._asked: float | None = None
        self._reported: tuple[Turn, float | None] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="motorlike-trace", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread, and wait until it has."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_END_SECONDS)

    def _watch(self) -> None:
        pause = self._slow_seconds / _LOOKS
        while not self._ended.wait(pause):
            # A loop that was closed by hand told nobody.
            if self._loop.is_closed():
                return
            self._look()

    def _look(self) -> None:
        turn = self._turn()
        since = turn.since if turn.worker is not None else self._loop_held_since(turn)
        if since is None:
            return
        held = time.monotonic() - since
        asked = None if turn.worker is not None else self._asked
        if held >= self._slow_seconds and not self._is_reported(turn, asked):
            self._report(turn, asked, held)

    def _loop_held_since(self, turn: Turn) -> float | None:
        # A loop that waits for events looks like one that is held. So it is
        # asked for a sign of life, which only an idle one can give.
        if not self._loop.is_running():
            self._asked = None
            return None
        asked = self._asked
        if asked is None:
            self._asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                self._ended.set()
            return None
        return max(turn.since, asked)

    def _answer(self) -> None:
        self._asked = None

    def _is_reported(self, turn: Turn, asked: float | None) -> bool:
        reported = self._reported
        return reported is not None and reported[0] is turn and reported[1] == asked

    def _report(self, turn: Turn, asked: float | None, held: float) -> None:
        stack = stack_of_thread(self._watched)
        if self._turn() is not turn or (turn.worker is None and self._asked != asked):
            return
        self._reported = (turn, asked)
        who = "the event loop, in a callback or a coroutine,"
        if turn.worker is not None:
            who = operation(stack) or "a green function"
        self._logger.warning(
            "%s has held the loop for %.3f s, and nothing else runs meanwhile:\n%s",
            who,
            held,
            _formatted(stack),
        )


def _formatted(stack: Stack) -> str:
    lines = ((frame, frame.f_lineno) for frame in stack)
    return "".join(traceback.StackSummary.extract(lines).format()).rstrip()
