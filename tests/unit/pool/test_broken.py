"""What breaks, and that it costs no place: connects, connections, resets, cancels."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from random import Random

import pytest

from motorlike import green
from motorlike.errors import NotInGreenlet
from motorlike.green.threading import Event
from motorlike.pool import ConnectionPool, PoolTimeout
from motorlike.pool.backoff import Backoff
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


def fail_with(error: BaseException) -> None:
    raise error


@main
async def test_an_exception_in_discard_on_closes_the_connection_and_passes() -> None:
    server = Server()
    async with server.pool(2, discard_on=(Broken, KeyError)) as pool:
        with pytest.raises(Broken):
            async with pool.reserve():
                raise Broken
        with pytest.raises(KeyError):
            await pool.run(lambda _: fail_with(KeyError()))
        await eventually(lambda: at_rest(pool, server))
        assert pool.stats().broken == 2
        assert 0 not in server.open_ones


@main
async def test_other_exceptions_give_the_connection_back_after_a_reset() -> None:
    server = Server()
    async with server.pool(1, reset=Connection.reset) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.reserve():
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda _: fail_with(ZeroDivisionError()))
        await pool.run(Connection.use)
        assert server.made[0].resets == 3
        assert server.open_ones == [0]


@main
async def test_a_broken_connection_is_not_reset() -> None:
    server = Server()
    async with server.pool(1, reset=Connection.reset) as pool:
        with pytest.raises(Broken):
            await pool.run(lambda _: fail_with(Broken()))
        await eventually(lambda: server.open_ones == [1])
        assert server.made[0].resets == 0


@main
async def test_a_cancelled_run_closes_its_connection_in_the_middle_of_the_reply() -> None:
    server = Server()
    async with server.pool(1) as pool:
        run = hold(pool).futures[0]
        waiting = pool.run(Connection.use)
        run.cancel()
        assert await waiting == 1
        assert server.open_ones == [1]
        assert server.most_open == 1


@main
async def test_a_cancelled_block_closes_its_connection() -> None:
    server = Server()
    async with server.pool(1, reset=Connection.reset) as pool:

        async def block() -> None:
            async with pool.reserve() as connection:
                await green.spawn(connection.use, Event().wait)

        task = asyncio.create_task(block())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await pool.run(Connection.use) == 1
        assert server.open_ones == [1]


@main
async def test_a_connection_that_was_used_outside_a_greenlet_is_not_lent_again() -> None:
    """Its request has been sent, and nobody reads the reply."""
    server = Server()
    async with server.pool(1) as pool:
        with pytest.raises(NotInGreenlet):
            async with pool.reserve() as connection:
                connection.use(lambda: green.sleep(0))
        assert await pool.run(Connection.use) == 1


@main
async def test_the_time_out_of_another_pool_says_nothing_of_this_ones_connection() -> None:
    async with Server().pool(1) as inner, Server().pool(1) as outer:
        holding = hold(inner)
        with pytest.raises(PoolTimeout):
            async with outer.reserve(), inner.reserve(wait_timeout=0):
                pass
        assert outer.stats().broken == 0
        await holding.release()


@main
async def test_a_broken_connection_wakes_the_next_in_line_who_connects() -> None:
    server = Server()
    server.connecting = lambda: green.sleep(0)
    async with server.pool(1) as pool:
        go = Event()

        def break_it(_: Connection) -> None:
            go.wait()
            raise Broken

        breaking = pool.run(break_it)
        waiting = [pool.run(Connection.use) for _ in range(3)]
        await turns()
        go.set()
        with pytest.raises(Broken):
            await breaking
        assert await asyncio.gather(*waiting) == [1, 1, 1]
        assert server.most_open == 1


@main
async def test_a_broken_connection_is_replaced_in_the_background() -> None:
    server = Server()
    async with server.pool(3) as pool:
        await pool.fill()
        broken = [pool.run(lambda _: fail_with(Broken())) for _ in range(2)]
        await asyncio.gather(*broken, return_exceptions=True)
        await eventually(lambda: pool.stats().idle == 3)
        assert server.attempts == 5
        assert server.most_open == 3


@main
async def test_replacing_goes_on_with_longer_and_longer_pauses_until_it_succeeds() -> None:
    server, times = Server(), []

    def refuse() -> None:
        times.append(time.monotonic())
        if len(times) <= 5:
            raise ConnectionRefusedError

    async with server.pool(1, backoff_seconds=(0.01, 0.04), random=Random(1)) as pool:
        with_seed = Backoff(0.01, 0.04, Random(1))
        expected = [with_seed.next_seconds() for _ in range(5)]
        await pool.fill()
        server.connecting = refuse
        with pytest.raises(Broken):
            await pool.run(lambda _: fail_with(Broken()))
        await eventually(lambda: pool.stats().idle == 1)
        pauses = [after - before for before, after in itertools.pairwise(times)]
        assert len(pauses) == 5
        assert all(pause > least - 0.002 for pause, least in zip(pauses, expected, strict=True))
        assert pool.stats().failed_connects == 5


@main
async def test_pauses_are_short_again_after_a_success() -> None:
    server = Server()

    def refuse() -> None:
        if server.attempts not in (1, 8, 10):
            raise ConnectionRefusedError

    server.connecting = refuse
    async with server.pool(1, backoff_seconds=(0.001, 100)) as pool:
        await pool.fill()
        backoff = pool._machinery.keeper._backoff
        for attempts in (8, 10):
            await green.spawn(lambda: pool.discard(pool.check_out()))
            await eventually(lambda count=attempts: server.attempts == count)
            await eventually(lambda: pool.stats().idle == 1 and backoff._next == 0.001)


@main
async def test_what_cannot_be_replaced_for_want_of_room_is_forgotten() -> None:
    server = Server()
    server.closing = lambda: green.sleep(0)
    async with server.pool(4) as pool:
        await pool.fill()
        for connection in await asyncio.gather(*(green.spawn(pool.check_out) for _ in range(2))):
            pool.discard(connection)
        pool.resize(3)
        await eventually(lambda: at_rest(pool, server) and server.attempts == 5)
        pool.resize(4)
        await green.spawn(lambda: pool.discard(pool.check_out()))
        await eventually(lambda: at_rest(pool, server) and server.attempts == 6)
        await turns(50)
        assert (server.open, server.attempts) == (3, 6)


@main
async def test_replacing_ends_with_the_pool() -> None:
    server = Server()
    async with server.pool(1, backoff_seconds=(0.001, 0.001)) as pool:
        await pool.fill()
        server.connecting = lambda: fail_with(ConnectionRefusedError())
        with pytest.raises(Broken):
            await pool.run(lambda _: fail_with(Broken()))
        await eventually(lambda: server.attempts > 4)
    attempts = server.attempts
    await asyncio.sleep(0.02)
    assert server.attempts == attempts


@main
async def test_a_replacement_that_hangs_is_given_up_and_tried_again() -> None:
    server = Server()
    async with server.pool(1, hook_timeout=0.01, backoff_seconds=(0.001, 0.001)) as pool:
        await pool.fill()
        server.connecting = Event().wait
        with pytest.raises(Broken):
            await pool.run(lambda _: fail_with(Broken()))
        await eventually(lambda: server.attempts > 3)
        server.connecting = lambda: None
        await eventually(lambda: pool.stats().idle == 1)
        assert server.most_open == 1


def test_delays_grow_to_the_cap_and_never_beyond() -> None:
    backoff = Backoff(1, 30, Random(0))
    delays = [backoff.next_seconds() for _ in range(50)]
    bounds = [min(2**n, 30) for n in range(50)]
    assert all(bound / 2 <= each <= bound for each, bound in zip(delays, bounds, strict=True))
    assert len(set(delays)) == 50
    backoff.reset()
    assert backoff.next_seconds() <= 1


@main
async def test_a_failed_connect_is_the_callers_and_costs_no_place() -> None:
    server = Server()
    server.connecting = lambda: fail_with(ConnectionRefusedError("nobody there"))
    async with server.pool(2) as pool:
        for _ in range(5):
            with pytest.raises(ConnectionRefusedError, match="nobody"):
                await pool.run(Connection.use)
            with pytest.raises(ConnectionRefusedError, match="nobody"):
                async with pool.reserve():
                    pass
        assert pool.stats().size == 0
        assert pool.stats().failed_connects == 10
        server.connecting = lambda: green.sleep(0)
        assert await asyncio.gather(*(pool.run(Connection.use) for _ in range(4)))
        assert at_rest(pool, server)


@main
async def test_a_failed_connect_lets_the_next_in_line_try() -> None:
    server = Server()

    def refuse() -> None:
        green.sleep(0)
        raise ConnectionRefusedError

    server.connecting = refuse
    async with server.pool(1) as pool:
        runs = [pool.run(Connection.use) for _ in range(20)]
        results = await asyncio.gather(*runs, return_exceptions=True)
        assert {type(each) for each in results} == {ConnectionRefusedError}
        # Each has a traceback of its own.
        assert len({id(each) for each in results}) == 20
        assert at_rest(pool, server)


@main
async def test_a_cancelled_connect_frees_its_place() -> None:
    server = Server()
    server.connecting = Event().wait
    async with server.pool(1) as pool:
        connecting = pool.run(Connection.use)
        waiting = pool.run(Connection.use)
        server.connecting = lambda: None
        connecting.cancel()
        assert await waiting == 0
        assert at_rest(pool, server)


@main
async def test_a_connect_that_returns_nothing_is_an_error_that_says_so() -> None:
    async with ConnectionPool(lambda: None, 1) as pool:
        with pytest.raises(TypeError, match="returned None"):
            await pool.run(lambda _: None)
        assert pool.stats().size == 0


@main
async def test_a_failing_reset_closes_the_connection_and_not_the_block() -> None:
    server = Server()
    server.resetting = lambda: fail_with(ValueError("no"))
    logging.getLogger("motorlike.pool").setLevel(logging.ERROR)
    try:
        async with server.pool(1, reset=Connection.reset) as pool:
            async with pool.reserve():
                pass
            assert await pool.run(Connection.use) == 1
            await eventually(lambda: pool.stats().broken == 2 and at_rest(pool, server))
    finally:
        logging.getLogger("motorlike.pool").setLevel(logging.NOTSET)


@main
async def test_a_cancel_during_the_reset_closes_the_connection() -> None:
    server = Server()
    async with server.pool(1, reset=Connection.reset) as pool:
        server.resetting = Event().wait

        async def block() -> None:
            async with pool.reserve():
                pass

        for start in (lambda: asyncio.create_task(block()), lambda: pool.run(Connection.use)):
            cancelled: asyncio.Future[object] = start()
            await turns()
            assert pool.stats().in_use == 1
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            await turns()
        server.resetting = lambda: None
        await pool.run(Connection.use)
        assert at_rest(pool, server)
        assert len(server.made) == 3


@main
async def test_closing_may_fail_or_hang_and_costs_no_place() -> None:
    server = Server()
    async with server.pool(1, hook_timeout=0.02) as pool:
        for closing in (lambda: fail_with(ValueError()), Event().wait):
            await pool.fill()
            server.closing = closing
            with pytest.raises(Broken):
                await pool.run(lambda _: fail_with(Broken()))
            assert await pool.run(Connection.use) >= 1
        server.closing = lambda: None
        assert server.most_open == 1


@main
async def test_a_ping_at_check_out_finds_a_dead_connection() -> None:
    server = Server()

    def answer() -> None:
        if server.made[-1].pings == 2:
            raise Broken

    server.pinging = answer
    async with server.pool(1, ping=Connection.ping) as pool:
        assert [await pool.run(Connection.use) for _ in range(3)] == [0, 0, 1]
        async with pool.reserve() as connection:
            assert connection.id == 1
        assert pool.stats().broken == 1
        assert server.most_open == 1


@main
async def test_a_ping_may_say_false_instead_of_failing() -> None:
    server = Server()
    async with server.pool(1, ping=lambda connection: connection.id > 0) as pool:
        assert [await pool.run(Connection.use) for _ in range(3)] == [0, 1, 1]


@main
async def test_a_cancel_during_the_ping_closes_the_connection() -> None:
    server = Server()
    async with server.pool(1, ping=Connection.ping) as pool:
        await pool.fill()
        server.pinging = Event().wait
        pinging = pool.run(Connection.use)
        server.pinging = lambda: None
        pinging.cancel()
        assert await pool.run(Connection.use) == 1
        # It was not tried again: the reply to the first ping may be on its way.
        assert server.made[0].pings == 1
        assert at_rest(pool, server)


@main
async def test_a_cancel_while_a_dead_connection_is_closed_frees_no_place_too_soon() -> None:
    server, answer = Server(), Event()
    async with server.pool(1, ping=Connection.ping) as pool:
        await pool.fill()
        server.pinging = lambda: fail_with(Broken())
        server.closing = answer.wait
        cancelled = pool.run(Connection.use)
        await turns()
        cancelled.cancel()
        waiting = pool.run(Connection.use)
        await turns()
        assert server.attempts == 1
        answer.set()
        assert await waiting == 1
        assert (server.most_open, server.open_ones) == (1, [1])
        assert at_rest(pool, server)


@main
async def test_after_a_failed_ping_a_failed_connect_costs_no_place() -> None:
    server = Server()
    async with server.pool(1, ping=Connection.ping) as pool:
        await pool.fill()
        server.pinging = lambda: fail_with(Broken())
        server.connecting = lambda: fail_with(ConnectionRefusedError())
        with pytest.raises(ConnectionRefusedError):
            await pool.run(Connection.use)
        server.pinging = server.connecting = lambda: None
        assert await pool.run(Connection.use) == 1
        assert at_rest(pool, server)
