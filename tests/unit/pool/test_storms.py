"""Everything at once, many times, by seed: no place is lost and nobody is forgotten.

The rounds differ in what may go wrong; within one, chance decides. A failure
names its seed, and comes again with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from motorlike import green
from motorlike.pool import ConnectionPool, MappedPool, PoolClosed, PoolTimeout, TooManyWaiters
from tests.unit.pool.things import Broken, Connection, Server, at_rest, eventually, run

ROUNDS = range(15)
OPERATIONS = 60


class Refused(Exception):
    """A connect, a reset or a ping that fails."""


EXPECTED = (Broken, Refused, ZeroDivisionError, PoolTimeout, TooManyWaiters)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("motorlike.pool")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


class Storm:
    """One round: a pool, a server that fails, and users that break and are cancelled."""

    pool: ConnectionPool[Connection]
    # Whether a user may get a connection that another one has, while more are opened.
    is_shared = False

    def __init__(self, seed: int, *, failures: float, max_size: int) -> None:
        self.random = Random(seed)
        self.failures = failures
        self.max_size = max_size
        self.server = Server()
        self.server.connecting = self.server.pinging = self.server.resetting = self.some_turns
        self.server.closing = self.some_turns
        self.all: list[asyncio.Future[Any]] = []

    def some_turns(self) -> None:
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 5))):
            green.sleep(0)
        if self.random.random() < self.failures:
            raise self.random.choice((Refused, Broken))

    # Three ways to use a pool, and at the end of each an error perhaps.

    def use(self, connection: Connection) -> None:
        connection.use(lambda: [green.sleep(0) for _ in range(self.random.randrange(4))])
        self.check()
        if self.random.random() < self.failures:
            raise self.random.choice((Broken, ZeroDivisionError))
        if self.all and self.random.random() < 0.1:
            # A cancel that does not come from the hub.
            self.random.choice(self.all).cancel()

    def with_block(self) -> None:
        timeout = self.random.choice((None, None, 0, 0.001))
        with self.pool.reserve(wait_timeout=timeout) as connection:
            self.use(connection)

    async def async_block(self) -> None:
        async with self.pool.reserve() as connection:
            if self.random.random() < 0.5:
                await green.spawn(self.use, connection)

    def start(self) -> asyncio.Future[Any]:
        kind = self.random.randrange(3)
        if kind == 0:
            return self.pool.run(self.use)
        if kind == 1:
            return green.spawn(self.with_block)
        return asyncio.ensure_future(self.async_block())

    def check(self) -> None:
        stats = self.pool.stats()
        assert stats.size <= self.max_size
        assert self.server.most_open <= self.max_size
        if stats.waiting:
            assert (stats.idle, stats.size) == (0, self.max_size)

    async def rage(self) -> None:
        for _ in range(OPERATIONS):
            self.all.append(self.start())
            for _ in range(self.random.choice((0, 0, 1, 3))):
                await asyncio.sleep(0)
            if self.random.random() < 0.3:
                self.random.choice(self.all).cancel()
            self.check()
        for result in await asyncio.gather(*self.all, return_exceptions=True):
            if isinstance(result, BaseException):
                assert isinstance(result, (*EXPECTED, asyncio.CancelledError)), repr(result)

    async def calm_down(self) -> None:
        """Each place can be had again, all of them at once."""
        self.failures = 0
        await eventually(lambda: at_rest(self.pool, self.server))
        gate = asyncio.Event()
        inside: list[int] = []

        async def take() -> None:
            async with self.pool.reserve() as connection:
                inside.append(connection.id)
                await gate.wait()

        taking = [asyncio.create_task(take()) for _ in range(self.max_size)]
        await eventually(lambda: len(inside) == self.max_size)
        assert len(set(inside)) == self.max_size or self.is_shared
        gate.set()
        await asyncio.gather(*taking)
        await eventually(lambda: at_rest(self.pool, self.server))

    # `Any`: whatever a pool takes.
    async def last(self, make: Callable[..., ConnectionPool[Connection]], **options: Any) -> None:
        async with make(
            self.server.connect,
            self.max_size,
            backoff_seconds=(0.0001, 0.001),
            random=self.random,
            **options,
        ) as self.pool:
            await self.rage()
            await self.calm_down()
        await eventually(lambda: not self.server.open)
        assert self.pool.stats().size == 0


@pytest.mark.parametrize("seed", ROUNDS)
@pytest.mark.parametrize("order", ["lifo", "fifo"])
def test_cancels_alone(seed: int, order: str) -> None:
    run(Storm(seed, failures=0, max_size=1 + seed % 5).last(ConnectionPool, order=order))


@pytest.mark.parametrize("seed", ROUNDS)
def test_cancels_and_failures_of_every_kind(seed: int) -> None:
    storm = Storm(seed, failures=0.2, max_size=1 + seed % 5)
    options = {"ping": Connection.ping, "reset": Connection.reset, "min_size": seed % 2}
    run(storm.last(ConnectionPool, max_waiters=20, **options))


@pytest.mark.parametrize("seed", ROUNDS)
def test_cancels_failures_expiry_and_probes(seed: int) -> None:
    storm = Storm(seed, failures=0.1, max_size=2 + seed % 3)
    run(
        storm.last(
            ConnectionPool,
            reset=Connection.reset,
            ping=Connection.ping,
            keepalive_seconds=0.001,
            max_lifetime_seconds=0.01,
            max_idle_seconds=0.005,
        )
    )


class MappedStorm(Storm):
    """A round in which tasks keep their connections. Each awaits one thing after another.

    For one that has a connection and waits for another could wait for ever.
    """

    async def several(self) -> None:
        for _ in range(self.random.randrange(1, 4)):
            if self.random.random() < 0.5:
                await self.pool.run(self.use)
            else:
                await self.async_block()
            if self.random.random() < 0.2:
                assert isinstance(self.pool, MappedPool)
                self.pool.relinquish()

    def start(self) -> asyncio.Future[Any]:
        if self.random.random() < 0.3:
            return green.spawn(self.with_block)
        return asyncio.ensure_future(self.several())


@pytest.mark.parametrize("seed", ROUNDS)
def test_tasks_that_keep_their_connections(seed: int) -> None:
    storm = MappedStorm(seed, failures=0.1, max_size=2 + seed % 3)
    run(storm.last(MappedPool, reset=Connection.reset))


@pytest.mark.parametrize("seed", ROUNDS)
def test_tasks_that_share_connections_and_take_turns(seed: int) -> None:
    # No blocks of coroutines: those have no turns.
    storm = MappedStorm(seed, failures=0.1, max_size=2 + seed % 3)
    storm.is_shared = True
    storm.async_block = lambda: storm.pool.run(storm.use)  # type: ignore[method-assign,assignment,return-value]
    run(storm.last(MappedPool, order="least_loaded"))


class ResizedStorm(Storm):
    """A round in which the pool's size changes all the time."""

    def check(self) -> None:
        assert self.server.most_open <= self.max_size

    async def resize(self) -> None:
        while True:
            self.pool.resize(self.random.randrange(1, self.max_size + 1))
            await asyncio.sleep(0)

    async def rage(self) -> None:
        resizing = asyncio.create_task(self.resize())
        await super().rage()
        resizing.cancel()
        self.pool.resize(self.max_size)


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_pool_that_is_resized_meanwhile(seed: int) -> None:
    storm = ResizedStorm(seed, failures=0.05, max_size=6)
    run(storm.last(ConnectionPool, reset=Connection.reset))


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_pool_that_is_closed_in_the_middle(seed: int) -> None:
    storm = Storm(seed, failures=0.1, max_size=1 + seed % 5)

    async def main() -> None:
        storm.pool = storm.server.pool(storm.max_size, reset=Connection.reset)
        for _ in range(OPERATIONS):
            storm.all.append(storm.start())
            if storm.random.random() < 0.3:
                await asyncio.sleep(0)
        await storm.pool.aclose()
        for result in await asyncio.gather(*storm.all, return_exceptions=True):
            if isinstance(result, BaseException):
                assert isinstance(result, (*EXPECTED, asyncio.CancelledError, PoolClosed))
        await storm.pool.aclose()
        await eventually(lambda: not storm.server.open)
        assert storm.pool.stats().size == 0

    run(main())
