"""The pool as a whole: making, filling, resizing, counting, closing."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from motorlike import green
from motorlike.errors import LoopMismatch
from motorlike.green.threading import Event
from motorlike.pool import ConnectionPool, PoolClosed, PoolError
from tests.unit.pool.things import (
    Broken,
    Connection,
    Server,
    at_rest,
    eventually,
    hold,
    main,
    turns,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_size": 0}, "max_size is 0"),
        ({"min_size": 11}, "between 0 and max_size"),
        ({"min_size": -1}, "between 0 and max_size"),
        ({"order": "random"}, "'lifo', 'fifo', 'least_loaded', not 'random'"),
        ({"wait_timeout": -1}, "wait_timeout must not be negative"),
        ({"max_waiters": -1}, "max_waiters must not be negative"),
        ({"max_idle_seconds": 0}, "max_idle_seconds must be positive, not 0"),
        ({"keepalive_seconds": -3}, "keepalive_seconds must be positive"),
        ({"backoff_seconds": (2, 1)}, "backoff_seconds must be positive"),
    ],
)
def test_impossible_numbers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConnectionPool(Server().connect, **{"max_size": 10, **options})


def test_impossible_hooks_are_refused() -> None:
    with pytest.raises(TypeError, match="pass connect, or override make_connection"):
        ConnectionPool[Any]()
    with pytest.raises(TypeError, match="keepalive_seconds needs ping"):
        Server().pool(keepalive_seconds=1)
    with pytest.raises(TypeError, match="cannot be reset"):
        Server().pool(order="least_loaded", reset=Connection.reset)


@main
async def test_a_subclass_may_have_the_hooks_instead() -> None:
    server = Server()

    class Pool(ConnectionPool[Connection]):
        def make_connection(self) -> Connection:
            return server.connect()

        def ping_connection(self, connection: Connection) -> object:
            return connection.ping()

        def reset_connection(self, connection: Connection) -> None:
            connection.reset()

        def close_connection(self, connection: Connection) -> None:
            closed.append(connection.id)
            connection.close()

    closed: list[int] = []
    async with Pool(max_size=2) as pool:
        await pool.run(Connection.use)
        await pool.run(Connection.use)
        assert (server.made[0].pings, server.made[0].resets) == (1, 2)
    assert closed == [0]


@main
async def test_connections_without_a_close_method_are_let_go() -> None:
    async with ConnectionPool(object, 2) as pool:
        await pool.fill()
        assert type(await pool.run(lambda connection: connection)) is object
    assert pool.stats().closed == 2


@main
async def test_filling_opens_what_is_missing_at_once() -> None:
    server = Server()
    server.connecting = lambda: green.sleep(0)
    async with server.pool(10) as pool:
        await pool.fill(3)
        assert pool.stats().idle == 3
        await pool.fill(3)
        assert pool.stats().idle == 3
        await pool.fill()
        assert (pool.stats().idle, server.attempts) == (10, 10)
        with pytest.raises(ValueError, match="at most 10 connections, not 11"):
            await pool.fill(11)
        await green.spawn(lambda: green.wait(pool.fill()))


@main
async def test_filling_raises_what_went_wrong_and_keeps_what_went_well() -> None:
    server = Server()

    def fail_sometimes() -> None:
        green.sleep(0)
        if server.attempts % 2:
            raise Broken

    async with server.pool(2) as pool:
        server.connecting = lambda: fail_sometimes() if server.made else None
        with pytest.raises(Broken):
            server.attempts = 0
            await pool.fill(1)
            server.attempts = 0
            await pool.fill(2)
        assert at_rest(pool, server)
        assert pool.stats().idle == 1


@main
async def test_filling_serves_those_who_wait() -> None:
    server = Server()
    async with server.pool(1) as pool:
        server.connecting = Event().wait
        stuck = pool.run(Connection.use)
        waiting = pool.run(Connection.use)
        pool.resize(2)
        server.connecting = lambda: None
        await pool.fill()
        assert await waiting == 0
        stuck.cancel()


@main
async def test_a_pool_that_grows_serves_those_who_wait() -> None:
    server = Server()
    async with server.pool(1) as pool:
        holding = hold(pool, 3)
        pool.resize(3)
        await turns()
        assert pool.stats().in_use == 3
        assert sorted(await holding.release()) == [0, 1, 2]


@main
async def test_a_pool_that_shrinks_closes_idle_ones_now_and_others_on_return() -> None:
    server = Server()
    server.closing = lambda: green.sleep(0)
    async with server.pool(6) as pool:
        holding = hold(pool, 4)
        await pool.fill()
        pool.resize(2)
        await eventually(lambda: server.open == 4)
        assert pool.stats().max_size == 2
        await holding.release()
        await eventually(lambda: at_rest(pool, server))
        assert server.open == 2
        with pytest.raises(ValueError, match="max_size is 0"):
            pool.resize(0)


def test_a_pool_may_be_resized_before_its_first_use() -> None:
    server = Server()
    pool = server.pool(1, min_size=1)
    pool.resize(5)
    assert pool.stats().max_size == 5


@main
async def test_the_books_are_open() -> None:
    server = Server()
    async with server.pool(2) as pool:
        holding = hold(pool, 3)
        stats = pool.stats()
        assert (stats.size, stats.in_use, stats.idle, stats.waiting) == (2, 2, 0, 1)
        assert repr(pool) == "<ConnectionPool of 2: 2 in use, 0 idle, 1 waiting>"
        await holding.release()
        stats = pool.stats()
        assert (stats.check_outs, stats.opened, stats.closed) == (3, 2, 0)
        assert "password" not in repr(pool)
    assert pool.stats().closed == 2
    assert "(closed)" in repr(pool)


@main
async def test_closing_refuses_those_who_wait_and_closes_the_rest_on_return() -> None:
    server = Server()
    server.closing = lambda: green.sleep(0)
    pool = server.pool(2, reset=Connection.reset)
    holding = hold(pool)
    await pool.fill()
    pool.resize(1)
    waiting = [pool.run(Connection.use), asyncio.ensure_future(reserve(pool))]
    await turns()
    await pool.aclose()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in results] == [PoolClosed, PoolClosed]
    assert server.open_ones == [0]
    await holding.release()
    await pool.aclose()
    assert (server.open, pool.stats().size, server.made[0].resets) == (0, 0, 0)


async def reserve(pool: ConnectionPool[Connection]) -> None:
    async with pool.reserve():
        pass


@main
async def test_a_closed_pool_refuses_everything_and_can_be_closed_again() -> None:
    server = Server()
    pool = server.pool()
    await pool.run(Connection.use)
    await asyncio.gather(pool.aclose(), pool.aclose())
    await green.spawn(lambda: green.wait(pool.aclose()))
    with pytest.raises(PoolClosed, match="make a new pool"):
        await reserve(pool)
    with pytest.raises(PoolClosed):
        pool.run(Connection.use)
    with pytest.raises(PoolError):
        await green.spawn(pool.check_out)
    with pytest.raises(PoolClosed):
        await pool.fill()
    pool.resize(3)
    assert len(server.made) == 1


@main
async def test_connections_that_are_being_opened_while_the_pool_closes_are_closed() -> None:
    server, answer = Server(), Event()
    server.connecting = answer.wait
    pool = server.pool(3)
    opening = [pool.run(Connection.use), asyncio.ensure_future(reserve(pool))]
    filling = asyncio.ensure_future(pool.fill())
    await turns()
    await pool.aclose()
    answer.set()
    results = await asyncio.gather(*opening, return_exceptions=True)
    assert [type(each) for each in results] == [PoolClosed, PoolClosed]
    await filling
    await pool.aclose()
    assert (server.open, pool.stats().size) == (0, 0)
    assert len(server.made) == 3


@main
async def test_closing_does_not_wait_for_ever_for_a_close_that_hangs() -> None:
    server = Server()
    server.closing = Event().wait
    pool = server.pool(2, hook_timeout=0.01)
    await pool.fill()
    await pool.aclose()
    assert pool.stats().size == 0


@main
async def test_a_cancelled_close_can_be_awaited_again() -> None:
    server, answer = Server(), Event()
    server.closing = answer.wait
    pool = server.pool()
    await pool.fill()
    closing = asyncio.create_task(pool.aclose())
    await turns()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    answer.set()
    await pool.aclose()
    assert server.open == 0


def test_a_pool_is_made_without_a_loop_and_belongs_to_the_loop_of_its_first_use() -> None:
    server = Server()
    pool = server.pool()

    async def use() -> None:
        await pool.run(Connection.use)

    asyncio.run(use())
    with pytest.raises(LoopMismatch, match="one pool for each event loop"):
        asyncio.run(use())
    # Its loop has ended; so may the pool, on any.
    asyncio.run(pool.aclose())
    assert server.open == 0


def test_an_unclosed_pool_is_warned_of_and_an_unused_one_is_not() -> None:
    server = Server()

    async def use() -> None:
        await server.pool().run(Connection.use)

    with pytest.warns(ResourceWarning, match="unclosed"):
        asyncio.run(use())
        gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        server.pool()
        gc.collect()


def test_a_loop_that_ends_takes_what_is_under_way_with_it() -> None:
    server = Server()
    pool = server.pool(3, min_size=3, keepalive_seconds=0.01, ping=Connection.ping)

    async def use() -> None:
        await pool.fill()
        hold(pool, 4)
        pool.run(lambda _: green.sleep(60))

    asyncio.run(use())
    assert pool.stats().in_use == pool.stats().waiting == 0
    asyncio.run(pool.aclose())
    assert server.open == 0


@main
async def test_closing_ends_a_probe_that_hangs() -> None:
    server = Server()
    server.pinging = Event().wait
    pool = server.pool(2, keepalive_seconds=0.001, ping=Connection.ping, hook_timeout=60)
    await pool.fill()
    await eventually(lambda: server.made[0].is_in_use)
    await asyncio.wait_for(pool.aclose(), 5)
    assert (server.open, pool.stats().size, pool.stats().broken) == (0, 0, 0)


@main
async def test_closing_ends_a_replacement_that_hangs() -> None:
    server = Server()
    pool = server.pool(1, hook_timeout=60)
    await pool.fill()
    server.connecting = Event().wait
    await green.spawn(lambda: pool.discard(pool.check_out()))
    await eventually(lambda: server.attempts == 2)
    await asyncio.wait_for(pool.aclose(), 5)
    assert (server.open, pool.stats().size) == (0, 0)


@main
async def test_a_pool_that_shrinks_twice_closes_no_more_than_it_must() -> None:
    server, answer = Server(), Event()
    server.closing = answer.wait
    async with server.pool(6) as pool:
        await pool.fill()
        pool.resize(4)
        pool.resize(4)
        assert pool.stats().idle == 4
        holding = hold(pool, 4)
        pool.resize(3)
        await holding.release()
        assert pool.stats().idle == 3
        answer.set()
        await eventually(lambda: at_rest(pool, server))
