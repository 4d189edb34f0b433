"""`MappedPool`: a connection for each task, for as long as the task lasts.

For code that expects to find the connection that it used before, as with one
connection per thread: a transaction that spans several calls, say.

Rule: a task's connection is given back when the task ends at the latest, and
not while one of its blocks uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType, TracebackType
from typing import Concatenate, Generic, ParamSpec, TypeVar, cast

from motorlike.green.hub import GreenFuture
from motorlike.green.locks import RLock
from motorlike.green.worker import in_greenlet
from motorlike.pool.connection_pool import ConnectionPool
from motorlike.pool.errors import PoolTimeout
from motorlike.pool.machinery import Machinery
from motorlike.pool.reservation import Reservation
from motorlike.pool.shelf import Slot
from motorlike.request_map import current_owner

__all__ = ["Lease", "MappedPool", "MappedReservation"]

ConnT = TypeVar("ConnT")
P = ParamSpec("P")
T = TypeVar("T")

# What a lease is bound to in a request map of which each pool has its own.
_LEASE = "lease"


class Lease(Generic[ConnT]):
    """What one task has of a pool: no slot, or one.

    The request map keeps it, and releases it when the task ends.
    """

    def __init__(self, pool: Machinery[ConnT]) -> None:
        self._pool = pool
        self._slot: Slot[ConnT] | None = None
        self._blocks = 0
        self._is_released = False
        self._is_obtaining = RLock()

    def enter(self, timeout: float | None) -> Slot[ConnT]:
        """Begin a block: take the slot, and its turn. Green.

        Raises:
            PoolTimeout: Others did not let go within *timeout* seconds.
        """
        while True:
            slot = self._obtain(timeout)
            self._take(slot.turn, timeout)
            if slot is self._slot and not slot.is_retired:
                self._blocks += 1
                return slot
            slot.turn.release()

    def _take(self, turn: RLock, timeout: float | None) -> None:
        is_mine = False
        try:
            is_mine = turn.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            if not is_mine:
                # The task may have ended meanwhile, and nobody else come by.
                self._give_back()
        if not is_mine:
            raise PoolTimeout(
                f"a connection of {self._pool!r} was used by others for {timeout} s. Raise "
                "max_size or wait_timeout, or use connections for less long."
            )

    def enter_at_once(self) -> Slot[ConnT] | None:
        """Begin a block of a coroutine's, if nothing need be waited for."""
        slot = self._slot
        if slot is None or slot.is_retired or not slot.turn.acquire(blocking=False):
            return None
        slot.turn.release()
        self._blocks += 1
        return slot

    def _obtain(self, timeout: float | None) -> Slot[ConnT]:
        self._take(self._is_obtaining, timeout)
        try:
            slot = self._slot
            if slot is not None and slot.is_retired:
                # Somebody who shares it found that it is broken.
                self._slot = None
                self._pool.check_in_slot(slot)
            if self._slot is None:
                self._slot = self._pool.take_ready() or self._pool.obtain(timeout)
            return self._slot
        finally:
            self._is_obtaining.release()

    def leave(self, slot: Slot[ConnT], exc: BaseException | None) -> None:
        """End a block, which ended by *exc*."""
        self._blocks -= 1
        if self._pool.is_broken_by(exc) and self._slot is slot:
            self._slot = None
            self._pool.discard_slot(slot)
        self._give_back()

    def release(self) -> None:
        """Give the connection back, at once or when its present use is over."""
        self._is_released = True
        self._give_back()

    def _give_back(self) -> None:
        if not self._is_released or self._blocks:
            return
        slot, self._slot = self._slot, None
        if slot is not None:
            self._pool.give_back_soon(slot)


class MappedReservation(Reservation[ConnT]):
    """The connection of the present task, for a block; ``with`` or ``async with``."""

    def __init__(
        self,
        pool: Machinery[ConnT],
        timeout: float | None,
        find_lease: Callable[[], Lease[ConnT]],
    ) -> None:
        super().__init__(pool, timeout)
        self._find_lease = find_lease
        self._lease: Lease[ConnT] | None = None

    def _use(self) -> None:
        super()._use()
        self._lease = self._find_lease()

    @property
    def _own(self) -> Lease[ConnT]:
        assert self._lease is not None
        return self._lease

    def _begin(self) -> Slot[ConnT]:
        return self._own.enter(self._timeout)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        slot = self._slot
        super().__exit__(exc_type, exc, traceback)
        if slot is not None:
            slot.turn.release()

    def _begin_at_once(self) -> Slot[ConnT] | None:
        return self._own.enter_at_once()

    def _begin_for_coroutine(self) -> None:
        # The turn is a greenlet's, and this one ends here. What the coroutine
        # has run with the connection then takes turns.
        self._slot = slot = self._begin()
        slot.turn.release()
        if self._is_abandoned:
            self._abandon()

    def _ends_green(self, exc: BaseException | None) -> bool:
        return False

    def _end(self, slot: Slot[ConnT], exc: BaseException | None) -> None:
        self._own.leave(slot, exc)

    def _undo(self, slot: Slot[ConnT]) -> None:
        self._own.leave(slot, None)


class MappedPool(ConnectionPool[ConnT]):
    """A `ConnectionPool` that keeps to each task the connection that it used first.

    `reserve` and `run` take a connection when a task first calls them, and
    afterwards always the same. It is given back by `relinquish`, or when the
    task ends, and only then reset. In synchronous code that was started by
    ``green.spawn`` the callable takes the place of the task.

    Blocks may be nested. What one task runs at the same time, by several
    `run`, takes turns on its connection. If a block ends by an exception that
    is in *discard_on*, or is cancelled, the connection is closed, and the
    task's next block gets another.

    With more tasks than *max_size*, some wait in line until others end. With
    ``order="least_loaded"`` they share instead: each task is given the
    connection that the fewest have, stays with it, and takes turns on it in
    ``with`` blocks and `run`. ``async with`` then gives no turn.

    Args: those of `ConnectionPool`. What `check_out` takes is apart from the
    task's connection.
    """

    def reserve(
        self, *, wait_timeout: float | EllipsisType | None = ...
    ) -> MappedReservation[ConnT]:
        """Return a context manager for a block that uses the task's connection.

        It stays the task's after the block. Raises as `ConnectionPool.reserve`
        does, and ``RuntimeError`` where no task is running.
        """
        return MappedReservation(self._machinery, self._timeout(wait_timeout), self._find_lease)

    def _find_lease(self) -> Lease[ConnT]:
        self._machinery.enter_loop()
        if current_owner() is None:
            raise RuntimeError(
                "a mapped connection belongs to a task or to a green callable, and neither is "
                "running. Call reserve() inside a coroutine or a green.spawn() callable."
            )
        held = (self._tasks.current() or self._tasks.start()).holdings.held
        lease = held.get(_LEASE)
        if lease is None:
            lease = held[_LEASE] = Lease(self._machinery)
        return cast("Lease[ConnT]", lease)

    def run(
        self, function: Callable[Concatenate[ConnT, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> GreenFuture[T]:
        """Call ``function(connection, *args, **kwargs)`` green, with the task's connection.

        Called in green code, it is another callable, with another connection.

        Returns:
            A future of its result. Cancelling it closes the connection.
        """

        def call() -> T:
            with self.reserve() as connection:
                return function(connection, *args, **kwargs)

        owner = None if in_greenlet() else current_owner()
        return self._machinery.enter_loop().spawn(call, (), {}, owner)

    def relinquish(self) -> None:
        """Give the task's connection back before the task ends.

        Inside a block, when that ends. Without a connection it does nothing.
        """
        request = self._tasks.current()
        if request is not None:
            request.end()

    async def aclose(self) -> None:
        """Close the pool for good, as `ConnectionPool.aclose` does.

        Connections that tasks have, and do not use in a block, count as idle.
        """
        self._machinery.shut()
        self._tasks.end_all()
        await self._machinery.drain()
