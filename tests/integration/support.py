"""What the integration tests share: running to the end with nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import bson
from pymongo import monitoring

from motorlike import MotorClient
from motorlike.green.hub import Hub, current_hub

T = TypeVar("T")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Claim that the block leaves no greenlet suspended, no stream and no descriptor.

    A name that was given up is still looked up in the executor, over a socket
    of the system's; so a descriptor has a little time to go.
    """
    hub = current_hub()
    descriptors = open_descriptors()
    yield
    assert hub.suspended == 0
    assert hub.streams == {}
    if open_descriptors() > descriptors:
        await eventually(lambda: open_descriptors() <= descriptors)


def run(coroutine: Coroutine[Any, Any, T], timeout: float = 30) -> T:
    """Run *coroutine* on a loop of its own; nothing may be left when it returns."""

    async def checked() -> T:
        async with nothing_left():
            async with asyncio.timeout(timeout):
                result = await coroutine
        return result

    try:
        return asyncio.run(checked())
    finally:
        # What nobody retrieved is reported now, in the test that left it.
        gc.collect(1)


async def eventually(claim: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until *claim* holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not claim():
        assert asyncio.get_running_loop().time() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


def pool_of(client: MotorClient) -> Any:
    """Return PyMongo's pool of the one server that *client* knows."""
    (server,) = client.delegate._topology._servers.values()
    return server.pool


async def fill(client: MotorClient) -> None:
    """Open all connections that the pool may have."""
    pool = pool_of(client)
    while len(pool.conns) < pool.max_pool_size:
        sleeps = (client.admin.command("sleep", 1, millis=50) for _ in range(pool.max_pool_size))
        # On a busy machine some may wait in the queue for too long.
        await asyncio.gather(*sleeps, return_exceptions=True)


def assert_pool_is_at_rest(client: MotorClient) -> None:
    pool = pool_of(client)
    assert pool.active_sockets == 0
    assert pool.requests == 0
    assert pool.operation_count == 0
    assert pool._pending == 0


def open_cursors(synchronous: Any, database: str, collection: str = "items") -> int:
    """Count the server's idle cursors over *collection* of *database*.

    Of no other: other tests leave cursors that end when they will.
    """
    current = {"$currentOp": {"allUsers": True, "idleCursors": True}}
    idle = {"type": "idleCursor", "ns": f"{database}.{collection}"}
    return len(synchronous.admin.aggregate([current, {"$match": idle}]).to_list())


@asynccontextmanager
async def fail_point(
    address: tuple[str, int], commands: list[str], *, mode: Any = "alwaysOn", **data: Any
) -> AsyncIterator[None]:
    """Let the server at *address* fail *commands*.

    Say how: ``blockTimeMS=``, ``closeConnection=True``, ``errorCode=``.
    """
    if "blockTimeMS" in data:
        data["blockConnection"] = True
    data["failCommands"] = commands
    await asyncio.to_thread(_configure, address, {"mode": mode, "data": data})
    try:
        yield
    finally:
        # Waits for the commands that are being blocked.
        await asyncio.to_thread(_configure, address, {"mode": "off"})


def _configure(address: tuple[str, int], options: dict[str, Any]) -> None:
    # By hand, in one OP_MSG: a MongoClient's threads would still be closing
    # its sockets while descriptors are counted.
    command = {"configureFailPoint": "failCommand", **options, "$db": "admin"}
    body = bytes(5) + bson.encode(command)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        reply = connection.recv(1 << 16)
    assert bson.decode(reply[21:])["ok"] == 1


class CommandLog(monitoring.CommandListener):
    """Remembers the commands that a client sent, and how they ended."""

    def __init__(self) -> None:
        self.started_events: list[monitoring.CommandStartedEvent] = []
        self.succeeded_events: list[monitoring.CommandSucceededEvent] = []
        self.failed_events: list[monitoring.CommandFailedEvent] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.started_events.append(event)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.succeeded_events.append(event)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self.failed_events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.command_name for event in self.started_events]


@contextmanager
def counted_spawns(hub: Hub) -> Iterator[list[Callable[..., Any]]]:
    """Gather the callables for which *hub* starts a greenlet."""
    spawned: list[Callable[..., Any]] = []
    spawn = hub.spawn

    def counting(function: Callable[..., Any], *args: Any) -> Any:
        spawned.append(function)
        return spawn(function, *args)

    hub.spawn = counting  # type: ignore[method-assign]  # for the block only
    try:
        yield spawned
    finally:
        del hub.spawn  # type: ignore[method-assign]  # the class's own again


def run_script(script: str, *arguments: str, timeout: float = 60) -> str:
    """Run *script* in a Python of its own, warnings as errors; return its stdout.

    It must end well and print nothing on stderr. What asyncio's debug mode
    says of slow turns does not count: the machine may be busy.
    """
    quiet = "import logging; logging.getLogger('asyncio').setLevel(logging.ERROR)\n"
    script = quiet + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    return done.stdout
