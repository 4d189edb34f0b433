"""The database wrapper that Django loads for ``"ENGINE": "green_django.mysql"``.

It is Django's own for MySQL, but for two things: its state is each greenlet's
own, and its connections come from a pool and go back to it.

Rule: a greenlet never sees the connection or the transaction of another one,
whichever contexts or threads they share.
"""

from __future__ import annotations

from typing import Any

from green_django.mysql.driver import django_base
from green_django.mysql.pools import Lease, Pool, pool_of
from motorlike import green

__all__ = ["DatabaseWrapper"]


class DatabaseWrapper(green.local, django_base.DatabaseWrapper):
    """One object for many greenlets; each finds its own attributes in it.

    Django keeps a wrapper for each `contextvars` context. A greenlet runs in a
    copy of its starter's, and finds the wrapper there that its starter uses.
    """

    _lease: Lease | None = None

    def get_connection_params(self) -> dict[str, Any]:
        """Return what PyMySQL takes; the pool's options are not among it."""
        params: dict[str, Any] = super().get_connection_params()
        params.pop("pool", None)
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Take a connection from the pool, waiting in line where all are in use."""
        self._lease = self._pool(conn_params).lease()
        return self._lease.connection

    def _pool(self, conn_params: dict[str, Any]) -> Pool:
        return pool_of(self.alias, conn_params, self.settings_dict["OPTIONS"].get("pool", {}))

    def _close(self) -> None:
        lease, self._lease = self._lease, None
        # Closed inside a transaction, it must not be used up to the end of it.
        self.connection = None
        if lease is not None:
            with self.wrap_database_errors:
                lease.end()

    def init_connection_state(self) -> None:
        """Set the session up, unless it was when somebody else had the connection."""
        if not self.connection.is_prepared:
            super().init_connection_state()
            self.connection.is_prepared = True

    @property
    def mysql_server_data(self) -> dict[str, Any]:
        """What the features depend on. It is asked once for all greenlets."""
        pool = self._pool(self.get_connection_params())
        if pool.server_data is None:
            pool.server_data = django_base.DatabaseWrapper.mysql_server_data.func(self)
        return pool.server_data
