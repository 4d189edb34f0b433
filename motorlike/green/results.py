"""Handing over results one by one, where callers hold the loop and large sends wait for it.

A caller that goes on with a result may hold the loop for long: it parses the
next file, say. A large message that is on its way gets on by some hundred kB
in each of the loop's turns; with several callers it would take as many of
their steps, while all that belongs to it stays in memory. So those results
wait until the sends have gone out, or the peers take no more.

Rule: nothing waits unless the last caller was seen to be slow, and the result
that is next waits no longer than the slice that events have.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future, TimerHandle
from collections import deque
from contextvars import Context
from typing import Any

from motorlike.green.slice import SLICE_SECONDS

__all__ = ["Results"]

# A caller that takes so long, until it waits again, is slow.
_SLOW_SECONDS = 0.005

# So long it is remembered that callers were slow.
_MEMORY_SECONDS = 1.0

# A peer that takes nothing for so long is not waited for.
_STALL_SECONDS = 0.001


class Results:
    """The results that a hub's greenlets have made, while large sends wait.

    Attributes:
        sends: How many large sends are under way. While there is none, the
            hub's workers settle their futures themselves.
    """

    __slots__ = (
        "_are_callers_slow",
        "_given",
        "_given_at",
        "_has_progressed",
        "_held",
        "_held_since",
        "_loop",
        "_timer",
        "sends",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.sends = 0
        # `Any`: results of all types.
        self._held: deque[tuple[Future[Any], Any]] = deque()
        self._held_since = 0.0
        self._timer: TimerHandle | None = None
        self._has_progressed = False
        # Of the callers that go on in the next turn: how many, and since when.
        self._given = 0
        self._given_at = 0.0
        self._are_callers_slow = False

    # -- sends ------------------------------------------------------------

    def begin_send(self) -> None:
        """Note that a send has to wait for its peer."""
        self.sends += 1

    def progress(self) -> None:
        """Note that the peer took some of it."""
        self._has_progressed = True

    def end_send(self) -> None:
        """Note that it has gone out, or failed."""
        self.sends -= 1
        if not self.sends and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._give_next()

    # -- results ----------------------------------------------------------

    def give(self, future: Future[Any], result: Any) -> None:
        """Settle *future* with *result*, now or soon."""
        now = time.monotonic()
        is_recent = now - self._given_at < _MEMORY_SECONDS
        if not self._held and not (self._are_callers_slow and is_recent):
            self._give(future, result)
            return
        self._held.append((future, result))
        if len(self._held) == 1:
            self._held_since = now
            if not self._given:
                self._wait()

    def give_all(self) -> None:
        """Settle all futures that wait."""
        while self._held:
            self._give_next()

    def _give_next(self) -> None:
        while self._held:
            future, result = self._held.popleft()
            if not future.done():
                self._held_since = time.monotonic()
                self._give(future, result)
                return

    def _give(self, future: Future[Any], result: Any) -> None:
        if self._loop.is_closed():
            # Nobody is left to run who waits for it.
            return
        future.set_result(result)
        self._given += 1
        if self._given == 1:
            self._given_at = time.monotonic()
            # Behind the callers, which go on in the loop's next turn.
            self._loop.call_soon(self._on_callers_waiting, context=Context())

    def _on_callers_waiting(self) -> None:
        seconds = (time.monotonic() - self._given_at) / self._given
        self._given = 0
        self._are_callers_slow = seconds > _SLOW_SECONDS
        if not self._are_callers_slow:
            self.give_all()
        elif self._held:
            self._wait()

    def _wait(self) -> None:
        if not self.sends:
            self._give_next()
            return
        self._has_progressed = False
        self._timer = self._loop.call_later(_STALL_SECONDS, self._on_timer, context=Context())

    def _on_timer(self) -> None:
        self._timer = None
        if self._has_progressed and time.monotonic() - self._held_since < SLICE_SECONDS:
            self._wait()
        else:
            self._give_next()
