"""What the pool does by itself: probing, expiring, and keeping enough open."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from contextvars import ContextVar

import pytest

from motorlike import green
from motorlike.green.hub import current_hub
from motorlike.green.threading import Event
from motorlike.pool import ConnectionPool
from motorlike.pool.keepalive import Alarm
from motorlike.pool.shelf import Slot
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

SOON = 0.005


def the_slot(pool: ConnectionPool[Connection]) -> Slot[Connection]:
    """The only one: to let time pass for it alone."""
    (slot,) = pool._machinery.shelf.slots
    return slot


@main
async def test_idle_connections_are_probed_again_and_again() -> None:
    server = Server()
    server.pinging = lambda: green.sleep(0)
    async with server.pool(3, keepalive_seconds=SOON, ping=Connection.ping) as pool:
        await pool.fill()
        await eventually(lambda: min(each.pings for each in server.made) >= 3)
        await eventually(lambda: at_rest(pool, server))
        assert server.open_ones == [0, 1, 2]


@main
async def test_connections_in_use_are_not_probed() -> None:
    server = Server()
    async with server.pool(2, keepalive_seconds=SOON, ping=Connection.ping) as pool:
        holding = hold(pool)
        await pool.fill()
        await eventually(lambda: server.made[1].pings >= 3)
        # A probe would fail on it: it is in use.
        assert server.made[0].pings == 0
        await holding.release()
        await eventually(lambda: server.made[0].pings >= 1)


@main
async def test_a_failing_probe_costs_its_connection_and_the_keeping_goes_on() -> None:
    server = Server()

    def answer() -> None:
        green.sleep(0)
        if len(server.made) < 6:
            raise (Broken, ValueError, asyncio.CancelledError)[server.made[-1].id % 3]

    server.pinging = answer
    async with server.pool(2, keepalive_seconds=SOON, ping=Connection.ping, min_size=1) as pool:
        await pool.fill()
        await eventually(lambda: len(server.made) >= 6)
        await eventually(lambda: server.made[-1].pings > 2 and at_rest(pool, server))
        assert pool.stats().size == 2
        assert server.most_open == 2


@main
async def test_a_probe_that_hangs_is_given_up() -> None:
    server = Server()
    server.pinging = Event().wait
    async with server.pool(
        1, keepalive_seconds=SOON, ping=Connection.ping, hook_timeout=SOON
    ) as pool:
        await pool.fill()
        await eventually(lambda: server.made[0].is_closed)
        server.pinging = lambda: None
        await eventually(lambda: pool.stats().idle == 1)
        assert await pool.run(Connection.use) > 0


@main
async def test_one_who_comes_during_a_probe_gets_the_connection_after_it() -> None:
    server, answer = Server(), Event()
    async with server.pool(1, keepalive_seconds=SOON, ping=Connection.ping) as pool:
        await pool.fill()
        server.pinging = answer.wait
        await eventually(lambda: server.made[0].is_in_use)
        run = pool.run(Connection.use)
        await turns()
        assert not run.done()
        answer.set()
        assert await run == 0


@main
async def test_a_probe_is_overdue_at_check_out_if_the_loop_was_held_up() -> None:
    server = Server()
    async with server.pool(1, keepalive_seconds=60, ping=Connection.ping) as pool:
        await pool.run(Connection.use)
        await pool.run(Connection.use)
        assert server.made[0].pings == 0
        the_slot(pool).checked_at -= 60
        await pool.run(Connection.use)
        assert server.made[0].pings == 1


@main
async def test_probes_do_not_warm_up_what_nobody_uses() -> None:
    server = Server()
    async with server.pool(3, keepalive_seconds=SOON, ping=Connection.ping) as pool:
        await pool.fill()
        hot = await pool.run(Connection.use)
        for rounds in (1, 2, 3, 6):
            await eventually(
                lambda r=rounds: (
                    min(each.pings for each in server.made) >= r and pool.stats().idle == 3
                )
            )
            assert await pool.run(Connection.use) == hot


@main
async def test_idle_connections_are_closed_down_to_min_size() -> None:
    server = Server()
    async with server.pool(5, min_size=2, max_idle_seconds=SOON) as pool:
        await pool.fill()
        await eventually(lambda: server.open == 2)
        await asyncio.sleep(4 * SOON)
        assert at_rest(pool, server)
        assert (server.open, len(server.made)) == (2, 5)


@main
async def test_old_connections_are_replaced_and_those_in_use_when_they_come_back() -> None:
    server = Server()
    async with server.pool(2, min_size=2, max_lifetime_seconds=0.02) as pool:
        holding = hold(pool)
        await pool.fill()
        await eventually(lambda: 1 not in server.open_ones and server.open == 2)
        assert 0 in server.open_ones
        await holding.release()
        await eventually(lambda: 0 not in server.open_ones and server.open == 2)
        assert server.most_open == 2


@main
async def test_connections_that_were_opened_together_do_not_end_together() -> None:
    async with Server().pool(20, max_lifetime_seconds=100) as pool:
        await pool.fill()
        ends = [slot.expires_at - time.monotonic() for slot in pool._machinery.shelf.slots]
        assert len(set(ends)) == 20
        assert all(89 < end <= 100 for end in ends)


@main
async def test_an_old_connection_is_not_lent_even_if_the_loop_was_held_up() -> None:
    server = Server()
    async with server.pool(1, max_lifetime_seconds=60) as pool:
        await pool.run(Connection.use)
        the_slot(pool).expires_at -= 60
        # Its place is had at once, as if it were none.
        async with pool.reserve(wait_timeout=0) as connection:
            assert connection.id == 1
        assert (server.open_ones, server.most_open, pool.stats().broken) == ([1], 1, 0)


@main
async def test_min_size_is_opened_at_the_first_use_and_kept() -> None:
    server = Server()
    server.connecting = lambda: green.sleep(0)
    async with server.pool(5, min_size=3) as pool:
        assert server.attempts == 0
        await pool.run(Connection.use)
        await eventually(lambda: pool.stats().idle >= 3)
        breaking = [green.spawn(pool.discard, await green.spawn(pool.check_out)) for _ in range(3)]
        await asyncio.gather(*breaking)
        await eventually(lambda: at_rest(pool, server) and server.open >= 3)


@main
async def test_min_size_is_reached_when_the_server_comes_up_later() -> None:
    server = Server()

    def refuse() -> None:
        raise ConnectionRefusedError

    server.connecting = refuse
    async with server.pool(3, min_size=2, backoff_seconds=(0.001, 0.002)) as pool:
        with pytest.raises(ConnectionRefusedError):
            await pool.run(Connection.use)
        await eventually(lambda: server.attempts > 5)
        server.connecting = lambda: None
        await eventually(lambda: pool.stats().idle == 2)


@main
async def test_what_is_odd_is_logged() -> None:
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("motorlike.pool")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        server = Server()

        def fail() -> None:
            raise Broken("the server has gone")

        server.pinging = server.closing = fail
        async with server.pool(
            1, keepalive_seconds=SOON, ping=Connection.ping, backoff_seconds=(0.001, 0.001)
        ) as pool:
            await pool.fill()
            server.connecting = fail
            await eventually(lambda: server.attempts > 2)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    for text in ("failed its ping", "could not be closed", "could not replace"):
        assert any(text in each and "the server has gone" in each for each in records)


@main
async def test_a_pool_that_is_forgotten_is_collected_though_it_keeps_connections() -> None:
    server = Server()
    pool = server.pool(2, min_size=1, keepalive_seconds=60, ping=Connection.ping)
    await pool.fill()
    await turns()
    forgotten = weakref.ref(pool)
    with pytest.warns(ResourceWarning, match=r"unclosed <ConnectionPool of 2: .*aclose"):
        del pool
        gc.collect()
    assert forgotten() is None


@main
async def test_what_runs_in_the_background_is_not_in_the_context_of_a_user() -> None:
    server, seen = Server(), []
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")

    def note() -> None:
        seen.append(variable.get())

    async with server.pool(1, min_size=1) as pool:
        variable.set("a user's")
        server.connecting = server.closing = note
        await pool.run(Connection.use)
        await green.spawn(lambda: pool.discard(pool.check_out()))
        await eventually(lambda: at_rest(pool, server) and len(server.made) == 2)
    assert seen == ["nobody's"] * 4


@main
async def test_opening_min_size_does_not_exceed_max_size_if_a_user_comes_first() -> None:
    server = Server()

    def work() -> int:
        # The background begins on the loop's next turn, and this goes on.
        with pool.reserve() as connection:
            return connection.use()

    async with server.pool(1, min_size=1) as pool:
        assert await green.spawn(work) == 0
        await eventually(lambda: at_rest(pool, server))
        assert server.most_open == 1


@main
async def test_an_alarm_rings_at_the_earliest_time_that_was_set() -> None:
    class Bell:
        rung = 0

        def ring(self) -> None:
            self.rung += 1

    bells, hub = [Bell()], current_hub()
    alarm = Alarm(bells[0].ring)
    alarm.set(hub, float("inf"))
    assert not alarm.is_set
    for offset in (60, 0, 30):
        alarm.set(hub, time.monotonic() + offset)
    await eventually(lambda: bells[0].rung)
    assert not alarm.is_set
    alarm.set(hub, time.monotonic())
    alarm.cancel()
    await turns()
    assert bells[0].rung == 1
    alarm.set(hub, time.monotonic())
    bells.clear()
    # It keeps nobody alive, and does not mind.
    await eventually(lambda: not alarm.is_set)
