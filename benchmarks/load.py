"""A load of HTTP requests from a process of its own: ``python -m benchmarks.load URL``.

The tasks with a web server start it beside that server. Each connection is
kept alive and has one request under way at a time. It uses `wrk` where that
is installed and can keep to the seconds asked for, and otherwise a few lines
of asyncio; the line of JSON that it prints says which.

Rule: an answer other than 200 ends the run. A server that fails is fast.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import shutil
import subprocess
import sys
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from .measure import percentile

__all__ = ["Load", "LoadFailed", "apply_load", "read_wrk"]

_PATIENCE_SECONDS = 60

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_WRK_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


class Load(NamedTuple):
    """What a server did under a load."""

    tool: str
    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float


class LoadFailed(Exception):
    """The server gave an answer other than 200, or closed a connection."""


async def apply_load(url: str, connections: int, seconds: float, warm_up: float) -> Load:
    """Load *url* from a process of its own.

    Args:
        url: What each request asks for.
        connections: How many are open, each with a request under way.
        seconds: How long is measured.
        warm_up: For how many seconds before that requests are sent all the same.

    Raises:
        LoadFailed: An answer was not 200, or a connection was lost.
    """
    command = [sys.executable, "-m", __name__, url, "--connections", str(connections)]
    command += ["--seconds", str(seconds), "--warm-up", str(warm_up)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, complaint = await process.communicate()
    if process.returncode:
        last = complaint.decode().strip().rpartition("\n")[2]
        raise LoadFailed(f"load on {url} ended with exit code {process.returncode}: {last}")
    return Load(**json.loads(output))


class _Connection(asyncio.Protocol):
    """Sends the request, and again whenever it is answered."""

    def __init__(self, request: bytes) -> None:
        self.latencies: list[float] = []
        self.is_ending = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            is_whole = self._is_whole()
        except LoadFailed as exc:
            self._end(exc)
            return
        if is_whole:
            self.latencies.append(time.perf_counter() - self._sent)
            self._received.clear()
            if self.is_ending:
                self._end(None)
            else:
                self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or LoadFailed("the server closed a connection"))

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def _is_whole(self) -> bool:
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return False
        status = self._received[:12]
        length = _LENGTH.search(self._received, 0, head)
        if status != b"HTTP/1.1 200" or length is None:
            line = self._received.partition(b"\r\n")[0].decode("latin-1")
            raise LoadFailed(f"no 200 with a Content-Length: {line!r}")
        return len(self._received) >= head + 4 + int(length[1])

    def _end(self, exc: Exception | None) -> None:
        self._transport.close()
        if self.done.done():
            return
        if exc is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(exc)


async def _open(url: str, connections: int) -> list[_Connection]:
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(connections):
        _, connection = await loop.create_connection(
            lambda: _Connection(request), parts.hostname or "127.0.0.1", parts.port or 80
        )
        opened.append(connection)
    return opened


async def _by_asyncio(url: str, connections: int, seconds: float, warm_up: float) -> Load:
    opened = await _open(url, connections)
    ended = asyncio.gather(*(connection.done for connection in opened))
    await asyncio.wait([ended], timeout=warm_up)
    for connection in opened:
        connection.latencies.clear()
    start = time.perf_counter()
    await asyncio.wait([ended], timeout=seconds)
    elapsed = time.perf_counter() - start
    latencies = sorted(seconds for each in opened for seconds in each.latencies)
    for connection in opened:
        connection.is_ending = True
    await ended
    if not latencies:
        raise LoadFailed(f"no request was answered within {seconds} s")
    p50, p99 = (percentile(latencies, share) * 1e3 for share in (0.50, 0.99))
    return Load("asyncio", len(latencies) / elapsed, p50, p99)


def _by_wrk(wrk: str, url: str, connections: int, seconds: float, warm_up: float) -> Load:
    command = [wrk, "--threads", "1", "--connections", str(connections), "--latency"]
    # A request that takes long is a latency; by default wrk calls it an error after 2 s.
    command += ["--timeout", f"{_PATIENCE_SECONDS}s"]
    if warm_up:
        duration = f"{math.ceil(warm_up)}s"
        subprocess.run([*command, "--duration", duration, url], check=True, capture_output=True)
    command += ["--duration", f"{math.ceil(seconds)}s", url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return read_wrk(text)


def read_wrk(text: str) -> Load:
    """Read what ``wrk --latency`` printed."""
    failures = re.search(r"(Non-2xx or 3xx responses|Socket errors): .*", text)
    rate = re.search(r"Requests/sec: +([\d.]+)", text)
    if failures or rate is None:
        raise LoadFailed(f"wrk: {failures[0] if failures else text}")
    return Load("wrk", float(rate[1]), *(_wrk_latency(text, percent) for percent in (50, 99)))


def _wrk_latency(text: str, percent: int) -> float:
    found = re.search(rf"^ +{percent}% +([\d.]+)([a-z]+) *$", text, re.MULTILINE)
    if found is None:
        raise LoadFailed(f"wrk printed no latency for {percent}%: {text}")
    return float(found[1]) * _WRK_UNITS[found[2]]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Load a URL; print what its server did as JSON.")
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, help="default: %(default)s")
    parser.add_argument("--warm-up", type=float, default=1.0, help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    """Load the URL of the command line."""
    arguments = _parse()
    load = (arguments.url, arguments.connections, arguments.seconds, arguments.warm_up)
    wrk = shutil.which("wrk")
    # wrk counts in whole seconds.
    if wrk is not None and arguments.seconds >= 1:
        result = _by_wrk(wrk, *load)
    else:
        result = asyncio.run(_by_asyncio(*load))
    print(json.dumps(result._asdict()))


if __name__ == "__main__":
    main()
