"""The servers that tasks run against: started when first asked for.

`schedule` asks for a URI by transport. Plain TCP and the Unix socket are two
ways to the same server.

Rule: a server lives until the end of the run, so that all peers of a table
meet the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from motorlike.testing.mongod import Deployment, replica_set, standalone

from .task import DATABASE, Unavailable

__all__ = ["GivenServer", "OwnServers", "Server", "Servers"]

# The published tasks' documents fit in.
_ARGUMENTS = ("--wiredTigerCacheSizeGB", "1")
_ANSWER_MILLISECONDS = 10_000


@dataclass(frozen=True)
class Server:
    """One way to one server.

    Attributes:
        key: The same for all ways to it.
        uri: With all that a client needs.
    """

    key: str
    uri: str

    def client(self) -> MongoClient[dict[str, Any]]:
        """PyMongo's ordinary client, for preparations."""
        return MongoClient(self.uri, serverSelectionTimeoutMS=_ANSWER_MILLISECONDS)

    def version(self) -> str:
        """The version that the server gives."""
        with self.client() as client:
            return str(client.server_info()["version"])


class Servers(Protocol):
    """Where servers come from."""

    def get(self, transport: str, *, needs_replica_set: bool) -> Server:
        """Return the server to use, or raise `Unavailable`."""

    def close(self) -> None:
        """Leave nothing behind."""


class OwnServers:
    """Servers started for the run."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, Deployment] = {}

    def get(self, transport: str, *, needs_replica_set: bool) -> Server:
        """Return the server to use, started if need be.

        Raises:
            Unavailable: It could not be started with TLS.
            MongodNotFound: There is no mongod.
            MongodFailed: It did not start.
        """
        key = ("replica set" if needs_replica_set else "standalone") + (
            " with TLS" if transport == "tls" else ""
        )
        if key not in self._running:
            self._running[key] = self._start(transport == "tls", needs_replica_set)
        return Server(key, _uri(self._running[key], transport))

    def close(self) -> None:
        """Stop them all."""
        self._stack.close()

    def _start(self, tls: bool, needs_replica_set: bool) -> Deployment:
        start: Callable[..., Any] = standalone
        if needs_replica_set:
            start = _replica_set_of_one
        try:
            server: Deployment = self._stack.enter_context(start(tls=tls, extra_args=_ARGUMENTS))
        except ImportError as exc:
            raise Unavailable(
                "certificates need the cryptography package: pip install 'motorlike[bench]'"
            ) from exc
        return server


def _replica_set_of_one(**options: Any) -> Any:  # Any: as `replica_set`'s own
    return replica_set(1, **options)


def _uri(server: Deployment, transport: str) -> str:
    if transport != "unix":
        return server.uri
    # A replica set names its members by TCP addresses; so no discovery.
    return f"mongodb://{quote(server.members[0].unix_socket, safe='')}/?directConnection=true"


class GivenServer:
    """The one server that ``--uri`` names; it is what it is."""

    def __init__(self, uri: str) -> None:
        self._server = Server("given", uri)

    def get(self, transport: str, *, needs_replica_set: bool) -> Server:
        """Return the server, or raise `Unavailable` if it is of another kind."""
        if transport != "plain":
            raise Unavailable(
                f"{transport}: with --uri there is one way to the server, called plain"
            )
        if needs_replica_set and not self._is_replica_set():
            raise Unavailable("the server given by --uri is not a replica set")
        return self._server

    def close(self) -> None:
        """Drop the suite's database, which is all that was written there."""
        try:
            with self._server.client() as client:
                client.drop_database(DATABASE)
        except PyMongoError:
            # The run has said what is wrong with the server.
            return

    def _is_replica_set(self) -> bool:
        with self._server.client() as client:
            return "setName" in client.admin.command("hello")
