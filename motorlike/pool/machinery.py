"""How a pool lends its connections, and takes them back.

`ConnectionPool` is its public face.

Rule: nothing is lent that is not known to work, and nothing is taken back
whose reply somebody else might read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future
from typing import Any, TypeVar

from motorlike.errors import MotorlikeError
from motorlike.green.hub import wait
from motorlike.pool.errors import PoolError, PoolTimeout, TooManyWaiters
from motorlike.pool.shelf import Slot
from motorlike.pool.workshop import Workshop

__all__ = ["Machinery"]

ConnT = TypeVar("ConnT")

logger = logging.getLogger("motorlike.pool")


class Machinery(Workshop[ConnT]):
    """A pool without its public face."""

    # -- checking out -----------------------------------------------------

    def take_ready(self) -> Slot[ConnT] | None:
        """Take a slot whose connection can be used at once, without any waiting."""
        self.enter_loop()
        slot = self.shelf.next_idle
        if slot is None:
            if self.shelf.order != "least_loaded" or self.shelf.has_room:
                return None
        elif self._is_doubtful(slot):
            return None
        slot = self.shelf.take()
        self.counts["check_outs"] += slot is not None
        return slot

    def obtain(self, timeout: float | None) -> Slot[ConnT]:
        """Take a slot with a connection that works, waiting in line if need be. Green."""
        self.enter_loop()
        slot = self.shelf.take()
        if slot is None:
            slot = self._wait_in_line(timeout)
        self._make_ready(slot)
        if self.is_closed:
            self.abandon(slot)
            raise self.closed_error()
        self.counts["check_outs"] += 1
        return slot

    def _wait_in_line(self, timeout: float | None) -> Slot[ConnT]:
        line = self.shelf.line
        limit = self.settings.max_waiters
        if limit is not None and len(line) >= limit:
            raise TooManyWaiters(
                f"{len(line)} wait for a connection of {self!r}, and max_waiters is {limit}. "
                "Try again later, or raise max_size or max_waiters."
            )
        if timeout is not None and timeout <= 0:
            raise self._timeout_error(0)
        turn = line.join("waiting for a connection")
        try:
            turn.wait(timeout)
        except BaseException:
            if turn.grant is not None:
                self.abandon(turn.grant)
            raise
        finally:
            line.leave(turn)
        if turn.error is not None:
            raise turn.error
        if turn.grant is None:
            raise self._timeout_error(timeout)
        return turn.grant

    def _timeout_error(self, seconds: float | None) -> PoolTimeout:
        self.counts["timeouts"] += 1
        return PoolTimeout(
            f"no connection of {self!r} was checked in within {seconds} s. Raise max_size or "
            "wait_timeout, or keep connections for less long."
        )

    def _make_ready(self, slot: Slot[ConnT]) -> None:
        if slot.connection is not None:
            # Others who share it have found it to work.
            if slot.users > 1 or not self._is_doubtful(slot) or self._works(slot):
                return
            self._close_and_wait(slot)
        try:
            if not self.is_closed:
                self.open(slot)
        except BaseException:
            self.abandon(slot)
            raise

    def _close_and_wait(self, slot: Slot[ConnT]) -> None:
        connection, slot.connection = slot.connection, None
        assert connection is not None
        closing = self.start(self._close, connection)
        try:
            # Not for the future itself: that one is cancelled if it takes long.
            wait(asyncio.wait([closing]))
        except BaseException:
            # Its place is free when it is closed, whoever waits for that.
            closing.add_done_callback(lambda _: self.abandon(slot), context=self.hub.context)
            raise

    def _works(self, slot: Slot[ConnT]) -> bool:
        if slot.expires_at <= time.monotonic():
            return False
        try:
            works = self.probe(slot)
        except BaseException:
            # The reply to the probe may be on its way.
            self.discard_slot(slot)
            raise
        self.counts["broken"] += not works
        return works

    def _is_doubtful(self, slot: Slot[ConnT]) -> bool:
        now = time.monotonic()
        if slot.expires_at <= now:
            return True
        if not self.can_ping:
            return False
        seconds = self.settings.keepalive_seconds
        return seconds is None or now - slot.checked_at >= seconds

    # -- checking in ------------------------------------------------------

    def is_broken_by(self, exc: BaseException | None) -> bool:
        """Tell whether what a block raised leaves its connection unfit for others.

        A cancelled one may have a reply on its way, and so may one that was
        used outside a greenlet: its request was sent, and could not be awaited.
        """
        if exc is None or isinstance(exc, PoolError):
            return False
        return not isinstance(exc, Exception) or isinstance(
            exc, (*self.settings.discard_on, MotorlikeError)
        )

    def settle(self, slot: Slot[ConnT], exc: BaseException | None) -> None:
        """Take *slot* back from a block that ended by *exc*. Green if there is a reset."""
        if self.is_broken_by(exc):
            self.discard_slot(slot)
        elif self.needs_reset:
            self.reset_and_check_in(slot)
        else:
            self.check_in_slot(slot)

    @property
    def needs_reset(self) -> bool:
        """Whether a connection that comes back whole must be reset."""
        return self.can_reset and not self.is_closed

    def reset_and_check_in(self, slot: Slot[ConnT]) -> None:
        """Reset a connection and let others have it. Green."""
        is_reset = False
        try:
            is_reset = self._reset(slot)
        finally:
            if is_reset:
                self.check_in_slot(slot)
            else:
                self.discard_slot(slot)

    def give_back_soon(self, slot: Slot[ConnT]) -> None:
        """Take *slot* back where nothing can wait: it is reset in the background."""
        if not self.needs_reset or self.hub.is_closed:
            self.check_in_slot(slot)
            return

        # `Any`: as `start` returns it.
        def end(future: Future[Any]) -> None:
            if not future.cancelled() and future.exception() is None and future.result():
                self.check_in_slot(slot)
            else:
                self.discard_slot(slot)

        self.start(self._reset, slot).add_done_callback(end, context=self.hub.context)

    def _reset(self, slot: Slot[ConnT]) -> bool:
        assert slot.connection is not None
        try:
            self.pool.reset_connection(slot.connection)
        except Exception as exc:  # noqa: BLE001 - its user has gone, and all went well
            logger.warning("a connection of %r could not be reset: %r", self, exc)
            return False
        return True

    # -- the pool as a whole ----------------------------------------------

    def resize(self, max_size: int) -> None:
        """Let there be *max_size* connections from now on."""
        shelf = self.shelf
        shelf.max_size = max_size
        if self._hub is None or self.is_closed:
            return
        self.enter_loop()
        while shelf.idle and len(shelf.slots) - self.closing > max_size:
            slot = shelf.idle[0]
            shelf.take_idle(slot)
            self.retire(slot)
        shelf.serve()

    def shut(self) -> None:
        """Refuse everybody from now on, and close what is idle."""
        if self.is_closed:
            return
        hub = self._hub
        if hub is not None and hub.loop.is_closed():
            hub.close()
        if hub is not None and not hub.is_closed:
            self.enter_loop()
        self.is_closed = True
        self.keeper.stop()
        self.shelf.line.dissolve(self.closed_error)
        while self.shelf.idle:
            self.retire(self.shelf.idle.popleft())

    async def drain(self) -> None:
        """Wait until nothing goes on in the background, on the pool's own loop."""
        hub = self._hub
        if hub is None or hub.is_closed or hub.loop is not asyncio.get_running_loop():
            return
        while self.background:
            await asyncio.wait(self.background)
