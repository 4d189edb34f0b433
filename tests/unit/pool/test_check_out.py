"""Checking out and in: the order, the limits, and who is refused."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from typing import Any

import pytest

from motorlike import green
from motorlike.errors import NotInGreenlet
from motorlike.green.threading import Event
from motorlike.pool import ConnectionPool, PoolTimeout, TooManyWaiters
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


@main
async def test_a_block_has_a_connection_and_gives_it_back() -> None:
    server = Server()
    async with server.pool(2) as pool:
        async with pool.reserve() as first, pool.reserve() as second:
            assert (first.id, second.id) == (0, 1)
            assert pool.stats().in_use == 2
        assert pool.stats().idle == 2
        assert await pool.run(Connection.use) == 0
    assert server.open == 0


@main
async def test_green_code_reserves_with_a_plain_block() -> None:
    server = Server()

    def work(pool: ConnectionPool[Connection]) -> list[int]:
        with pool.reserve() as first, pool.reserve() as second:
            return [first.use(), second.use()]

    async with server.pool(2) as pool:
        assert await green.spawn(work, pool) == [0, 1]
        assert at_rest(pool, server)


@main
async def test_a_plain_block_outside_a_greenlet_says_what_to_write() -> None:
    server = Server()
    pool = server.pool()
    with pytest.raises(NotInGreenlet, match=r"async with pool.reserve\(\)"), pool.reserve():
        pass
    with pytest.raises(NotInGreenlet, match=r"pool.check_out\(\)"):
        pool.check_out()
    assert server.attempts == 0


@main
async def test_run_passes_arguments_and_results_and_errors() -> None:
    def divide(connection: Connection, a: int, *, by: int) -> float:
        return a / by + connection.id

    async with Server().pool() as pool:
        assert await pool.run(divide, 4, by=2) == 2
        with pytest.raises(ZeroDivisionError):
            await pool.run(divide, 4, by=0)
        assert await pool.run(divide, 4, by=1) == 4


@main
async def test_a_reservation_is_for_one_block() -> None:
    async with Server().pool(2) as pool:
        reservation = pool.reserve()
        async with reservation:
            with pytest.raises(RuntimeError, match="entered before"):
                async with reservation:
                    pass
        assert pool.stats().in_use == 0


@main
async def test_lifo_takes_the_connection_that_was_used_last() -> None:
    async with Server().pool(3, order="lifo") as pool:
        await pool.fill()
        assert [await pool.run(Connection.use) for _ in range(3)] == [2, 2, 2]


@main
async def test_fifo_takes_the_connection_that_was_idle_for_longest() -> None:
    async with Server().pool(3, order="fifo") as pool:
        await pool.fill()
        assert [await pool.run(Connection.use) for _ in range(5)] == [0, 1, 2, 0, 1]


@main
async def test_a_connection_is_opened_only_if_none_is_idle() -> None:
    server = Server()
    async with server.pool(10) as pool:
        for _ in range(5):
            await pool.run(Connection.use)
        assert len(server.made) == 1


@main
async def test_those_who_wait_are_served_in_the_order_in_which_they_came() -> None:
    served: list[int] = []

    def note(_: Connection, number: int) -> None:
        served.append(number)

    async def in_block(number: int) -> None:
        async with pool.reserve():
            served.append(number)

    # With one connection, since a coroutine runs a turn after it was served.
    async with Server().pool(1) as pool:
        holding = hold(pool)
        # Green code and coroutines stand in one line.
        waiting: list[asyncio.Future[None]] = []
        for number in range(0, 200, 2):
            waiting += [pool.run(note, number), asyncio.ensure_future(in_block(number + 1))]
            await asyncio.sleep(0)
        assert pool.stats().waiting == 200
        await holding.release()
        await asyncio.gather(*waiting)
        assert served == list(range(200))


@main
async def test_newcomers_never_overtake_those_who_wait() -> None:
    served: list[int] = []
    arrivals = itertools.count()

    def work(connection: Connection, number: int) -> None:
        served.append(number)
        connection.use()

    def barge(_: object = None) -> None:
        # Comes in the very turn in which a connection is given back.
        if (number := next(arrivals)) < 2000:
            pool.run(work, number).add_done_callback(barge)

    def loop() -> None:
        # And so does this one, before any other greenlet has run.
        while (number := next(arrivals)) < 2000:
            with pool.reserve() as connection:
                work(connection, number)

    async with Server().pool(3) as pool:
        for _ in range(10):
            barge()
        await asyncio.gather(*(green.spawn(loop) for _ in range(10)))
        await eventually(lambda: not pool.stats().in_use and not pool.stats().waiting)
        assert served == sorted(served)
        assert len(served) == 2000


@main
async def test_no_more_than_max_size_are_ever_open() -> None:
    server = Server()
    server.connecting = server.closing = lambda: green.sleep(0)
    async with server.pool(7, max_lifetime_seconds=1e-9) as pool:
        # Each connection is too old when it comes back, so it is replaced.
        await asyncio.gather(*(pool.run(Connection.use) for _ in range(100)))
        assert server.most_open == 7
        assert len(server.made) == 100


@main
async def test_a_wait_ends_in_time_and_leaves_the_line() -> None:
    server = Server()
    async with server.pool(1, wait_timeout=0.01) as pool:
        holding = hold(pool)
        with pytest.raises(PoolTimeout, match=r"within 0.01 s\. Raise max_size") as caught:
            await pool.run(Connection.use)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(PoolTimeout):
            async with pool.reserve():
                pass
        assert pool.stats().waiting == 0
        assert pool.stats().timeouts == 2
        await holding.release()
        assert await pool.run(Connection.use) == 0
        assert at_rest(pool, server)


@main
async def test_a_block_may_have_a_time_of_its_own() -> None:
    async with Server().pool(1, wait_timeout=0.01) as pool:
        holding = hold(pool)

        async def wait_patiently() -> int:
            async with pool.reserve(wait_timeout=None) as connection:
                return connection.id

        patient = asyncio.create_task(wait_patiently())
        await turns()
        with pytest.raises(PoolTimeout):
            async with pool.reserve(wait_timeout=0):
                pass
        with pytest.raises(PoolTimeout):
            await pool.run(Connection.use)
        assert not patient.done()
        await holding.release()
        assert await patient == 0


@main
async def test_without_time_to_wait_nobody_who_waits_is_overtaken() -> None:
    async with Server().pool(1) as pool:
        holding = hold(pool)
        waiting = pool.run(Connection.use)
        holding.event.set()
        with pytest.raises(PoolTimeout):
            async with pool.reserve(wait_timeout=0):
                pass
        assert await waiting == 0
        await holding.release()


@main
async def test_more_than_max_waiters_are_refused_at_once() -> None:
    async with Server().pool(1, max_waiters=2) as pool:
        holding = hold(pool, 3)
        assert pool.stats().waiting == 2
        refused = pool.run(Connection.use)
        assert refused.done()
        with pytest.raises(TooManyWaiters, match=r"2 wait .* max_waiters is 2"):
            await refused
        with pytest.raises(TooManyWaiters):
            async with pool.reserve():
                pass
        await holding.release()
        assert await pool.run(Connection.use) == 0


@main
async def test_a_cancelled_waiter_is_never_handed_a_connection() -> None:
    server = Server()
    async with server.pool(1) as pool:
        holding = hold(pool)
        runs = [pool.run(Connection.use) for _ in range(3)]
        runs[1].cancel()
        assert pool.stats().waiting == 2
        await holding.release()
        assert [await runs[0], await runs[2]] == [0, 0]
        assert at_rest(pool, server)


@main
async def test_one_that_is_cancelled_after_it_was_served_passes_it_on() -> None:
    server = Server()
    async with server.pool(1) as pool:

        async def block() -> None:
            async with pool.reserve():
                raise AssertionError("it was cancelled")

        def free_and_cancel() -> None:
            with pool.reserve():
                ready.set()
                go.wait()
            # The place was handed over, and its greenlet has not run yet.
            task.cancel()
            run.cancel()

        ready, go = Event(), Event()
        freeing = green.spawn(free_and_cancel)
        assert ready.is_set()
        task = asyncio.create_task(block())
        await turns()
        run = pool.run(Connection.use)
        last = pool.run(Connection.use)
        go.set()
        await freeing
        assert await last == 0
        with pytest.raises(asyncio.CancelledError):
            await task
        assert at_rest(pool, server)


@main
async def test_a_block_that_is_cancelled_as_its_connection_arrives_does_not_keep_it() -> None:
    """For each number of loop turns between the two: at some the race is lost."""
    for count in range(8):
        server = Server()
        server.connecting = lambda count=count: [green.sleep(0) for _ in range(count)]
        async with server.pool(1) as pool:

            async def block(pool: ConnectionPool[Connection] = pool) -> None:
                async with pool.reserve():
                    await asyncio.sleep(60)

            task = asyncio.create_task(block())
            await turns(3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda pool=pool, server=server: at_rest(pool, server))
            assert await pool.run(Connection.use) >= 0


@main
async def test_a_connect_that_ignores_its_cancel_opens_a_connection_for_others() -> None:
    server = Server()

    def ignore_cancels() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            Event().wait()
        for _ in range(5):
            green.sleep(0)

    server.connecting = ignore_cancels
    async with server.pool(1) as pool:

        async def block() -> None:
            async with pool.reserve():
                raise AssertionError("it was cancelled")

        task = asyncio.create_task(block())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.stats().idle == 0
        await eventually(lambda: at_rest(pool, server))
        assert await pool.run(Connection.use) == 0


@main
async def test_an_error_that_comes_together_with_a_cancel_is_not_reported_as_lost() -> None:
    """For each number of loop turns between the two: at some both have come."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def refuse() -> None:
        go.wait()
        raise ConnectionRefusedError

    for count in range(6):
        server, go = Server(), Event()
        server.connecting = refuse
        async with server.pool(1) as pool:

            async def block(pool: ConnectionPool[Connection] = pool) -> None:
                async with pool.reserve():
                    pass

            task = asyncio.create_task(block())
            await turns()
            go.set()
            await turns(count)
            task.cancel()
            with pytest.raises((asyncio.CancelledError, ConnectionRefusedError)):
                await task
            del task
    gc.collect()
    assert reported == []


@main
async def test_check_out_and_check_in_work_without_a_block() -> None:
    server = Server()
    async with server.pool(2, reset=Connection.reset) as pool:

        def work() -> None:
            connection = pool.check_out()
            other = pool.check_out(wait_timeout=1)
            assert connection.use() != other.use()
            with pytest.raises(PoolTimeout):
                pool.check_out(wait_timeout=0)
            pool.check_in(connection)
            assert connection.resets == 1
            with pytest.raises(ValueError, match="not checked out"):
                pool.check_in(connection)
            pool.discard(other)
            with pytest.raises(ValueError, match="only once"):
                pool.discard(other)
            third = pool.check_out()
            pool.check_in(third, Broken())
            assert third.resets == (third is connection)

        await green.spawn(work)
        await eventually(lambda: at_rest(pool, server) and pool.stats().size == 2)
        assert pool.stats().broken == 2


@main
async def test_check_in_outside_a_greenlet_is_refused_only_if_it_would_have_to_wait() -> None:
    async with Server().pool() as pool, Server().pool(reset=Connection.reset) as resetting:
        pool.check_in(await green.spawn(pool.check_out))
        assert pool.stats().idle == 1
        connection = await green.spawn(resetting.check_out)
        with pytest.raises(NotInGreenlet):
            resetting.check_in(connection)
        await green.spawn(resetting.check_in, connection)
        assert resetting.stats().idle == 1
