"""The limit: the CPU time that a client running unchanged PyMongo cannot go below.

It is a sum. PyMongo's own work: an operation by synchronous PyMongo
on a socket in memory, which answers with what the server answered before. And
the kernel's: a non-blocking send and a non-blocking receive of as many bytes,
over loopback, when the reply has already arrived. Where a task does more than
call the client, that is added: `Task.frame`.

Rule: all are measured in the child like any peer, in the same rounds. Waiting
costs no CPU time and is left out; so are the server's and the monitors' threads.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from .measure import Case
from .task import DATABASE, Task, Unavailable

__all__ = ["Exchange", "Recorder", "Replay", "measure"]

# Sent, and received.
Exchange = tuple[bytes, bytes]

_CONNECTIONS = 32
_POLL_SECONDS = 0.0002
_BUFFER_BYTES = 1 << 20


def measure(task: Task, case: Case) -> dict[str, float]:
    """Return the limit in CPU microseconds, and the parts that it is the sum of.

    Where an operation carries many documents, each figure is for one document.
    """
    if not task.has_limit:
        raise Unavailable("this task has no limit")
    if case.transport == "tls":
        raise Unavailable("the limit is that of connections without TLS")
    exchanges, driver = _driver_microseconds(task, case)
    kernel = _kernel_microseconds(exchanges, case)
    frame = task.frame(case)
    return {
        "cpu": (driver + kernel + frame) / task.carries,
        "limit_driver": driver / task.carries,
        "limit_kernel": kernel / task.carries,
        "limit_frame": frame / task.carries,
    }


# -- PyMongo's own work ----------------------------------------------------


class Recorder:
    """In a socket's place: passes everything on, and keeps what went through."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.exchanges: list[tuple[bytearray, bytearray]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def sendall(self, data: bytes) -> None:
        """Send, as the beginning of an exchange."""
        self.exchanges.append((bytearray(data), bytearray()))
        self.real.sendall(data)

    def recv_into(self, buffer: memoryview) -> int:
        """Receive what belongs to the exchange that began last."""
        count: int = self.real.recv_into(buffer)
        self.exchanges[-1][1].extend(buffer[:count])
        return count


class Replay:
    """In a socket's place: answers with what was recorded, over and over."""

    def __init__(self, real: Any, exchanges: list[Exchange]) -> None:
        self._real = real
        self._replies = [memoryview(bytearray(reply)) for _, reply in exchanges]
        self._turn = 0
        self._reply = self._replies[0]
        self._timeout: float | None = None

    def sendall(self, data: bytes) -> None:
        """Choose the next reply, and let it answer *data*."""
        reply = self._replies[self._turn]
        self._turn = (self._turn + 1) % len(self._replies)
        # The reply names the request by the id in its header.
        reply[8:12] = data[4:8]
        self._reply = reply

    def recv_into(self, buffer: memoryview) -> int:
        """Hand out the reply, as much of it as fits."""
        count = min(len(buffer), len(self._reply))
        buffer[:count] = self._reply[:count]
        self._reply = self._reply[count:]
        return count

    def gettimeout(self) -> float | None:
        """The timeout that was set."""
        return self._timeout

    def settimeout(self, timeout: float | None) -> None:
        """Remember *timeout*: here nothing ever waits."""
        self._timeout = timeout

    def fileno(self) -> int:
        """That of the real socket, which PyMongo asks whether it is closed."""
        descriptor: int = self._real.fileno()
        return descriptor

    def close(self) -> None:
        """Close the real socket."""
        self._real.close()


def _driver_microseconds(task: Task, case: Case) -> tuple[list[Exchange], float]:
    client: MongoClient[dict[str, Any]] = MongoClient(case.uri)
    with client:
        database = client[DATABASE]
        exchange = task.exchange(database)
        exchange()  # connects
        interface = _network_interface(client)
        interface.conn = recorder = Recorder(interface.conn)
        exchange()
        exchanges = [(bytes(sent), bytes(received)) for sent, received in recorder.exchanges]
        interface.conn = Replay(recorder.real, exchanges)
        _repeat(exchange, case.warm_up)
        return exchanges, _repeat(exchange, case.seconds)


def _network_interface(client: MongoClient[dict[str, Any]]) -> Any:
    """What holds the socket of the one connection that *client* has by now."""
    try:
        (server,) = client._topology._servers.values()
        (connection,) = server.pool.conns
        interface = connection.conn
        interface.conn.recv_into  # noqa: B018  # is it a socket?
    except (AttributeError, ValueError) as exc:
        raise Unavailable(f"this PyMongo's connections are built in another way: {exc}") from exc
    return interface


def _repeat(exchange: Callable[[], object], seconds: float) -> float:
    count = 0
    start, deadline = time.thread_time(), time.perf_counter() + seconds
    while True:
        exchange()
        count += 1
        if time.perf_counter() >= deadline:
            return (time.thread_time() - start) / count * 1e6


# -- the kernel's work -----------------------------------------------------


def _kernel_microseconds(exchanges: list[Exchange], case: Case) -> float:
    """CPU time of the sends and receives of one operation."""
    with _answering(exchanges, case) as connections:
        _batches(exchanges, connections, case.warm_up)
        return _batches(exchanges, connections, case.seconds)


def _batches(exchanges: list[Exchange], connections: list[socket.socket], seconds: float) -> float:
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    cpu_seconds, operations = 0.0, 0
    deadline = time.perf_counter() + seconds
    while operations == 0 or time.perf_counter() < deadline:
        for sent, received in exchanges:
            cpu_seconds += _send(connections, sent)
            cpu_seconds += _receive(connections, len(received), buffer)
        operations += len(connections)
    return cpu_seconds / operations * 1e6


def _send(connections: list[socket.socket], data: bytes) -> float:
    cpu_seconds = 0.0
    waiting = [(connection, memoryview(data)) for connection in connections]
    while waiting:
        start = time.thread_time()
        rest = [(each, left[each.send(left) :]) for each, left in waiting]
        cpu_seconds += time.thread_time() - start
        waiting = [(each, left) for each, left in rest if left]
        _wait([each for each, _ in waiting], select.POLLOUT)
    return cpu_seconds


def _receive(connections: list[socket.socket], size: int, buffer: memoryview) -> float:
    cpu_seconds = 0.0
    waiting = [(connection, size) for connection in connections]
    while waiting:
        _wait([each for each, _ in waiting], select.POLLIN)
        start = time.thread_time()
        rest = [(each, left - each.recv_into(buffer[:left])) for each, left in waiting]
        cpu_seconds += time.thread_time() - start
        waiting = [(each, left) for each, left in rest if left]
    return cpu_seconds


def _wait(connections: list[socket.socket], event: int) -> None:
    """Wait until all *connections* are ready, so that they are served in one go."""
    poller = select.poll()
    for connection in connections:
        poller.register(connection, event)
    while len(poller.poll(0)) < len(connections):
        time.sleep(_POLL_SECONDS)


@contextmanager
def _answering(exchanges: list[Exchange], case: Case) -> Iterator[list[socket.socket]]:
    """Start a process that answers as the server did; yield connections to it."""
    family = socket.AF_UNIX if case.transport == "unix" else socket.AF_INET
    address: Any = str(Path(case.folder) / "limit.sock")
    if family == socket.AF_INET:
        address = ("127.0.0.1", 0)
    else:
        Path(address).unlink(missing_ok=True)
    sizes = [str(len(part)) for exchange in exchanges for part in exchange]
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind(address)
        listener.listen(_CONNECTIONS)
        command = [sys.executable, "-m", f"{__package__}.answer", str(listener.fileno()), *sizes]
        answerer = subprocess.Popen(command, pass_fds=[listener.fileno()])
        stack.callback(answerer.wait)
        connections = [stack.enter_context(socket.socket(family)) for _ in range(_CONNECTIONS)]
        for connection in connections:
            connection.connect(listener.getsockname())
            connection.setblocking(False)
            if family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connections
