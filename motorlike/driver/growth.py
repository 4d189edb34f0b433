"""When a pool opens one more connection: not while those it has come back fast.

A `driver.pool.FairPool` asks its `Growth` how many connections it may have at
present. The first few it opens as PyMongo does. From then on an operation that
finds none idle waits in line; if the line stands still, the limit rises.

A connection more is a thread more in the server and a stack, a socket and a
session more here. Where the loop is at work all the time it makes nothing
faster: a hundred small operations at a time took a fifth less time of client
and server on ten connections than on a hundred.

Rule: while no connection comes back, a line stands two ticks at most if
``maxPoolSize`` lets it have more; while the loop rests, a few ticks more.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextvars import Context

from motorlike.green.hub import Hub

__all__ = ["EAGER_CONNECTIONS", "TICK_SECONDS", "Growth"]

# So many are opened without waiting, or ``minPoolSize`` if that is more.
EAGER_CONNECTIONS = 10

TICK_SECONDS = 0.01

# A line that moves, but on a loop that rests, is given so long.
_IDLE_TICKS = 5

# While connections come back fast, one in so many is let go at each tick.
_SHRINKING_BY = 16

# Connections that come back within this time on average come back fast.
_TURN_SECONDS = 0.04

# The loop counts as at work all the time while it goes to sleep less often than
# this, for each operation that is served. (How much processor time it had would
# not tell: other processes may have had the rest.)
_SLEEPS_PER_OPERATION = 0.1

# Linux alone counts them for each thread. Elsewhere no loop counts as at work
# all the time, and a pool grows whenever its line stands still for a tick.
_THREAD = getattr(resource, "RUSAGE_THREAD", None)


class Growth:
    """How many connections one pool may have, for the time being.

    Args:
        smallest: The limit at first.
        largest: The limit at most; may be infinite.
        waiting: Returns how many operations stand in line.
        wake: Wakes so many of them, to find the limit raised. Called in a
            child greenlet.

    Attributes:
        limit: Connections that the pool may have now.
    """

    def __init__(
        self,
        smallest: int,
        largest: float,
        waiting: Callable[[], int],
        wake: Callable[[int], None],
    ) -> None:
        self.limit: float = min(max(smallest, 1), largest)
        self._smallest = self.limit
        self._largest = largest
        self._idle_ticks = 0
        self._waiting = waiting
        self._wake = wake
        self._is_ticking = False
        self._line = 0
        self._served = 0
        self._clock = 0.0
        self._sleeps = 0

    def note_wait(self, hub: Hub) -> None:
        """Watch the line: an operation is about to join it."""
        if not self._is_ticking and self._smallest < self._largest:
            self._is_ticking = True
            self._begin_tick(hub)

    def note_served(self) -> None:
        """Count an operation that left the line with a connection."""
        self._served += 1

    def _begin_tick(self, hub: Hub) -> None:
        self._line = self._waiting()
        self._served = 0
        self._clock = time.monotonic()
        self._sleeps = _sleeps_of_thread()
        # In a context of its own: it may outlive the operation.
        hub.loop.call_later(TICK_SECONDS, self._tick, hub, context=Context())

    def _tick(self, hub: Hub) -> None:
        stuck = min(self._line - self._served, self._waiting())
        if stuck > 0:
            self._judge(hub, stuck)
        if self._waiting() and not hub.is_closed:
            self._begin_tick(hub)
        else:
            self._is_ticking = False

    def _judge(self, hub: Hub, stuck: int) -> None:
        if not self._served:
            self._grow(hub, stuck)
        elif self._is_turning_over():
            self._idle_ticks = 0
            # One that was needed once, for slower operations, may not be now.
            self.limit = max(self.limit - max(self.limit // _SHRINKING_BY, 1), self._smallest)
        else:
            # A machine that has other work makes the loop rest now and then.
            self._idle_ticks += 1
            if self._idle_ticks >= _IDLE_TICKS:
                self._grow(hub, stuck)

    def _grow(self, hub: Hub, stuck: int) -> None:
        self._idle_ticks = 0
        before = self.limit
        if before < self._largest:
            self.limit = min(before + max(stuck, before // 2), self._largest)
            # No more than may have a connection now. In a greenlet: waking takes
            # the pool's lock, the hub must not wait.
            hub.spawn(self._wake, (int(min(stuck, self.limit - before)),), {})

    def _is_turning_over(self) -> bool:
        """Whether a connection more would only share the work with the others."""
        if _THREAD is None:
            return False
        elapsed = time.monotonic() - self._clock  # more than a tick, in a busy loop
        if self._served < self.limit * elapsed / _TURN_SECONDS:
            return False
        return _sleeps_of_thread() - self._sleeps <= self._served * _SLEEPS_PER_OPERATION


def _sleeps_of_thread() -> int:
    return 0 if _THREAD is None else resource.getrusage(_THREAD).ru_nvcsw
