"""An idle connection's way out of its pool and back, where nothing can hold it up.

PyMongo's `_get_conn` and `checkin` take six locks for an operation, one after
the other, because another thread might come in between. On a loop nobody does:
where a sound connection lies ready, what they do comes down to a few assignments.

Rule: every figure ends up as PyMongo leaves it. Whatever is not the plain case,
down to a lock that somebody holds, is PyMongo's to do.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from pymongo import version_tuple

from motorlike.driver.loader import TESTED_VERSIONS, load

if TYPE_CHECKING:
    from pymongo.pool_shared import PoolState
    from pymongo.synchronous.pool import Connection

    from motorlike.driver.pool import FairPool
else:
    PoolState = load("pymongo.synchronous.pool").PoolState

__all__ = ["has_plain_accounts", "put_back", "take_idle"]

_LOGGER = logging.getLogger("pymongo.connection")


def has_plain_accounts(options: Any) -> bool:  # `Any`: PyMongo's PoolOptions
    """Tell whether a pool with *options* may do without PyMongo's own code at all."""
    return (
        # Another version might count otherwise.
        version_tuple[:2] in TESTED_VERSIONS
        # Each service behind a load balancer has a generation of its own.
        and not options.load_balanced
        and options.max_idle_time_seconds is None
    )


def take_idle(pool: FairPool) -> Connection | None:
    """Check out the connection that came back last; ``None`` leaves it to PyMongo."""
    interval = pool._check_interval_seconds
    if (
        not pool.conns
        or pool.state != PoolState.READY
        or pool.requests >= pool.max_pool_size
        or pool.lock._hold
        or pool.pid != os.getpid()
        or pool.conns[0].generation != pool.gen._generation
        # PyMongo may have to look whether the server has closed it.
        or not interval
        or time.monotonic() - pool.conns[0].last_checkin_time > interval
    ):
        return None
    connection = pool.conns.popleft()
    pool.operation_count += 1
    pool.requests += 1
    pool.active_sockets += 1
    pool.active_contexts.add(connection.cancel_context)
    connection.active = True
    return connection


def put_back(pool: FairPool, connection: Connection) -> bool:
    """Check *connection* in, or return False and leave it to PyMongo."""
    telemetry = pool._telemetry
    if (
        connection.closed
        or connection.pinned_txn
        or connection.pinned_cursor
        or pool.state != PoolState.READY
        or connection.generation != pool.gen._generation
        or pool.lock._hold
        or pool.pid != os.getpid()
        or telemetry._should_publish
        or (telemetry._log and _LOGGER.isEnabledFor(logging.DEBUG))
    ):
        return False
    _append(pool, connection)
    return True


def _append(pool: FairPool, connection: Connection) -> None:
    connection.active = False
    pool.active_contexts.discard(connection.cancel_context)
    pool.requests -= 1
    pool.active_sockets -= 1
    pool.operation_count -= 1
    connection.update_last_checkin_time()
    connection.update_is_writable(bool(pool.is_writable))
    pool.conns.appendleft(connection)
    # Who waits to open a connection may have this one; then, who waits for a place.
    pool._max_connecting_cond.pass_on()
    pool.size_cond.pass_on()
