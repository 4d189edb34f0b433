"""What a pool does by itself: probing, expiring and replacing connections.

Driven by timers, not by a greenlet that sleeps: between two of them nothing
runs, and a pool that was forgotten can be collected.

Rule: one failure, of whatever kind, ends one attempt and never the keeping.
"""

from __future__ import annotations

import logging
import time
from asyncio import Future, TimerHandle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakMethod, ref

from motorlike.green.hub import Hub
from motorlike.pool.backoff import Backoff
from motorlike.pool.shelf import Slot

if TYPE_CHECKING:
    from motorlike.pool.workshop import Workshop

__all__ = ["Alarm", "Keeper"]

ConnT = TypeVar("ConnT")

logger = logging.getLogger("motorlike.pool")


class Alarm:
    """A timer that is moved, not made anew, and keeps nobody alive."""

    def __init__(self, method: Callable[[], None]) -> None:
        self._method = WeakMethod(method)
        self._handle: TimerHandle | None = None
        self._when = 0.0

    @property
    def is_set(self) -> bool:
        """Whether it will ring."""
        return self._handle is not None

    def set(self, hub: Hub, when: float) -> None:
        """Ring at *when*, in monotonic seconds, or earlier if that was set before."""
        if hub.is_closed or when == float("inf"):
            return
        if self._handle is not None:
            if self._when <= when:
                return
            self._handle.cancel()
        self._when = when
        delay = max(0.0, when - time.monotonic())
        self._handle = hub.loop.call_later(delay, self._ring, context=hub.context)

    def cancel(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self._handle = None
        method = self._method()
        if method is not None:
            method()


class Keeper(Generic[ConnT]):
    """Looks after the idle connections of one pool, and after those that are missing."""

    def __init__(self, pool: Workshop[ConnT]) -> None:
        self._pool = ref(pool)
        settings = pool.settings
        self._settings = settings
        self._backoff = Backoff(*settings.backoff_seconds, settings.random)
        self._round = Alarm(self._look_after_idle)
        self._retry = Alarm(self._replace_next)
        self._missing = 0
        # `Any`: their results are nobody's.
        self._attempt: Future[Any] | None = None
        # From before the attempt begins: it may fail before its future is here.
        self._is_trying = False
        self._probes: set[Future[Any]] = set()

    # -- what the pool tells ----------------------------------------------

    def note_opened(self) -> None:
        """A connection was opened, and stands in for one that broke, if one did."""
        self._missing = max(0, self._missing - 1)

    def note_broken(self) -> None:
        """A connection broke: it is to be replaced, when its place is free."""
        self._missing += 1

    def note_idle(self, slot: Slot[ConnT]) -> None:
        """A connection was checked in."""
        pool = self._pool()
        if pool is not None:
            self._round.set(pool.hub, self._due(pool, slot))

    def check(self) -> None:
        """Open what is missing, unless that is under way."""
        pool = self._pool()
        if pool is not None and not self._is_trying and not self._retry.is_set:
            self._replace(pool)

    def stop(self) -> None:
        """End everything that is under way."""
        self._round.cancel()
        self._retry.cancel()
        for future in [*self._probes, *([self._attempt] if self._attempt else [])]:
            future.cancel()

    # -- replacing --------------------------------------------------------

    def _replace_next(self) -> None:
        pool = self._pool()
        if pool is not None and not self._is_trying:
            self._replace(pool)

    def _replace(self, pool: Workshop[ConnT]) -> None:
        shelf = pool.shelf
        self._missing = min(self._missing, shelf.max_size)
        if not shelf.has_room and not pool.closing:
            # Others have opened connections in all places.
            self._missing = 0
        wanted = max(self._missing, self._settings.min_size - len(shelf.slots))
        if pool.is_closed or wanted <= 0 or not shelf.has_room:
            return
        self._is_trying = True
        self._attempt = future = pool.start(self._try_to_open, pool)
        future.add_done_callback(self._end_attempt, context=pool.hub.context)

    @staticmethod
    def _try_to_open(pool: Workshop[ConnT]) -> bool:
        try:
            pool.open_idle()
        except Exception as exc:  # noqa: BLE001 - tried again, whatever it was
            logger.warning("%r could not replace a connection, and tries again: %r", pool, exc)
            return False
        return True

    def _end_attempt(self, future: Future[Any]) -> None:
        self._attempt = None
        self._is_trying = False
        pool = self._pool()
        if pool is None or pool.is_closed or pool.hub.is_closed:
            return
        if not future.cancelled() and future.exception() is None and future.result():
            self._backoff.reset()
            self._replace(pool)
        else:
            self._retry.set(pool.hub, time.monotonic() + self._backoff.next_seconds())

    # -- the idle ones ----------------------------------------------------

    def _due(self, pool: Workshop[ConnT], slot: Slot[ConnT]) -> float:
        """Return when something is to be done about an idle connection."""
        due = slot.expires_at
        if self._settings.max_idle_seconds is not None and self._is_surplus(pool):
            due = min(due, slot.used_at + self._settings.max_idle_seconds)
        if self._settings.keepalive_seconds is not None and pool.can_ping:
            due = min(due, slot.checked_at + self._settings.keepalive_seconds)
        return due

    def _is_surplus(self, pool: Workshop[ConnT]) -> bool:
        return len(pool.shelf.slots) - pool.closing > self._settings.min_size

    def _look_after_idle(self) -> None:
        pool = self._pool()
        if pool is None or pool.is_closed or pool.hub.is_closed:
            return
        # Timers may ring a moment early, by the loop's own clock.
        now = time.monotonic() + 0.001
        for slot in list(pool.shelf.idle):
            if self._due(pool, slot) <= now:
                self._look_after(pool, slot, now)
        self._arm(pool)

    def _look_after(self, pool: Workshop[ConnT], slot: Slot[ConnT], now: float) -> None:
        pool.shelf.take_idle(slot)
        idle_seconds = self._settings.max_idle_seconds
        is_idle_for_long = (
            idle_seconds is not None
            and slot.used_at + idle_seconds <= now
            and self._is_surplus(pool)
        )
        if is_idle_for_long or slot.expires_at <= now:
            pool.retire(slot)
            return
        future = pool.start(pool.probe, slot)
        self._probes.add(future)
        future.add_done_callback(
            lambda done: self._end_probe(pool, slot, done), context=pool.hub.context
        )

    def _end_probe(self, pool: Workshop[ConnT], slot: Slot[ConnT], future: Future[Any]) -> None:
        self._probes.discard(future)
        if pool.is_closed:
            pool.retire(slot)
        elif not future.cancelled() and future.exception() is None and future.result():
            pool.shelf.put_back(slot)
        else:
            pool.discard_idle(slot)
        self._arm(pool)

    def _arm(self, pool: Workshop[ConnT]) -> None:
        if pool.shelf.idle and not pool.is_closed:
            self._round.set(pool.hub, min(self._due(pool, each) for each in pool.shelf.idle))
