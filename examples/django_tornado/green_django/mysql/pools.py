"""The pools behind the database aliases, and the leases that greenlets have.

`base.DatabaseWrapper` takes a lease where Django opens a connection, and ends
it where Django closes one.

Rule: a lease ends with the greenlet's callable at the latest, however that ends.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import finalize

from green_django.mysql.driver import pymysql
from motorlike import green
from motorlike.pool import ConnectionPool, PoolError

__all__ = ["Connection", "Lease", "Pool", "close_pools", "open_pools", "pool_of"]

_DEFAULTS = {"max_size": 10, "keepalive_seconds": 30}


class Connection(pymysql.connections.Connection):
    """A connection of PyMySQL's that may be pooled.

    Attributes:
        is_prepared: Whether Django has set up its session.
    """

    is_prepared = False

    def ping(self, reconnect: bool = False) -> None:
        """Probe the connection. It never reconnects: the pool replaces it."""
        super().ping(reconnect=False)

    def _write_bytes(self, data: bytes) -> None:
        # A cancel in the middle leaves half a command with the server, which
        # waits for the rest. For reading PyMySQL does the same by itself.
        try:
            super()._write_bytes(data)
        except BaseException:
            self._force_close()
            raise


class Pool:
    """The connections of one alias, and what is known of its server.

    Attributes:
        connections: The pool itself.
        server_data: What Django has asked of the server, once.
    """

    def __init__(self, conn_params: dict[str, Any], options: dict[str, Any]) -> None:
        self.connections: ConnectionPool[Connection] = ConnectionPool(
            lambda: Connection(**conn_params),
            ping=Connection.ping,
            reset=_reset,
            close=_close,
            **{**_DEFAULTS, **options},
        )
        self.server_data: dict[str, Any] | None = None

    def lease(self) -> Lease:
        """Take a connection, waiting in line where all are in use.

        Raises:
            OperationalError: PyMySQL's, which Django knows; the pool gave none.
        """
        try:
            return Lease(self.connections)
        except PoolError as exc:
            raise pymysql.err.OperationalError(str(exc)) from exc


def _reset(connection: Connection) -> None:
    connection.rollback()
    connection.autocommit(True)


def _close(connection: Connection) -> None:
    if connection.open:
        connection.close()


class Lease:
    """One connection, for one greenlet. It ends when it is let go of, if not before.

    A greenlet's locals go with its callable, and so does the lease among them.
    """

    def __init__(self, connections: ConnectionPool[Connection]) -> None:
        self.connection = connections.check_out()
        loop = asyncio.get_running_loop()
        self._finalizer = finalize(self, _end_soon, loop, connections, self.connection)
        self._finalizer.atexit = False
        self._connections = connections

    def end(self) -> None:
        """Give the connection back, rolled back."""
        if self._finalizer.detach() is not None:
            _end(self._connections, self.connection)


def _end(connections: ConnectionPool[Connection], connection: Connection) -> None:
    # PyMySQL closes a connection that it can no longer trust.
    if connection.open:
        connections.check_in(connection)
    else:
        connections.discard(connection)


def _end_soon(
    loop: asyncio.AbstractEventLoop, connections: ConnectionPool[Connection], connection: Connection
) -> None:
    # The collector may run this anywhere, inside a lock too: it only schedules.
    if not loop.is_closed():
        loop.call_soon_threadsafe(green.spawn, _end, connections, connection)


# By the alias in Django's settings and the name of the database: a test runner
# points an alias to a database of its own.
_pools: dict[tuple[str, str | None], Pool] = {}


def pool_of(alias: str, conn_params: dict[str, Any], options: dict[str, Any]) -> Pool:
    """Return the pool of *alias*, making it the first time."""
    key = alias, conn_params.get("database")
    pool = _pools.get(key)
    if pool is None:
        pool = _pools[key] = Pool(conn_params, options)
    return pool


def open_pools() -> list[Pool]:
    """Return the pools. One is there once its alias has been used."""
    return list(_pools.values())


async def close_pools() -> None:
    """Close all connections. The next query, on whichever loop, opens new pools."""
    while _pools:
        _, pool = _pools.popitem()
        await pool.connections.aclose()
