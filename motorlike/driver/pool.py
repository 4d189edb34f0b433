"""PyMongo's connection pool, with a line that nobody jumps.

PyMongo builds its pools of this class through its own ``_pool_class`` option.

Rule: the accounting is PyMongo's. What is added here runs before it, or in its
place where `driver.idle` knows that the outcome is the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pymongo import _csot, version_tuple

from motorlike.driver import loader
from motorlike.driver.growth import EAGER_CONNECTIONS, Growth
from motorlike.driver.idle import has_plain_accounts, put_back, take_idle
from motorlike.green.hub import current_hub
from motorlike.green.locks import Condition, Lock

if TYPE_CHECKING:
    from pymongo.pool_shared import PoolState
    from pymongo.synchronous.pool import Connection, Pool
else:
    _pool = loader.load("pymongo.synchronous.pool")
    Pool, PoolState = _pool.Pool, _pool.PoolState

__all__ = ["FairPool"]

# PyMongo 4.18 goes on counting an operation that got no connection; of several
# servers it would shun this one from then on. (PYTHON-6136, mended in 4.19.)
_COUNTS_FAILED_CHECKOUTS = version_tuple < (4, 19)


class FairPool(Pool):
    """A `pymongo.pool.Pool` that serves operations in the order they came.

    PyMongo's lets a newcomer take a slot that was freed for somebody who
    waits; under a full pool the slowest operations then wait for ever longer.

    Nor does it open a connection at once for each operation that finds none
    idle: how many there may be for the time being is for a `Growth` to say.

    Attributes:
        is_left: Whether the client has gone to another loop, with other pools.
        is_admitting: True while an operation begins that has stood in line.
            No other greenlet runs until it first waits, so it is this one
            that asks for a connection, and it need not stand in line again.
    """

    if TYPE_CHECKING:
        # The stand-ins, once loaded.
        lock: Lock  # type: ignore[assignment]
        size_cond: Condition  # type: ignore[assignment]
        _max_connecting_cond: Condition  # type: ignore[assignment]

    # `Any`: PyMongo's own arguments, passed on.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_admitting = False
        self.is_left = False
        self._has_plain_accounts = has_plain_accounts(self.opts)
        self.growth = Growth(
            smallest=max(EAGER_CONNECTIONS, self.opts.min_pool_size),
            largest=self.max_pool_size,
            waiting=lambda: self.size_cond.line_length,
            wake=self._wake_line,
        )

    @property
    def _is_full(self) -> bool:
        """Whether an operation must wait for another one's connection."""
        return bool(self.requests >= self.growth.limit)

    @property
    def has_room(self) -> bool:
        """Whether one who was woken gets a connection, or learns at once why not."""
        return bool(self.requests < self.growth.limit or self.state != PoolState.READY)

    def _wake_line(self, count: int) -> None:
        with self.size_cond:
            self.size_cond.notify(count)

    @property
    def has_line(self) -> bool:
        """Whether an operation must stand in line for a connection."""
        # `_is_full` and `size_cond.has_line`, written out: each operation passes
        # here twice.
        condition = self.size_cond
        if self.requests < self.growth.limit and not condition._waiting and not condition._woken:
            return False
        # A pool that is paused or closed refuses at once. Those whom it woke to
        # tell them so may still be in line, and will wake nobody.
        return bool(self.state == PoolState.READY)

    def _get_conn(self, checkout_started_time: float, handler: Any = None) -> Connection:
        if self.is_admitting and self.state == PoolState.READY:
            self.is_admitting = False
            self.growth.note_served()
        elif self.has_line:
            self._wait_in_line(checkout_started_time)
            if self.closed and not self.is_left:
                # Its server is none of the deployment's any more. As for PyMongo's own
                # waiters, an error after which another server is tried.
                self._raise_if_not_ready(checkout_started_time, emit_event=True)
        if self._has_plain_accounts:
            idle = take_idle(self)
            if idle is not None:
                return idle
        try:
            return super()._get_conn(checkout_started_time, handler)
        except BaseException:
            if _COUNTS_FAILED_CHECKOUTS and not self.closed:
                self.operation_count -= 1
            raise

    def __del__(self) -> None:
        # PyMongo closes the connections here, on whatever thread this runs. Green sockets
        # that nobody holds do it themselves, and on the loop.
        pass

    def checkin(self, conn: Connection) -> None:
        """Take *conn* back, for the next in line."""
        if not (self._has_plain_accounts and put_back(self, conn)):
            super().checkin(conn)

    def _wait_in_line(self, checkout_started_time: float) -> None:
        deadline = self._wait_deadline()
        self.growth.note_wait(current_hub())
        with self.size_cond:
            # Counted as PyMongo counts its waiters: by it, the less loaded of
            # several servers is chosen.
            self.operation_count += 1
            try:
                while self._wait_once(checkout_started_time, deadline):
                    pass
                self.growth.note_served()
            finally:
                self.operation_count -= 1

    def _wait_once(self, checkout_started_time: float, deadline: float | None) -> bool:
        generation = self.gen.get_overall()
        timeout = None if deadline is None else deadline - time.monotonic()
        if not self.size_cond.wait(timeout):
            # As PyMongo: a time-out must not use up a wake-up.
            if not self._is_full:
                self.size_cond.notify()
            self._raise_wait_queue_timeout(checkout_started_time)
        # After a reset everybody is woken, to learn of it from PyMongo.
        return self._is_full and generation == self.gen.get_overall()

    def _wait_deadline(self) -> float | None:
        if _csot.get_timeout():
            return _csot.get_deadline()
        if self.opts.wait_queue_timeout:
            return time.monotonic() + self.opts.wait_queue_timeout
        return None
