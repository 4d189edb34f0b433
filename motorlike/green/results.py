"""Handing over results one by one, where callers hold the loop and large sends wait for it.

A caller that goes on with a result may hold the loop for long: it parses the
next file, say. A large message that is on its way gets on by some hundred kB
in each of the loop's turns; with several callers it would take as many of
their steps, while all that belongs to it stays in memory. So those results
wait until the sends have gone out, or the peers take no more.

Rule: nothing waits unless the last caller was seen to be slow, and the result
that is next waits no longer than a part of that caller's time.
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
_SLOW_SECONDS = 0.02

# The next result waits for such a part of that time, and no longer than a slice.
_SHARE = 0.25

# So long it is remembered that callers were slow.
_MEMORY_SECONDS = 1.0

# A peer that takes nothing for so long is not waited for.
_STALL_SECONDS = 0.001


class Results:
    """The results that a hub's greenlets have made, while large sends wait.

    Attributes:
        sends: How many large sends are under way.
        is_active: Whether there is one, or a result that waits. While not,
            the hub's workers settle their futures themselves.
    """

    __slots__ = (
        "_began_at",
        "_has_progressed",
        "_held",
        "_held_since",
        "_hold_seconds",
        "_is_measuring",
        "_loop",
        "_timer",
        "is_active",
        "sends",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.sends = 0
        self.is_active = False
        # `Any`: results of all types.
        self._held: deque[tuple[Future[Any], Any]] = deque()
        self._held_since = 0.0
        self._timer: TimerHandle | None = None
        self._has_progressed = False
        # Whether a caller is about to go on, and when the last one did.
        self._is_measuring = False
        self._began_at = 0.0
        # How long the next result may wait; 0 if the last caller was quick.
        self._hold_seconds = 0.0

    # -- sends ------------------------------------------------------------

    def begin_send(self) -> None:
        """Note that a send has to wait for its peer."""
        self.sends += 1
        self.is_active = True

    def progress(self) -> None:
        """Note that the peer took some of it."""
        self._has_progressed = True

    def end_send(self) -> None:
        """Note that it has gone out, or failed."""
        self.sends -= 1
        if not self.sends:
            self.is_active = bool(self._held)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._give_next()

    # -- results ----------------------------------------------------------

    def give(self, future: Future[Any], result: Any) -> None:
        """Settle *future* with *result*, now or soon."""
        now = time.monotonic()
        is_recent = now - self._began_at < _MEMORY_SECONDS
        if not self._held and not (self._hold_seconds and is_recent):
            self._give(future, result)
            return
        self._held.append((future, result))
        if len(self._held) == 1:
            self._held_since = now
            if not self._is_measuring:
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
                break
        self.is_active = bool(self._held or self.sends)

    def _give(self, future: Future[Any], result: Any) -> None:
        if self._loop.is_closed():
            # Nobody is left to run who waits for it.
            return
        if self._is_measuring:
            future.set_result(result)
            return
        # The one goes before its caller, in the loop's next turn, and the other behind.
        self._is_measuring = True
        self._loop.call_soon(self._on_caller_next, context=Context())
        future.set_result(result)
        self._loop.call_soon(self._on_caller_waiting, context=Context())

    def _on_caller_next(self) -> None:
        self._began_at = time.monotonic()

    def _on_caller_waiting(self) -> None:
        self._is_measuring = False
        seconds = time.monotonic() - self._began_at
        is_slow = seconds > _SLOW_SECONDS
        self._hold_seconds = min(seconds * _SHARE, SLICE_SECONDS) if is_slow else 0.0
        if not is_slow:
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
        if self._has_progressed and time.monotonic() - self._held_since < self._hold_seconds:
            self._wait()
        else:
            self._give_next()
