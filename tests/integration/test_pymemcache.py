"""pymemcache, unchanged, run green against memcached through both kinds of pool."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import tornado.web

from motorlike import NotInGreenlet, green
from motorlike.pool import ConnectionPool, MappedPool
from tests.integration.servers import Memcached, memcached_server
from tests.integration.support import run
from tests.integration.tornado_site import visiting

VISITS = 200
POOL = 20

Client = Any  # of a module that is loaded at run time


@pytest.fixture(scope="module")
def pymemcache() -> Any:
    return green.load("pymemcache", shared=["pymemcache.exceptions"])


@pytest.fixture
def pool_of(pymemcache: Any, memcached: Memcached) -> Callable[..., Any]:
    """Make a pool of clients, as the guide does."""

    @asynccontextmanager
    async def make(
        max_size: int,
        kind: Callable[..., Any] = ConnectionPool,
        server: Memcached = memcached,
        **settings: Any,
    ) -> AsyncIterator[Any]:
        def connect() -> Client:
            client = pymemcache.Client(server.address, connect_timeout=5, timeout=5)
            client.version()
            return client

        errors = (OSError, pymemcache.MemcacheUnexpectedCloseError)
        async with kind(connect, max_size, discard_on=errors, **settings) as pool:
            yield pool

    return make


@pytest.fixture(autouse=True)
def emptied(memcached: Memcached) -> None:
    own = importlib.import_module("pymemcache")
    client = own.Client(memcached.address)
    client.flush_all(noreply=False)
    client.close()


def run_all(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(body(), timeout=60)


class CountHandler(tornado.web.RequestHandler):
    """Counts visits to a page, and keeps what was last said there."""

    def initialize(self, pool: Any) -> None:
        self.pool = pool

    async def get(self, page: str) -> None:
        text = self.get_argument("say")
        count, said = await self.pool.run(self.visit, page, text)
        self.write({"count": count, "said": said})

    @staticmethod
    def visit(client: Client, page: str, text: str) -> tuple[int, str]:
        client.add(f"count:{page}", 0, noreply=False)
        count = client.incr(f"count:{page}", 1, noreply=False)
        client.set(f"said:{page}:{text}", text.encode())
        return count, client.get(f"said:{page}:{text}").decode()


def test_200_visits_share_the_clients_of_a_pool(
    memcached: Memcached, pool_of: Callable[..., Any]
) -> None:
    before = int(memcached.stats()["total_connections"])

    async def body() -> None:
        async with pool_of(POOL) as pool:
            application = tornado.web.Application([(r"/(\w+)", CountHandler, {"pool": pool})])
            async with visiting(application, VISITS) as visit:
                paths = [f"/page{n % 10}?say=words{n}" for n in range(VISITS)]
                pages = await asyncio.gather(*(visit(path) for path in paths))
            answers = [json.loads(page.body) for page in pages]
            assert [answer["said"] for answer in answers] == [f"words{n}" for n in range(VISITS)]
            for page in range(10):
                counts = sorted(answer["count"] for answer in answers[page::10])
                assert counts == list(range(1, VISITS // 10 + 1))
            assert pool.stats().opened <= POOL

    run_all(body)
    # One more asked for the status.
    assert int(memcached.stats()["total_connections"]) - before <= POOL + 1


def test_commands_and_values_of_all_sizes(pool_of: Callable[..., Any]) -> None:
    data = bytes(range(256)) * 3900

    def work(client: Client) -> None:
        client.set("large", data, noreply=False)
        assert client.get("large") == data
        client.set_many({f"k{n}": str(n) for n in range(100)}, noreply=False)
        found = client.get_many([f"k{n}" for n in range(0, 200, 2)])
        assert found == {f"k{n}": str(n).encode() for n in range(0, 100, 2)}
        _, token = client.gets("k1")
        assert client.cas("k1", "new", token)
        assert client.cas("k1", "newer", token) is False
        assert client.delete("k1", noreply=False)
        assert client.get("k1", "none") == "none"

    async def body() -> None:
        async with pool_of(5) as pool:
            await pool.run(work)

    run_all(body)


def test_cancelling_a_command_discards_its_client_and_nobody_reads_its_answer(
    pool_of: Callable[..., Any],
) -> None:
    """pymemcache itself would keep the socket, with the answer still to come."""

    async def body() -> None:
        async with pool_of(1) as pool:
            await pool.run(lambda client: client.set("key", "late", noreply=False))
            # It has sent the command when `run` returns, and waits.
            late = pool.run(lambda client: client.get("key"))
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            assert await pool.run(lambda client: client.get("nothing", "own")) == "own"
            assert (pool.stats().broken, pool.stats().opened) == (1, 2)

    run_all(body)


def test_a_storm_of_cancels_loses_no_client_and_mixes_no_answers(
    pool_of: Callable[..., Any],
) -> None:
    chance = random.Random(2043)

    async def ask(pool: Any, number: int) -> None:
        key = f"key{number}"
        answer = pool.run(lambda client: (client.set(key, key), client.get(key)))
        if chance.random() < 0.2:
            asyncio.get_running_loop().call_later(chance.random() / 300, answer.cancel)
        try:
            assert await answer == (True, key.encode())
        except asyncio.CancelledError:
            assert answer.cancelled()

    async def ask_on(pool: Any, first: int) -> None:
        for number in range(first, first + 100):
            await ask(pool, number)

    async def body() -> None:
        async with pool_of(8) as pool:
            await asyncio.gather(*(ask_on(pool, first) for first in range(0, 1200, 100)))
            stats = pool.stats()
            assert stats.in_use == 0
            assert stats.size <= 8
            assert stats.broken > 0

    run_all(body)


def test_clients_of_a_server_that_went_away_are_discarded(
    pool_of: Callable[..., Any], pymemcache: Any
) -> None:
    async def body() -> None:
        with memcached_server() as server:
            pool_context = pool_of(2, server=server)
            pool = await pool_context.__aenter__()
            await pool.fill()
        try:
            for _ in range(3):
                with pytest.raises((OSError, pymemcache.MemcacheUnexpectedCloseError)):
                    await pool.run(lambda client: client.get("key"))
            stats = pool.stats()
            assert (stats.idle, stats.in_use) == (0, 0)
            assert stats.closed == 2
        finally:
            await pool_context.__aexit__(None, None, None)

    run_all(body)


class SessionHandler(tornado.web.RequestHandler):
    """Uses the handler's own client in several places."""

    def initialize(self, pool: Any, all_are_here: asyncio.Barrier) -> None:
        self.pool = pool
        self.all_are_here = all_are_here

    async def get(self, name: str) -> None:
        first = await self.pool.run(self.remember, name)
        # All others have a client, too, before anybody goes on.
        await self.all_are_here.wait()
        async with self.pool.reserve() as client:
            value = await green.spawn(client.get, name)
            async with self.pool.reserve() as again:
                assert again is client
        self.write({"first": first, "second": id(client), "value": value.decode()})

    @staticmethod
    def remember(client: Client, name: str) -> int:
        client.set(name, f"value of {name}", noreply=True)
        return id(client)


def test_each_handler_has_a_client_of_its_own_until_it_ends(
    memcached: Memcached, pool_of: Callable[..., Any]
) -> None:
    before = int(memcached.stats()["total_connections"])
    at_once = 25

    async def body() -> None:
        async with pool_of(at_once, MappedPool) as pool:
            given = {"pool": pool, "all_are_here": asyncio.Barrier(at_once)}
            application = tornado.web.Application([(r"/(\w+)", SessionHandler, given)])
            async with visiting(application, at_once) as visit:
                for turn in range(4):
                    names = [f"name{turn}x{n}" for n in range(at_once)]
                    pages = await asyncio.gather(*(visit(f"/{name}") for name in names))
                    answers = [json.loads(page.body) for page in pages]
                    assert all(each["first"] == each["second"] for each in answers)
                    assert len({each["first"] for each in answers}) == at_once
                    assert [each["value"] for each in answers] == [f"value of {n}" for n in names]
            assert pool.stats().in_use == 0
            assert pool.stats().opened == at_once

    run_all(body)
    assert int(memcached.stats()["total_connections"]) - before <= at_once + 1


def test_an_unacknowledged_write_is_read_on_the_same_mapped_client(
    pool_of: Callable[..., Any],
) -> None:
    async def visit(pool: Any, number: int) -> None:
        for turn in range(20):
            text = f"{number} {turn}"
            await pool.run(
                lambda client, text: client.set(f"key{number}", text, noreply=True), text
            )
            seen = await pool.run(lambda client: client.get(f"key{number}"))
            assert seen == text.encode()

    async def body() -> None:
        async with pool_of(10, MappedPool) as pool:
            await asyncio.gather(*(asyncio.create_task(visit(pool, n)) for n in range(50)))
            assert pool.stats().opened <= 10

    run_all(body)


def test_relinquished_clients_serve_the_next_task(pool_of: Callable[..., Any]) -> None:
    async def body() -> None:
        async with pool_of(1, MappedPool) as pool:
            first = await pool.run(id)
            waiting = asyncio.create_task(settle(pool))
            await asyncio.sleep(0)
            assert not waiting.done()
            pool.relinquish()
            assert await waiting == first

    async def settle(pool: Any) -> int:
        return int(await pool.run(id))

    run_all(body)


def test_many_tasks_share_few_clients_by_load(pool_of: Callable[..., Any]) -> None:
    async def visit(pool: Any, number: int) -> None:
        key = f"key{number}"
        for turn in range(5):
            await pool.run(lambda client, turn: client.set(key, str(turn), noreply=False), turn)
            assert await pool.run(lambda client: client.get(key)) == str(turn).encode()

    async def body() -> None:
        async with pool_of(4, MappedPool, order="least_loaded") as pool:
            await asyncio.gather(*(asyncio.create_task(visit(pool, n)) for n in range(100)))
            assert pool.stats().opened == 4

    run_all(body)


def test_the_driver_s_own_pool_is_green_too(pymemcache: Any, memcached: Memcached) -> None:
    async def body() -> None:
        client = pymemcache.PooledClient(memcached.address, max_pool_size=100)

        def work(number: int) -> bytes:
            client.set(f"key{number}", str(number), noreply=False)
            return bytes(client.get(f"key{number}"))

        found = await asyncio.gather(*(green.spawn(work, n) for n in range(100)))
        assert found == [str(n).encode() for n in range(100)]
        await green.spawn(client.close)

    run_all(body)


def test_errors_are_the_application_s_own_where_they_are_shared(
    pool_of: Callable[..., Any],
) -> None:
    own = importlib.import_module("pymemcache")

    async def body() -> None:
        async with pool_of(1) as pool:
            with pytest.raises(own.MemcacheIllegalInputError):
                await pool.run(lambda client: client.get("a key with blanks"))
            with pytest.raises(own.MemcacheClientError):
                await pool.run(lambda client: client.incr("number", -1, noreply=False))

    run_all(body)


def test_the_application_s_own_pymemcache_is_untouched(
    pymemcache: Any, memcached: Memcached
) -> None:
    own = importlib.import_module("pymemcache")
    assert own is sys.modules["pymemcache"]
    assert own.Client is not pymemcache.Client

    async def body() -> None:
        client = pymemcache.Client(memcached.address)
        with pytest.raises(NotInGreenlet, match=r"green\.spawn"):
            client.get("key")
        client.close()
        blocking = own.Client(memcached.address)
        assert blocking.get("key") is None
        blocking.close()

    run_all(body)
