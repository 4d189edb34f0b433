"""Connection pools for any driver that runs green, or for plain sockets.

`ConnectionPool` lends connections, which may be any objects, in order of
arrival; `MappedPool` keeps one for each task; `retry` tries again.

Rule: a connection is lent while it is known to work, and a place of the pool
is never lost, whatever is raised or cancelled.
"""

from __future__ import annotations

from motorlike.pool.connection_pool import ConnectionPool
from motorlike.pool.errors import PoolClosed, PoolError, PoolTimeout, TooManyWaiters
from motorlike.pool.mapped import MappedPool
from motorlike.pool.retry import retry
from motorlike.pool.settings import PoolStats

__all__ = [
    "ConnectionPool",
    "MappedPool",
    "PoolClosed",
    "PoolError",
    "PoolStats",
    "PoolTimeout",
    "TooManyWaiters",
    "retry",
]
