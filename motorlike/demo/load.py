"""The load of the demo: requests to a site that counts visits, many at a time.

`command` sends it to its own application, over HTTP as anybody else would.

Rule: a visit is noted as sent before it is sent, and no request is repeated.
So the site's counts can be held against what is noted here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from tornado.httputil import HTTPHeaders, HTTPInputError, parse_response_start_line

__all__ = ["Load", "Request", "plan", "send"]

# Pages, and how much each is liked.
_PAGES = {"home": 40, "tutorial": 25, "guide": 20, "reference": 10, "changelog": 5}
# Of each ten requests so many count a visit; the others look.
_VISITS_IN_TEN = 7
# The same requests in each run.
_SEED = 1
_ANSWER_SECONDS = 30
# Where so many requests have failed, the others would too, each after a while.
_MOST_FAILURES = 50


@dataclass(frozen=True)
class Request:
    """One request to send.

    Attributes:
        path: Of its URL, without the leading slash.
        visited: The page whose count it raises, if any.
    """

    path: str
    visited: str | None = None


@dataclass
class Load:
    """What was sent, and what came of it.

    Attributes:
        sent: The visits sent, by page.
        latencies: The time to each good answer, in seconds.
        failures: How many requests failed, by what was said.
        reads: How many visits were read back after they had been logged.
        stale: How many of these reads did not see the write before them.
        unsent: How many were not sent, after too many failures.
        seconds: How long all of it took.
    """

    sent: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    stale: int = 0
    unsent: int = 0
    seconds: float = 0.0


def plan(number: int) -> list[Request]:
    """Return *number* requests: visits to all pages, and looks at the counts."""
    chance = random.Random(_SEED)
    pages = chance.choices(list(_PAGES), list(_PAGES.values()), k=number)
    return [_request(index, page) for index, page in enumerate(pages)]


def _request(index: int, page: str) -> Request:
    if index % 10 < _VISITS_IN_TEN:
        return Request(f"visit/{page}", visited=page)
    looks = (f"page/{page}", "recent", "")
    return Request(looks[index % 10 - _VISITS_IN_TEN])


async def send(address: tuple[str, int], requests: list[Request], concurrency: int) -> Load:
    """Send *requests* to the site at *address*, *concurrency* at a time.

    Each of the visitors that send them keeps one connection.
    """
    load = Load()
    waiting = iter(requests)
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as visitors:
        for _ in range(min(concurrency, len(requests))):
            visitors.create_task(_visit(address, waiting, load))
    load.seconds = time.perf_counter() - begun
    load.unsent = sum(1 for _ in waiting)
    return load


async def _visit(address: tuple[str, int], waiting: Iterator[Request], load: Load) -> None:
    async with _Browser(*address) as browser:
        for request in waiting:
            if request.visited is not None:
                load.sent[request.visited] += 1
            begun = time.perf_counter()
            body, failure = await browser.fetch(request.path)
            if failure is None:
                load.latencies.append(time.perf_counter() - begun)
                load.reads += b'"seen": ' in body
                load.stale += b'"seen": false' in body
            else:
                load.failures[failure] += 1
            if load.failures.total() >= _MOST_FAILURES:
                break


class _Browser:
    """Sends one request after another on one connection.

    Tornado's own client opens one for each request. That would cost more than
    all the rest of the demo, and the figures would be of that.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> _Browser:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def fetch(self, path: str) -> tuple[bytes, str | None]:
        """Send one request; return the answer, and what went wrong, if anything did."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                status, body = await self._get(path)
        except (OSError, EOFError, HTTPInputError) as exc:
            await self._close()
            return b"", f"{type(exc).__name__}: {str(exc) or f'none in {_ANSWER_SECONDS} s'}"
        if status == 200:
            return body, None
        return body, f"HTTP {status}, {body.decode(errors='replace').strip()}"

    async def _get(self, path: str) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: {self._address[0]}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start_line, _, rest = head.partition("\r\n")
        status = parse_response_start_line(start_line).code
        length = int(HTTPHeaders.parse(rest)["Content-Length"])
        return status, await reader.readexactly(length)

    async def _close(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
