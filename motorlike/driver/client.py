"""A green `MongoClient`: made where no loop runs, opened again on a new one.

Rule: PyMongo's own way of starting anew after a fork is the way on a new loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from motorlike.driver import loader
from motorlike.driver.pool import FairPool
from motorlike.green.threading import Thread, collect_starts

if TYPE_CHECKING:
    from pymongo.synchronous.mongo_client import MongoClient as _MongoClient

    GreenMongoClient = _MongoClient[dict[str, Any]]
else:
    GreenMongoClient = loader.load("pymongo.synchronous.mongo_client").MongoClient

__all__ = ["MongoClient", "close", "discard", "reopen"]


class MongoClient(GreenMongoClient):
    """PyMongo's client, on green sockets and locks.

    It connects at the first operation, never when it is made: no loop may be
    running then, or another one later.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("_pool_class", FairPool)
        connects_early = kwargs.pop("connect", None)
        if connects_early is not None and not isinstance(connects_early, bool):
            raise TypeError(f"connect must be True or False, not {connects_early!r}")
        # Threads that PyMongo would start here, it starts again when it opens.
        with collect_starts():
            super().__init__(*args, connect=False, **kwargs)

    def __del__(self) -> None:
        # PyMongo warns of an open client here. This one's greenlets and
        # sockets end with it, or with its loop, and leave nothing behind.
        pass


def reopen(client: MongoClient, *, loop_is_alive: bool) -> None:
    """Let *client* start anew, with new monitors and pools, on another loop.

    Args:
        loop_is_alive: Whether the loop that it ran on can still run: then
            what it left there is closed. On a closed loop, or in a forked
            child, there is nothing left to close.
    """
    if client._closed:
        return
    if loop_is_alive:
        client._topology.close()
    with collect_starts():
        client._init_background()


def close(client: MongoClient) -> None:
    """End *client*'s sessions, cursors, monitors and sockets. In a greenlet.

    When it returns, no greenlet and no socket of the client is left.
    """
    threads = _threads_of(client)
    client.close()
    for thread in threads:
        thread.interrupt()
    for thread in threads:
        thread.join()


def discard(client: MongoClient) -> None:
    """Close *client* where no loop runs: locally, without telling the servers."""
    if client._topology is not None:
        client._kill_cursors_executor.close()
        client._topology.close()
    client._closed = True


def _threads_of(client: MongoClient) -> list[Thread]:
    topology = client._topology
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
