"""`MappedPool`: each task keeps its connection, and no task keeps it for too long."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from typing import Any

import pytest

from motorlike import green
from motorlike.errors import NotInGreenlet
from motorlike.green.threading import Event
from motorlike.pool import MappedPool, PoolClosed, PoolTimeout
from tests.unit.pool.things import Broken, Connection, Server, at_rest, eventually, main, turns


# `Any`: whatever the pool takes.
def mapped(server: Server, max_size: int = 2, **options: Any) -> MappedPool[Connection]:
    return MappedPool(server.connect, max_size, **options)


@main
async def test_a_task_keeps_its_connection_from_block_to_block() -> None:
    server = Server()

    async def task() -> set[int]:
        seen = set()
        for _ in range(5):
            async with pool.reserve() as connection:
                seen.add(connection.id)
            await asyncio.sleep(0)
            seen.add(await pool.run(Connection.use))
        return seen

    async with mapped(server, 3) as pool:
        seen = await asyncio.gather(*(asyncio.create_task(task()) for _ in range(3)))
        assert sorted(map(sorted, seen)) == [[0], [1], [2]]
        await eventually(lambda: at_rest(pool, server))


@main
async def test_a_green_callable_keeps_its_connection_until_it_ends() -> None:
    server = Server()

    def work() -> set[int]:
        seen = set()
        for _ in range(3):
            with pool.reserve() as connection:
                green.sleep(0)
                with pool.reserve() as same:
                    assert same is connection
                    seen.add(same.use())
            green.sleep(0)
        return seen

    async with mapped(server, 4) as pool:
        seen = await asyncio.gather(*(green.spawn(work) for _ in range(4)))
        assert sorted(map(sorted, seen)) == [[0], [1], [2], [3]]
        await eventually(lambda: at_rest(pool, server))
        assert len(server.made) == 4


@main
async def test_it_is_given_back_and_reset_at_the_end_of_the_task_however_that_ends() -> None:
    server = Server()
    server.resetting = lambda: green.sleep(0)

    async def task(ending: BaseException | None) -> None:
        await pool.run(Connection.use)
        if ending is not None:
            raise ending

    async with mapped(server, 1, reset=Connection.reset) as pool:
        for number, ending in enumerate([None, ValueError(), asyncio.CancelledError()], 1):
            await asyncio.wait([made := asyncio.create_task(task(ending))])
            assert made.cancelled() or made.exception() is ending
            await eventually(lambda: at_rest(pool, server))
            assert server.made[0].resets == number
        assert len(server.made) == 1


@main
async def test_relinquish_gives_it_back_earlier() -> None:
    server = Server()
    async with mapped(server, 1, wait_timeout=0) as pool:
        pool.relinquish()
        await pool.run(Connection.use)
        assert pool.stats().in_use == 1
        pool.relinquish()
        assert pool.stats().idle == 1
        await asyncio.create_task(use(pool))
        await eventually(lambda: at_rest(pool, server))
        await pool.run(Connection.use)


async def use(pool: MappedPool[Connection]) -> int:
    return await pool.run(Connection.use)


@main
async def test_relinquish_inside_a_block_waits_for_its_end() -> None:
    server = Server()
    async with mapped(server) as pool:
        async with pool.reserve() as connection:
            pool.relinquish()
            assert pool.stats().in_use == 1
            async with pool.reserve() as other:
                assert other is not connection
        assert pool.stats().idle == 1
        assert pool.stats().in_use == 1
        pool.relinquish()
        assert at_rest(pool, server)


@main
async def test_a_task_that_ends_while_its_run_goes_on_gives_back_when_that_has_ended() -> None:
    server, go = Server(), Event()
    runs: list[asyncio.Future[int]] = []

    async def task() -> None:
        runs.append(pool.run(lambda connection: connection.use(go.wait)))

    async with mapped(server, 1) as pool:
        await asyncio.create_task(task())
        waiting = asyncio.create_task(use(pool))
        await turns()
        assert pool.stats().in_use == 1
        go.set()
        assert (await runs[0], await waiting) == (0, 0)
        await eventually(lambda: at_rest(pool, server))


@main
async def test_what_a_task_runs_at_once_takes_turns() -> None:
    server = Server()
    server.connecting = lambda: green.sleep(0)

    async with mapped(server, 5) as pool:
        # A connection that is used by two at once complains.
        results = await asyncio.gather(*(pool.run(Connection.use) for _ in range(50)))
        assert set(results) == {0}
        async with pool.reserve():
            results = await asyncio.gather(*(pool.run(Connection.use) for _ in range(50)))
        assert set(results) == {0}
        pool.relinquish()
        assert at_rest(pool, server)


@main
async def test_a_broken_connection_is_replaced_for_the_next_block_of_the_task() -> None:
    server = Server()

    async with mapped(server, 2) as pool:
        with pytest.raises(Broken):
            async with pool.reserve():
                raise Broken
        assert await pool.run(Connection.use) == 1
        cancelled = pool.run(lambda connection: connection.use(Event().wait))
        after = pool.run(Connection.use)
        cancelled.cancel()
        assert await after >= 2
        assert await pool.run(Connection.use) == await after
        pool.relinquish()
        await eventually(lambda: at_rest(pool, server))
        assert server.most_open <= 2


@main
async def test_other_exceptions_leave_the_task_its_connection() -> None:
    async with mapped(Server()) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.reserve() as connection:
                raise ZeroDivisionError
        async with pool.reserve() as same:
            assert same is connection


@main
async def test_more_tasks_than_connections_wait_until_others_end() -> None:
    server = Server()

    async def task() -> int:
        first = await pool.run(Connection.use)
        await asyncio.sleep(0)
        assert await pool.run(Connection.use) == first
        return first

    async with mapped(server, 3) as pool:
        results = await asyncio.gather(*(asyncio.create_task(task()) for _ in range(60)))
        assert set(results) == {0, 1, 2}
        await eventually(lambda: at_rest(pool, server))


@main
async def test_one_who_waits_for_too_long_is_told() -> None:
    server, go = Server(), Event()
    async with mapped(server, 1, wait_timeout=0.01) as pool:
        keeping = pool.run(lambda connection: connection.use(go.wait))
        with pytest.raises(PoolTimeout):
            # Another task of this one's: no connection is left.
            await asyncio.create_task(use(pool))
        with pytest.raises(PoolTimeout, match="used by others"):
            # This one's own: its turn does not come.
            await pool.run(Connection.use)
        go.set()
        await keeping
        assert await pool.run(Connection.use) == 0
        pool.relinquish()
        assert at_rest(pool, server)


@main
async def test_one_who_will_not_wait_does_not_wait_for_a_connect_either() -> None:
    server, go = Server(), Event()
    server.connecting = go.wait
    async with mapped(server, 1) as pool:
        connecting = pool.run(Connection.use)
        await turns()
        with pytest.raises(PoolTimeout):
            async with pool.reserve(wait_timeout=0):
                pass
        go.set()
        assert await connecting == 0
        pool.relinquish()
        await eventually(lambda: at_rest(pool, server))


@main
async def test_a_task_that_is_cancelled_while_it_gets_its_connection_loses_none() -> None:
    for count in range(8):
        server = Server()
        server.connecting = lambda count=count: [green.sleep(0) for _ in range(count)]
        async with mapped(server, 1) as pool:

            async def block(pool: MappedPool[Connection] = pool) -> None:
                async with pool.reserve():
                    await asyncio.sleep(60)

            task = asyncio.create_task(block())
            await turns(3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda pool=pool, server=server: at_rest(pool, server))


@main
async def test_a_task_that_is_forgotten_gives_its_connection_back() -> None:
    server = Server()

    async def task() -> None:
        await pool.run(Connection.use)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await future

    async with mapped(server, 1) as pool:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        forgotten = asyncio.create_task(task())
        await eventually(lambda: pool.stats().in_use)
        await turns()
        del forgotten
        gc.collect()
        await eventually(lambda: pool.stats().idle == 1)


@main
async def test_a_plain_callback_has_no_connection_of_its_own() -> None:
    failed: list[BaseException] = []

    def callback() -> None:
        try:
            pool.reserve().__aenter__().send(None)
        except RuntimeError as exc:
            failed.append(exc)

    async with mapped(Server()) as pool:
        asyncio.get_running_loop().call_soon(callback)
        await turns()
        assert "belongs to a task" in str(failed[0])
        with pytest.raises(NotInGreenlet), pool.reserve():
            pass


@main
async def test_closing_takes_connections_that_tasks_do_not_use() -> None:
    server = Server()
    pool = mapped(server, 2)

    async def keep(event: asyncio.Event) -> None:
        async with pool.reserve():
            await event.wait()

    await pool.run(Connection.use)
    go = asyncio.Event()
    keeping = asyncio.create_task(keep(go))
    await turns()
    await pool.aclose()
    assert server.open_ones == [1]
    with pytest.raises(PoolClosed):
        await pool.run(Connection.use)
    go.set()
    await keeping
    await pool.aclose()
    assert server.open == 0


@main
async def test_tasks_share_a_fixed_set_of_connections_the_least_loaded_first() -> None:
    server, end = Server(), asyncio.Event()
    loads: Counter[int] = Counter()

    async def task() -> None:
        mine = await pool.run(Connection.use)
        loads[mine] += 1
        await end.wait()
        # It stays with it, and they take turns.
        for _ in range(3):
            assert await pool.run(Connection.use) == mine

    async with mapped(server, 4, order="least_loaded") as pool:
        tasks = [asyncio.create_task(task()) for _ in range(40)]
        await eventually(lambda: loads.total() == 40)
        assert loads == {0: 10, 1: 10, 2: 10, 3: 10}
        end.set()
        await asyncio.gather(*tasks)
        await eventually(lambda: at_rest(pool, server))
        assert len(server.made) == 4


@main
async def test_all_who_share_a_connection_that_breaks_get_others() -> None:
    server, end = Server(), asyncio.Event()
    ready: list[int] = []

    async def task(number: int) -> int:
        ready.append(await pool.run(Connection.use))
        if number == 0:
            with pytest.raises(Broken):
                async with pool.reserve():
                    raise Broken
            end.set()
        await end.wait()
        return await pool.run(Connection.use)

    async with mapped(server, 2, order="least_loaded") as pool:
        tasks = [asyncio.create_task(task(number)) for number in range(10)]
        results = await asyncio.gather(*tasks)
        assert 0 not in results
        await eventually(lambda: at_rest(pool, server))
        assert server.most_open == 2


@main
async def test_a_task_that_has_ended_before_its_turn_came_keeps_nothing() -> None:
    server, connected, go = Server(), Event(), Event()
    server.connecting = connected.wait
    runs: list[asyncio.Future[int]] = []

    async def task() -> None:
        runs.append(pool.run(lambda connection: connection.use(go.wait)))

    async with mapped(server, 1, order="least_loaded") as pool:
        await asyncio.create_task(task())
        await asyncio.create_task(task())
        await turns()
        connected.set()
        await turns()
        assert server.made[0].is_in_use
        # It waits for its turn on the connection that it shares.
        runs[1].cancel()
        go.set()
        assert await runs[0] == 0
        await eventually(lambda: at_rest(pool, server))


@main
async def test_green_code_that_runs_another_callable_does_not_wait_for_itself() -> None:
    server = Server()

    def outer(connection: Connection) -> tuple[int, int]:
        return connection.id, green.wait(pool.run(Connection.use))

    async with mapped(server, 2) as pool:
        assert await pool.run(outer) == (0, 1)
        pool.relinquish()
        await eventually(lambda: at_rest(pool, server))


@main
async def test_a_connect_that_ignores_its_cancel_opens_a_connection_for_others() -> None:
    server = Server()

    def ignore_cancels() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            Event().wait()
        for _ in range(5):
            green.sleep(0)

    server.connecting = ignore_cancels
    async with mapped(server, 1) as pool:

        async def block() -> None:
            async with pool.reserve():
                raise AssertionError("it was cancelled")

        task = asyncio.create_task(block())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: at_rest(pool, server) and server.open == 1)
        assert await asyncio.create_task(use(pool)) == 0
        await eventually(lambda: at_rest(pool, server))
