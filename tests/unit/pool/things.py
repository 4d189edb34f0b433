"""What the tests of the pools share: a scripted server, and claims about a pool at rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from motorlike import green
from motorlike.green.threading import Event
from motorlike.pool import ConnectionPool
from tests.integration.support import eventually, run

__all__ = ["Broken", "Connection", "Server", "at_rest", "eventually", "hold", "run", "turns"]


class Broken(OSError):
    """What a connection raises that the server has dropped."""


class Connection:
    """One that notices when two use it at once, or when it is used after its end."""

    def __init__(self, server: Server, id_: int) -> None:
        self.server = server
        self.id = id_
        self.is_closed = False
        self.is_in_use = False
        self.has_reply_on_its_way = False
        self.resets = 0
        self.pings = 0

    def __repr__(self) -> str:
        return f"<connection {self.id}>"

    # Equal to all others, and not hashable: a pool must not care.
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # on purpose, see above

    def use(self, wait: Callable[[], object] = lambda: green.sleep(0)) -> int:
        """Send a request and wait for its reply."""
        assert not self.is_closed, f"{self} was used after its end"
        assert not self.is_in_use, f"{self} is used by two"
        assert not self.has_reply_on_its_way, f"{self} gives somebody else's reply"
        self.is_in_use = self.has_reply_on_its_way = True
        try:
            wait()
            self.has_reply_on_its_way = False
        finally:
            self.is_in_use = False
        return self.id

    def ping(self) -> None:
        self.pings += 1
        self.use(self.server.pinging)

    def reset(self) -> None:
        self.resets += 1
        self.use(self.server.resetting)

    def close(self) -> None:
        assert not self.is_closed, f"{self} was closed twice"
        self.is_closed = True
        try:
            self.server.closing()
        finally:
            self.server.open -= 1


def nothing() -> None:
    """Do nothing, where a script may say otherwise."""


class Server:
    """Makes connections. What else happens while it does is scripted."""

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.open = 0
        self.most_open = 0
        self.attempts = 0
        self.connecting: Callable[[], object] = nothing
        self.pinging = self.resetting = self.closing = self.connecting

    def connect(self) -> Connection:
        self.attempts += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            self.connecting()
        except BaseException:
            self.open -= 1
            raise
        self.made.append(Connection(self, len(self.made)))
        return self.made[-1]

    @property
    def open_ones(self) -> list[int]:
        return [each.id for each in self.made if not each.is_closed]

    # `Any`: whatever ConnectionPool takes.
    def pool(self, max_size: int = 1, **options: Any) -> ConnectionPool[Connection]:
        return ConnectionPool(self.connect, max_size, **options)


def at_rest(pool: ConnectionPool[Any], server: Server) -> bool:
    """Tell whether nobody uses *pool*, and its books agree with the server's."""
    stats = pool.stats()
    return (stats.in_use, stats.waiting) == (0, 0) and stats.idle == stats.size == server.open


async def turns(count: int = 10) -> None:
    """Let the loop turn a few times: whatever is ready runs."""
    for _ in range(count):
        await asyncio.sleep(0)


class hold:  # noqa: N801 - reads as a verb
    """Keep *count* connections of a pool in use until `release`, in order of arrival."""

    def __init__(self, pool: ConnectionPool[Connection], count: int = 1) -> None:
        self.event = Event()
        self.futures = [pool.run(self._keep) for _ in range(count)]

    def _keep(self, connection: Connection) -> int:
        return connection.use(self.event.wait)

    async def release(self) -> list[int]:
        self.event.set()
        return await asyncio.gather(*self.futures)


def main(function: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a test of a coroutine function: nothing may be left when it returns."""

    def test() -> None:
        run(function())

    test.__name__, test.__doc__ = function.__name__, function.__doc__
    return test
