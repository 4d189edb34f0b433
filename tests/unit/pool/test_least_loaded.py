"""Sharing: connections that several may use, the least loaded ones first."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from motorlike import green
from motorlike.green.threading import Event
from motorlike.pool import ConnectionPool
from tests.unit.pool.things import Broken, Connection, Server, at_rest, eventually, main, turns


def shared(server: Server, max_size: int) -> ConnectionPool[Connection]:
    return server.pool(max_size, order="least_loaded")


@main
async def test_nobody_waits_and_the_load_is_even() -> None:
    server, go = Server(), Event()
    server.connecting = lambda: green.sleep(0)
    loads: Counter[int] = Counter()

    def work(connection: Connection) -> None:
        loads[connection.id] += 1
        go.wait()

    async with shared(server, 4) as pool:
        runs = [pool.run(work) for _ in range(40)]
        await eventually(lambda: loads.total() == 40)
        assert pool.stats().waiting == 0
        # Those who came while all were being opened took the first that were.
        assert set(loads) == {0, 1, 2, 3}
        go.set()
        await asyncio.gather(*runs)
        go.clear()
        loads.clear()
        runs = [pool.run(work) for _ in range(40)]
        assert set(loads.values()) == {10}
        go.set()
        await asyncio.gather(*runs)
        assert at_rest(pool, server)
        assert server.most_open == 4


@main
async def test_a_coroutine_shares_at_once() -> None:
    async with shared(Server(), 1) as pool, pool.reserve() as one, pool.reserve() as two:
        assert one is two


@main
async def test_a_broken_connection_is_closed_when_its_last_user_has_gone() -> None:
    server, go = Server(), Event()

    def work(_: Connection) -> None:
        go.wait()

    async with shared(server, 2) as pool:
        runs = [pool.run(work) for _ in range(4)]
        with pytest.raises(Broken):
            async with pool.reserve() as broken:
                raise Broken
        assert not broken.is_closed
        async with pool.reserve() as other:
            assert other is not broken
        go.set()
        await asyncio.gather(*runs)
        await eventually(lambda: broken.is_closed and at_rest(pool, server))
        assert server.most_open == 2


@main
async def test_those_who_came_while_the_first_connect_fails_try_themselves() -> None:
    server, go = Server(), Event()

    def refuse_once() -> None:
        go.wait()
        if server.attempts == 1:
            raise ConnectionRefusedError

    server.connecting = refuse_once
    async with shared(server, 1) as pool:
        runs = [pool.run(lambda connection: connection.id) for _ in range(5)]
        await turns()
        assert pool.stats().waiting == 4
        go.set()
        results = await asyncio.gather(*runs, return_exceptions=True)
        assert isinstance(results[0], ConnectionRefusedError)
        assert results[1:] == [0, 0, 0, 0]
        assert at_rest(pool, server)


@main
async def test_a_connection_is_not_probed_while_others_use_it() -> None:
    server, connected, go = Server(), Event(), Event()
    server.connecting = connected.wait
    async with server.pool(1, order="least_loaded", ping=Connection.ping) as pool:
        using = pool.run(lambda connection: connection.use(go.wait))
        sharing = [pool.run(lambda connection: connection.id) for _ in range(3)]
        connected.set()
        assert await asyncio.gather(*sharing) == [0, 0, 0]
        assert await pool.run(lambda connection: connection.id) == 0
        assert server.made[0].pings == 0
        go.set()
        await using
        assert await pool.run(Connection.use) == 0
        assert server.made[0].pings == 1


@main
async def test_check_out_counts_the_users_of_one_connection() -> None:
    server = Server()
    async with shared(server, 1) as pool:

        def work() -> None:
            one, two = pool.check_out(), pool.check_out()
            assert one is two
            pool.check_in(one)
            with pool.reserve() as three:
                assert three is two
                pool.check_in(two)
                with pytest.raises(ValueError, match="not checked out"):
                    pool.check_in(two)

        await green.spawn(work)
        assert at_rest(pool, server)
