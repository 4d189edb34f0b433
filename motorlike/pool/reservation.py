"""What `pool.reserve()` returns: a block that has a connection to itself.

Rule: from the moment that a slot is taken it is in `_slot` or was given back,
so that a cancel between any two steps finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from motorlike.green.worker import in_greenlet
from motorlike.pool.errors import outside_greenlet
from motorlike.pool.machinery import Machinery
from motorlike.pool.shelf import Slot

__all__ = ["Reservation"]

ConnT = TypeVar("ConnT")


class Reservation(Generic[ConnT]):
    """A connection of a pool's, from the beginning of a block to its end.

    ``with`` in green code, ``async with`` in a coroutine. It can be entered once.
    """

    def __init__(self, pool: Machinery[ConnT], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._slot: Slot[ConnT] | None = None
        self._is_used = False
        self._is_abandoned = False

    def __enter__(self) -> ConnT:
        if not in_greenlet():
            raise outside_greenlet("`with pool.reserve()`")
        self._use()
        self._slot = self._begin()
        return self._connection()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._settle(exc)

    async def __aenter__(self) -> ConnT:
        self._use()
        self._slot = self._begin_at_once()
        if self._slot is None:
            await self._in_greenlet(self._begin_for_coroutine, self._abandon)
        return self._connection()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ends_green(exc):
            await self._in_greenlet(lambda: self._settle(exc), self._discard)
        else:
            self._settle(exc)

    # -- how a slot is had: for `MappedPool` it is another way --------------

    def _use(self) -> None:
        if self._is_used:
            raise RuntimeError(
                "this reservation was entered before: call pool.reserve() for each block"
            )
        self._is_used = True

    def _begin(self) -> Slot[ConnT]:
        return self._pool.take_ready() or self._pool.obtain(self._timeout)

    def _begin_at_once(self) -> Slot[ConnT] | None:
        return self._pool.take_ready()

    def _ends_green(self, exc: BaseException | None) -> bool:
        return self._pool.needs_reset and not self._pool.is_broken_by(exc)

    def _end(self, slot: Slot[ConnT], exc: BaseException | None) -> None:
        self._pool.settle(slot, exc)

    def _undo(self, slot: Slot[ConnT]) -> None:
        self._pool.abandon(slot)

    # -- and how it is not lost --------------------------------------------

    async def _in_greenlet(self, function: Callable[[], None], undo: Callable[[], None]) -> None:
        try:
            # No name for the future: the traceback of what it raises holds
            # this frame, and that would be a cycle.
            await self._pool.hub.spawn(function, (), {})
        except BaseException:
            undo()
            raise

    def _begin_for_coroutine(self) -> None:
        self._slot = self._begin()
        if self._is_abandoned:
            self._abandon()

    def _connection(self) -> ConnT:
        assert self._slot is not None
        assert self._slot.connection is not None
        return self._slot.connection

    def _abandon(self) -> None:
        self._is_abandoned = True
        slot, self._slot = self._slot, None
        if slot is not None:
            self._undo(slot)

    def _settle(self, exc: BaseException | None) -> None:
        slot, self._slot = self._slot, None
        assert slot is not None
        self._end(slot, exc)

    def _discard(self) -> None:
        # Its greenlet never began, or has settled it.
        slot, self._slot = self._slot, None
        if slot is not None:
            self._pool.discard_slot(slot)
