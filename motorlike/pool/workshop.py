"""Where a pool's connections are opened, put back and closed.

`Machinery` lends them, and `Keeper` works here by itself.

Rule: whoever takes a slot gives it back by `check_in_slot`, `discard_slot` or
`abandon`, whatever is thrown at it meanwhile; a `BaseException` is no exception.
"""

from __future__ import annotations

import logging
import time
from asyncio import Future
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar

from motorlike.errors import LoopMismatch
from motorlike.green.hub import Hub, current_hub, current_worker
from motorlike.green.worker import in_greenlet
from motorlike.pool.errors import PoolClosed
from motorlike.pool.keepalive import Keeper
from motorlike.pool.settings import PoolStats, Settings
from motorlike.pool.shelf import Shelf, Slot

__all__ = ["Hooks", "Workshop"]

ConnT = TypeVar("ConnT")

logger = logging.getLogger("motorlike.pool")


class Hooks(Protocol[ConnT]):
    """What is done with connections, one at a time. All of it runs green."""

    def make_connection(self) -> ConnT:
        """Open a connection."""

    def ping_connection(self, connection: ConnT) -> object:
        """Probe a connection: raise, or return False, if it does not work."""

    def reset_connection(self, connection: ConnT) -> object:
        """Make a connection fit for the next user."""

    def close_connection(self, connection: ConnT) -> object:
        """Close a connection."""


class Workshop(Generic[ConnT]):
    """The connections of *pool*, which has the hooks."""

    def __init__(
        self, pool: Hooks[ConnT], settings: Settings, *, can_ping: bool, can_reset: bool
    ) -> None:
        self.pool = pool
        self.settings = settings
        self.can_ping = can_ping
        self.can_reset = can_reset
        self.shelf: Shelf[ConnT] = Shelf(settings.max_size, settings.order)
        self.keeper: Keeper[ConnT] = Keeper(self)
        self.counts: Counter[str] = Counter()
        self.is_closed = False
        # How many slots are still taken by connections that are being closed.
        self.closing = 0
        self._hub: Hub | None = None
        # What runs for nobody: `aclose` waits for it. `Any`: of whatever result.
        self.background: set[Future[Any]] = set()

    def __repr__(self) -> str:
        return repr(self.pool)

    # -- the loop ---------------------------------------------------------

    def enter_loop(self) -> Hub:
        """Return the hub of the running loop, which is the pool's from now on.

        Raises:
            LoopMismatch: The pool has been used on another loop.
            PoolClosed: It has been closed.
        """
        hub = current_worker("a pool").hub if in_greenlet() else current_hub()
        if self.is_closed:
            raise self.closed_error()
        if self._hub is None:
            self._hub = hub
            self.keeper.check()
        elif self._hub is not hub:
            raise LoopMismatch(
                f"this pool belongs to {self._hub.loop!r}, where it was used first, and was "
                f"used from {hub.loop!r}. Make one pool for each event loop."
            )
        return hub

    @property
    def hub(self) -> Hub:
        """The hub that the pool belongs to."""
        assert self._hub is not None, "the pool has not been used"
        return self._hub

    def closed_error(self) -> PoolClosed:
        """Make the error for those who come after the end."""
        return PoolClosed(f"{self!r} has been closed, and never opens again: make a new pool.")

    # -- opening ----------------------------------------------------------

    def probe(self, slot: Slot[ConnT]) -> bool:
        """Ping the connection in *slot*; return whether it works. Green."""
        assert slot.connection is not None
        try:
            works = self.pool.ping_connection(slot.connection) is not False
        except Exception as exc:  # noqa: BLE001 - it does not work, however it says so
            logger.info("a connection of %r failed its ping: %r", self, exc)
            works = False
        slot.checked_at = time.monotonic()
        return works

    def open(self, slot: Slot[ConnT]) -> None:
        """Open a connection in *slot*. Green."""
        try:
            connection = self.pool.make_connection()
            if connection is None:
                raise TypeError("the pool's connect function returned None, not a connection")
        except BaseException:
            self.counts["failed_connects"] += 1
            raise
        slot.connection = connection
        slot.used_at = slot.checked_at = now = time.monotonic()
        if self.settings.max_lifetime_seconds is not None:
            # Up to a tenth sooner: those opened together shall not end together.
            jitter = self.settings.random.uniform(0.9, 1)
            slot.expires_at = now + self.settings.max_lifetime_seconds * jitter
        self.counts["opened"] += 1
        self.keeper.note_opened()
        if self.settings.order == "least_loaded":
            self.shelf.serve()

    # -- putting back -----------------------------------------------------

    def check_in_slot(self, slot: Slot[ConnT]) -> None:
        """Let others have the connection in *slot*, which is fit for them."""
        slot.users -= 1
        slot.used_at = slot.checked_at = now = time.monotonic()
        is_surplus = len(self.shelf.slots) - self.closing > self.shelf.max_size
        if self.is_closed or slot.is_retired or is_surplus or slot.expires_at <= now:
            self._retire_after_last(slot)
        else:
            self.shelf.put(slot)
            self.keeper.note_idle(slot)

    def discard_slot(self, slot: Slot[ConnT]) -> None:
        """Close the broken connection in *slot*, and see that it is replaced."""
        slot.users -= 1
        if not slot.is_retired:
            slot.is_retired = True
            self.counts["broken"] += 1
            self.keeper.note_broken()
        self._retire_after_last(slot)

    def _retire_after_last(self, slot: Slot[ConnT]) -> None:
        slot.is_retired = True
        if not slot.users:
            self.retire(slot)

    def abandon(self, slot: Slot[ConnT]) -> None:
        """Take *slot* back from one who got no further with it: it may be empty."""
        if slot.connection is None:
            slot.users -= 1
            self._free(slot)
        else:
            self.check_in_slot(slot)

    def open_idle(self) -> None:
        """Open one more connection for whoever comes, if there is room. Green."""
        if self.is_closed or not self.shelf.has_room:
            return
        slot = self.shelf.add()
        slot.users = 1
        try:
            self.open(slot)
        finally:
            self.abandon(slot)

    def discard_idle(self, slot: Slot[ConnT]) -> None:
        """Close the connection in *slot*, which was idle and does not work."""
        slot.users += 1
        self.discard_slot(slot)

    # -- closing ----------------------------------------------------------

    def retire(self, slot: Slot[ConnT]) -> None:
        """Close the connection of *slot* in the background, then free its place."""
        connection, slot.connection = slot.connection, None
        assert connection is not None
        slot.is_retired = True
        if self.hub.is_closed:
            # What need not wait still can be closed.
            self._close(connection)
            self.shelf.remove(slot)
            return
        self.closing += 1
        future = self.start(self._close, connection)
        future.add_done_callback(lambda _: self._end_closing(slot), context=self.hub.context)

    def _end_closing(self, slot: Slot[ConnT]) -> None:
        self.closing -= 1
        self._free(slot)

    def _close(self, connection: ConnT) -> None:
        self.counts["closed"] += 1
        try:
            self.pool.close_connection(connection)
        except Exception as exc:  # noqa: BLE001 - it is being given up
            logger.info("a connection of %r could not be closed in order: %r", self, exc)

    def _free(self, slot: Slot[ConnT]) -> None:
        self.shelf.remove(slot)
        self.check_size()

    def check_size(self) -> None:
        """See to it that enough connections are open, if the pool is."""
        if not self.is_closed and not self.hub.is_closed:
            self.keeper.check()

    # `Any`: the arguments are the function's own.
    def start(self, function: Callable[..., object], *args: Any) -> Future[Any]:
        """Run *function* in a greenlet, for nobody and for a limited time."""
        hub = self.hub
        # The context of whoever comes by here is none of its business.
        future = Context().run(hub.spawn, function, args, {})
        timer = hub.loop.call_later(self.settings.hook_timeout, future.cancel, context=hub.context)
        future.add_done_callback(lambda _: timer.cancel(), context=hub.context)
        future.add_done_callback(self._end_background, context=hub.context)
        self.background.add(future)
        return future

    def _end_background(self, future: Future[Any]) -> None:
        self.background.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            logger.error("background work of %r failed", self, exc_info=error)

    def stats(self) -> PoolStats:
        """Count what there is."""
        shelf, counts = self.shelf, self.counts
        return PoolStats(
            max_size=shelf.max_size,
            size=len(shelf.slots),
            idle=len(shelf.idle),
            in_use=sum(each.users > 0 and each.connection is not None for each in shelf.slots),
            waiting=len(shelf.line),
            check_outs=counts["check_outs"],
            opened=counts["opened"],
            closed=counts["closed"],
            broken=counts["broken"],
            failed_connects=counts["failed_connects"],
            timeouts=counts["timeouts"],
        )
