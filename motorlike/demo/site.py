"""The demo's site while it is up: its port, its client, its database, its server.

`command` enters `listening`, starts a mongod, and enters `serving`.

Rule: each part leaves nothing open and nothing in the database when its block
ends, and raises `CannotRun` if it cannot begin.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from pymongo import ReadPreference, WriteConcern
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
from tornado.httpserver import HTTPServer

from motorlike import MotorClient, MotorDatabase
from motorlike.demo.app import Document, application
from motorlike.demo.connections import ConnectionCount
from motorlike.demo.report import brief

__all__ = ["CannotRun", "Site", "listening", "serving"]

_HOST = "127.0.0.1"
_SERVER_SELECTION_SECONDS = 3
_HANDLER_SECONDS = 5


class CannotRun(Exception):
    """The demo could not begin. Its message is for the user."""


@dataclass(frozen=True)
class Site:
    """The application while it is served.

    Attributes:
        address: Its host and port.
        database: What it keeps its counts in.
        connections: What its client uses.
        mongodb: The version of its server.
    """

    address: tuple[str, int]
    database: MotorDatabase[Document]
    connections: ConnectionCount
    mongodb: str

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return "http://{}:{}/".format(*self.address)


def listening(port: int) -> socket.socket:
    """Take the application's port, before a mongod is started for nothing."""
    # Not Tornado's bind_sockets, which leaves a socket open when it fails.
    try:
        listener = socket.create_server((_HOST, port), backlog=128)
    except OSError as exc:
        reason = os.strerror(exc.errno or 0)
        raise CannotRun(
            f"cannot listen on port {port} of {_HOST}: {reason}. Choose another --port, or leave "
            "it out to have a free one."
        ) from exc
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serving(
    listener: socket.socket, uri: str, *, affinity: bool = True
) -> AsyncIterator[Site]:
    """Serve the application on *listener*, with *affinity* or without."""
    connections = ConnectionCount()
    async with _client(uri, connections) as client, _database(client) as (database, mongodb):
        server = HTTPServer(application(database, affinity=affinity))
        server.add_socket(listener)
        try:
            yield Site(listener.getsockname(), database, connections, mongodb)
        finally:
            server.stop()
            await server.close_all_connections()
            await _handlers_ended()


async def _handlers_ended() -> None:
    """Let the handlers come to their end whose requests were interrupted.

    Some versions of Tornado complain of those that the loop's end cancels.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=_HANDLER_SECONDS)


@asynccontextmanager
async def _client(uri: str, connections: ConnectionCount) -> AsyncIterator[MotorClient[Document]]:
    try:
        client: MotorClient[Document] = MotorClient(
            uri,
            serverSelectionTimeoutMS=_SERVER_SELECTION_SECONDS * 1000,
            event_listeners=[connections],
        )
    except (PyMongoError, ValueError) as exc:
        raise CannotRun(f"--uri cannot be used: {brief(exc)}") from exc
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _database(
    client: MotorClient[Document],
) -> AsyncIterator[tuple[MotorDatabase[Document], str]]:
    """Make a database that nobody else uses; yield it and the server's version."""
    database = client.get_database(
        f"motorlike_demo_{secrets.token_hex(4)}",
        # Whatever the URI says: the check must read what was written.
        read_preference=ReadPreference.PRIMARY,
        write_concern=WriteConcern(w=1),
    )
    with _refusals_explained():
        mongodb = (await client.server_info())["version"]
    try:
        with _refusals_explained():
            await database.create_collection("log")
            await database.create_collection("pages")
        yield database, mongodb
    finally:
        # That the server is gone has been told by then.
        with suppress(PyMongoError):
            await client.drop_database(database.name)


@contextmanager
def _refusals_explained() -> Iterator[None]:
    try:
        yield
    except PyMongoError as exc:
        raise CannotRun(_why_no_database(exc)) from exc


def _why_no_database(error: PyMongoError) -> str:
    if isinstance(error, ServerSelectionTimeoutError):
        return f"no MongoDB server was reached in {_SERVER_SELECTION_SECONDS} s: {brief(error)}"
    return f"the MongoDB server refused: {brief(error)}"
