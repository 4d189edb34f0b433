"""Sending together, at the end of the loop's turn, what its greenlets have sent in it.

A send to a peer that sleeps wakes it, which costs the sender several times as
much as one to a peer that is at work: where many operations are under way, the
first send of a handful wakes it for all of them.

Rule: held bytes go out at the end of the turn at the latest, and before that
if their greenlet ends, or looks at the socket, without waiting for the answer.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from typing import Protocol

__all__ = ["COMPANY", "Outbox"]

# With so many answers under way, others are likely to arrive in the same turn,
# and to be followed by sends.
COMPANY = 4

# So long the first of them waits for others, and the turn's end.
_PATIENCE_SECONDS = 0.001


class _Sender(Protocol):
    def flush(self) -> None:
        """Send what is held, without waiting. It tells of errors to whoever uses it next."""


class Outbox:
    """The streams of one hub that hold bytes until the end of the loop's turn.

    Attributes:
        held: The stream that was given last, while nobody waits for the answer.
        awaited: On how many streams a greenlet waits for the answer to what
            it sent.
        company: From how many of these on a send is held.
    """

    __slots__ = ("_loop", "_since", "_streams", "awaited", "company", "held")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._streams: list[_Sender] = []
        self._since = 0.0
        self.held: _Sender | None = None
        self.awaited = 0
        self.company = COMPANY

    def hold(self, stream: _Sender) -> None:
        """Let *stream* flush at the end of the turn."""
        if self.held is not None:
            self.held.flush()
        self.held = stream
        streams = self._streams
        now = time.monotonic()
        if not streams:
            if self._loop.is_closed():
                self.flush_held()
                return
            self._since = now
            self._loop.call_soon(self.flush, context=Context())
        streams.append(stream)
        if now - self._since > _PATIENCE_SECONDS:
            self.flush()

    def flush_held(self) -> None:
        """Send now what nobody waits for an answer to."""
        stream = self.held
        self.held = None
        if stream is not None:
            stream.flush()

    def flush(self) -> None:
        """Send all that is held."""
        streams = self._streams
        self._streams = []
        self.held = None
        count = 0
        try:
            for stream in streams:
                stream.flush()
                count += 1
        except BaseException:
            # An interrupt, say: the loop may run on, to shut down in order.
            self._streams = streams[count:]
            if not self._loop.is_closed():
                self._loop.call_soon(self.flush, context=Context())
            raise
