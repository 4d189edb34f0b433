"""A green `MongoClient`: made where no loop runs, opened again on a new one.

Rule: PyMongo's own way of starting anew after a fork is the way on a new loop.
"""

from __future__ import annotations

import functools
import importlib
import logging
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any, cast

from pymongo import _csot
from pymongo.read_preferences import Primary
from pymongo.server_selectors import writable_server_selector

from motorlike.driver import loader
from motorlike.driver.only_server import OnlyServer
from motorlike.driver.requests import RequestPool, member_for
from motorlike.green.threading import Thread, collect_starts
from motorlike.request_map import Request, RequestMap

if TYPE_CHECKING:
    from pymongo.synchronous.mongo_client import MongoClient as _MongoClient

    GreenMongoClient = _MongoClient[dict[str, Any]]
else:
    GreenMongoClient = loader.load("pymongo.synchronous.mongo_client").MongoClient

__all__ = ["MongoClient", "close", "discard", "reopen"]

_SELECTION_LOGGER = logging.getLogger("pymongo.serverSelection")


class MongoClient(GreenMongoClient):
    """PyMongo's client, on green sockets and locks.

    It connects at the first operation, never when it is made: no loop may be
    running then, or another one later.

    Args: as `pymongo.MongoClient`, and
        auto_start_request: Start a socket request for each task that uses the
            client, at its first operation.
    """

    def __init__(self, *args: Any, auto_start_request: bool = False, **kwargs: Any) -> None:
        if not isinstance(auto_start_request, bool):
            raise TypeError(f"auto_start_request must be True or False, not {auto_start_request!r}")
        self.requests = RequestMap(starts_by_itself=auto_start_request)
        self.only_server = OnlyServer()
        kwargs.setdefault("_pool_class", functools.partial(RequestPool, requests=self.requests))
        connects_early = kwargs.pop("connect", None)
        if connects_early is not None and not isinstance(connects_early, bool):
            raise TypeError(f"connect must be True or False, not {connects_early!r}")
        encryption = kwargs.get("auto_encryption_opts")
        if encryption is not None:
            kwargs["auto_encryption_opts"] = _green_encryption(encryption)
        self._opening = loader.load("pymongo.lock")._create_lock()
        # Threads that PyMongo would start here, it starts again when it opens.
        kwargs["connect"] = False
        with collect_starts():
            super().__init__(*args, **kwargs)

    def _get_topology(self) -> Any:
        if self._opened:
            return self._topology
        # PyMongo looks up a mongodb+srv:// name here. Of several operations
        # at once, each would, and open monitors and pools of its own.
        with self._opening:
            return super()._get_topology()

    def start_request(self, *, shared: bool = False) -> Request:
        """Keep one connection to each server for the caller, until it ends.

        Operations of the request travel on one socket, in order: also an
        unacknowledged write and the read after it. Requests nest, and each
        `start_request` wants an `end_request`, or a ``with`` block.

        Args:
            shared: Let tasks started from here on use the connection too,
                taking turns. Otherwise it is the calling task's alone, or in
                synchronous code the running green callable's.
                A shared request within another task's shared one joins it.

        Returns:
            The request, for ``with`` and ``async with``.

        Raises:
            RuntimeError: Neither a task nor a green callable is running, or
                the caller is in a request of the other kind.
        """
        return self.requests.start(shared=shared)

    def end_request(self) -> None:
        """End the caller's innermost request. Outside a request, do nothing."""
        self.requests.end()

    def in_request(self) -> bool:
        """Tell whether the caller is in a socket request."""
        return self.requests.current() is not None

    def _select_server(
        self, server_selector: Any, session: Any, operation: str, *args: Any, **kwargs: Any
    ) -> Any:
        if (
            not self.requests.is_used
            and _has_no_choice(server_selector, args, kwargs)
            # Errors within a transaction are for PyMongo to label.
            and (session is None or not session.in_transaction)
        ):
            server = self.only_server.look_up(self._get_topology())
            if server is not None:
                if session is not None:
                    session._transaction.reset()
                return server
        request = self.requests.current() if self.requests.is_used else None
        pinned = session is not None and session._pinned_address
        if request is None or args or kwargs.get("address") or pinned:
            return super()._select_server(server_selector, session, operation, *args, **kwargs)
        # Operations stay with the members that the request began on, while
        # they will do: a write and the read after it meet on one socket.
        members = request.holdings.members
        if members and not kwargs.get("deprioritized_servers"):
            kwargs["address"] = self._member_for(members, server_selector)
        server = super()._select_server(server_selector, session, operation, *args, **kwargs)
        if server.description.address not in members:
            members.append(server.description.address)
        return server

    def _member_for(self, members: list[Any], selector: Any) -> Any:
        custom_selector = self._topology_settings.server_selector
        description = self._get_topology().description
        return member_for(members, description, selector, custom_selector)

    def __del__(self) -> None:
        # PyMongo warns of an open client here. This one's greenlets and
        # sockets end with it, or with its loop, and leave nothing behind.
        pass


def _green_encryption(options: Any) -> Any:  # `Any`: PyMongo refuses what are no options
    # Imported only where it is used: pymongocrypt costs a third of an import of motorlike.
    module = importlib.import_module("motorlike.driver.encryption_options")
    return module.green(options)


# `Any`: as PyMongo's `_select_server` takes them.
def _has_no_choice(selector: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the one server for writes is to be selected, and nobody wants to hear of it."""
    return not (
        args
        or (selector is not writable_server_selector and type(selector) is not Primary)
        or kwargs.get("address")
        or kwargs.get("deprioritized_servers")
        # A deadline takes the server's round-trip time into account.
        or _csot.get_timeout() is not None
        or _SELECTION_LOGGER.isEnabledFor(logging.DEBUG)
    )


def reopen(client: MongoClient, *, loop_is_alive: bool) -> None:
    """Let *client* start anew, with new monitors and pools, on another loop.

    Args:
        loop_is_alive: Whether the loop that it ran on can still run: then
            what it left there is closed. On a closed loop, or in a forked
            child, there is nothing left to close.
    """
    running = _get_running_loop()
    if loop_is_alive:
        client.requests.end_all(apart_from=running)
    else:
        client.requests.abandon_all(apart_from=running)
    if client._closed or client._topology is None:
        return
    for server in list(client._topology._servers.values()):
        pool: Any = server.pool  # a FairPool
        pool.is_left = True
    if loop_is_alive:
        _end_locally(client)
    with collect_starts():
        client._init_background()


def close(client: MongoClient) -> None:
    """End *client*'s sessions, cursors, monitors and sockets. In a greenlet.

    When it returns, no greenlet and no socket of the client is left.
    """
    threads = _threads_of(client)
    # Before, that the last commands need not wait for a connection; and after,
    # for requests that were started meanwhile.
    client.requests.end_all()
    client.close()
    client.requests.end_all()
    for thread in threads:
        thread.interrupt()
    for thread in threads:
        thread.join()


def discard(client: MongoClient) -> None:
    """Close *client* where no loop runs: locally, without telling the servers."""
    client.requests.end_all()
    if client._topology is not None:
        _end_locally(client)
    client._closed = True


def _end_locally(client: MongoClient) -> None:
    # The executor too: it would look after the client's next topology, from
    # the loop of this one.
    client._kill_cursors_executor.close()
    client._topology.close()


def _threads_of(client: MongoClient) -> list[Thread]:
    topology: Any = client._topology  # None until a mongodb+srv:// name is looked up
    if topology is None:
        return []
    executors = [client._kill_cursors_executor, getattr(topology, "_events_executor", None)]
    monitors = [server._monitor for server in topology._servers.values()]
    if topology._srv_monitor is not None:
        executors.append(topology._srv_monitor._executor)
    for monitor in monitors:
        executors += [monitor._executor, monitor._rtt_monitor._executor]
    proxies = [executor._thread for executor in executors if executor is not None]
    return [thread for thread in map(_strong, proxies) if thread is not None]


def _strong(proxy: Any) -> Thread | None:
    # PyMongo holds its threads by weakref.proxy only.
    try:
        return None if proxy is None else cast("Thread", proxy.myself())
    except ReferenceError:
        return None
