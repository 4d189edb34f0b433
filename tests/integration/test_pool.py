"""PyMongo's pool, run green: its order, its limits, and its monitors."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from pymongo import monitoring
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    OperationFailure,
    WaitQueueTimeoutError,
)

from motorlike import MotorClient
from motorlike.green.hub import spawn
from motorlike.testing.mongod import Deployment
from tests.integration.proxy import Proxy
from tests.integration.support import (
    CommandLog,
    assert_pool_is_at_rest,
    eventually,
    fail_point,
    fill,
    pool_of,
    run,
)

APP = "test_pool"
POOL = 10


class PoolLog(monitoring.ConnectionPoolListener):
    """Counts what a pool reports, by the event's name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.open = 0
        self.most_open = 0

    def _log(self, event: Any) -> None:
        name = type(event).__name__
        self.names.append(name)
        self.open += (name == "ConnectionCreatedEvent") - (name == "ConnectionClosedEvent")
        self.most_open = max(self.open, self.most_open)

    pool_created = pool_ready = pool_cleared = pool_closed = _log
    connection_created = connection_ready = connection_closed = _log
    connection_check_out_started = connection_check_out_failed = _log
    connection_checked_out = connection_checked_in = _log


def numbers(log: CommandLog) -> list[int]:
    return [event.command["filter"]["_id"] for event in log.started_events]


def test_a_thousand_operations_at_once_all_end_in_the_order_in_which_they_came(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, maxPoolSize=POOL, event_listeners=[log]) as client:
            await client.aconnect()
            await fill(client)
            log.started_events.clear()
            items = client[database_name].items
            operations = [items.find_one({"_id": i}) for i in range(1000)]
            assert await asyncio.gather(*operations) == [None] * 1000
            # A command starts where its connection was checked out.
            assert numbers(log) == list(range(1000))
            assert_pool_is_at_rest(client)
            assert len(pool_of(client).conns) == POOL

    run(main())


def test_newcomers_never_overtake_those_who_wait(mongod_uri: str, database_name: str) -> None:
    """The slowest percentile would starve: each freed slot goes to the longest in line."""

    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, maxPoolSize=POOL, event_listeners=[log]) as client:
            await client.aconnect()
            await fill(client)
            log.started_events.clear()
            items, arrivals = client[database_name].items, itertools.count()

            async def worker() -> None:
                # As soon as one is done, and in that very turn, the next comes.
                while (number := next(arrivals)) < 3000:
                    await items.find_one({"_id": number})

            def barge(_: object) -> None:
                # Comes while the slot of the one that ends is on its way.
                if (number := next(arrivals)) < 3000:
                    items.find_one({"_id": number}).add_done_callback(barge)

            for _ in range(10):
                barge(None)
            await asyncio.gather(*(worker() for _ in range(40)))
            await eventually(lambda: not pool_of(client).active_sockets)
            assert numbers(log) == list(range(3000))

    run(main())


def test_an_operation_of_many_check_outs_joins_the_line_for_each(
    mongod_uri: str, database_name: str, synchronous: Any
) -> None:
    """It frees its slot and wants one again before any other greenlet has run."""
    synchronous[database_name].items.insert_many({"_id": i} for i in range(30))

    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, maxPoolSize=1, event_listeners=[log]) as client:
            await client.aconnect()
            log.started_events.clear()
            items = client[database_name].items
            listed = items.find(batch_size=2).to_list()
            others = [items.find_one({"_id": i}) for i in range(8)]
            assert await asyncio.gather(*others) == [{"_id": i} for i in range(8)]
            assert len(await listed) == 30
            assert log.names[:10] == ["find"] * 9 + ["getMore"]

    run(main())


def test_a_newcomer_to_a_pool_that_was_just_paused_is_refused_at_once(mongod_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri, maxPoolSize=1, retryReads=False) as client:
            await client.aconnect()
            pool = pool_of(client)

            def pause_and_come() -> None:
                pool.reset()
                # Those who wait have been woken, and have not run yet.
                with pytest.raises(AutoReconnect, match="paused"), pool.checkout():
                    pass
                pool.ready()

            busy = client.admin.command("sleep", 1, millis=500)
            waiting = client.admin.command("ping")
            started = time.monotonic()
            await spawn(pause_and_come)
            assert time.monotonic() - started < 0.4
            await asyncio.gather(busy, waiting, return_exceptions=True)
            assert_pool_is_at_rest(client)

    run(main())


def test_an_idle_pool_serves_at_once_and_in_order_too(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, maxPoolSize=1, event_listeners=[log]) as client:
            await client.aconnect()
            log.started_events.clear()
            operations = [client[database_name].items.find_one({"_id": i}) for i in range(50)]
            await asyncio.gather(*operations)
            assert numbers(log) == list(range(50))

    run(main())


def test_the_late_ones_get_a_wait_queue_timeout_and_nothing_leaks(mongod: Deployment) -> None:
    """Pitfall 3, by the hundred."""

    async def main() -> None:
        async with MotorClient(
            mongod.uri, appName=APP, maxPoolSize=POOL, waitQueueTimeoutMS=50, retryReads=False
        ) as client:
            await client.aconnect()
            await fill(client)
            async with fail_point(mongod.address, ["find"], appName=APP, blockTimeMS=30):
                for _ in range(3):
                    operations = [client.db.items.find_one() for _ in range(1000)]
                    results = await asyncio.gather(*operations, return_exceptions=True)
                    late = [r for r in results if isinstance(r, WaitQueueTimeoutError)]
                    assert len(late) + results.count(None) == 1000
                    assert 900 < len(late) < 1000
                    # The first come are the first served.
                    assert results[:POOL] == [None] * POOL
                    assert isinstance(results[-1], WaitQueueTimeoutError)
                    assert_pool_is_at_rest(client)
            assert await client.db.items.find_one() is None
            assert len(pool_of(client).conns) == POOL

    run(main())


def test_the_pool_never_has_more_connections_than_its_size(mongod_uri: str) -> None:
    async def main() -> None:
        log = PoolLog()
        async with MotorClient(mongod_uri, maxPoolSize=3, event_listeners=[log]) as client:
            operations = [client.admin.command("ping") for _ in range(100)]
            await asyncio.sleep(0)
            for operation in operations[::3]:
                operation.cancel()
            await asyncio.gather(*operations, return_exceptions=True)
            assert 1 <= log.most_open <= 3
            outs = log.names.count("ConnectionCheckedOutEvent")
            assert outs == log.names.count("ConnectionCheckedInEvent")
            assert outs + log.names.count("ConnectionCheckOutFailedEvent") == log.names.count(
                "ConnectionCheckOutStartedEvent"
            )
        assert log.open == 0

    run(main())


def test_at_most_max_connecting_handshakes_run_at_once(mongod: Deployment) -> None:
    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            MotorClient(proxy.uri, maxPoolSize=20, maxConnecting=3) as client,
        ):
            await client.aconnect()
            await eventually(lambda: proxy.accepted == 3)  # Two are the monitor's.
            proxy.delay_seconds = 0.05
            sleeps = [client.admin.command("sleep", 1, millis=300) for _ in range(12)]
            await asyncio.gather(*sleeps)
            assert proxy.most_waiting == 3
            assert_pool_is_at_rest(client)

    run(main())


def test_a_minimum_size_is_kept_up_by_the_monitor(mongod_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri, minPoolSize=4) as client:
            await client.aconnect()
            await eventually(lambda: len(pool_of(client).conns) == 4)
            assert_pool_is_at_rest(client)

    run(main())


def test_connections_idle_for_too_long_are_replaced(mongod_uri: str) -> None:
    async def main() -> None:
        log = PoolLog()
        async with MotorClient(mongod_uri, maxIdleTimeMS=20, event_listeners=[log]) as client:
            await client.aconnect()
            await asyncio.sleep(0.05)
            await client.aconnect()
            assert log.names.count("ConnectionCreatedEvent") == 2
            assert log.names.count("ConnectionClosedEvent") == 1

    run(main())


def test_a_failed_connect_gives_its_slot_back(mongod: Deployment) -> None:
    """Pitfall 4: or the pool would shrink for good."""

    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            MotorClient(
                proxy.uri, maxPoolSize=2, retryReads=False, serverSelectionTimeoutMS=5000
            ) as client,
        ):
            await client.aconnect()
            proxy.is_refusing = True
            for _ in range(5):
                pool_of(client).reset_without_pause()
                operations = [client.db.items.find_one() for _ in range(6)]
                refused = asyncio.gather(*operations, return_exceptions=True)
                await asyncio.sleep(0.05)
                proxy.is_refusing = False
                results = await refused
                assert any(isinstance(result, ConnectionFailure) for result in results)
                assert_pool_is_at_rest(client)
                assert await client.db.items.find_one() is None
                proxy.is_refusing = True
            proxy.is_refusing = False
            # Both slots are there: neither of two waits for the other.
            await fill(client)
            assert len(pool_of(client).conns) == 2

    run(main())


def test_a_failed_login_gives_its_slot_back(tls_mongod: Deployment) -> None:
    """Pitfall 4: the handshake's last step, which monitors do not take."""
    wrong = {**tls_mongod.client_options, "username": "nobody", "password": "wrong"}

    async def main() -> None:
        # PyMongo pauses the pool after each failure, until the next heartbeat.
        async with MotorClient(
            *tls_mongod.address, maxPoolSize=2, heartbeatFrequencyMS=500, **wrong
        ) as client:
            for _ in range(2):
                operations = [client.db.items.find_one() for _ in range(6)]
                results = await asyncio.gather(*operations, return_exceptions=True)
                assert {type(result) for result in results} <= {OperationFailure, AutoReconnect}
                assert 18 in {getattr(result, "code", None) for result in results}
                assert_pool_is_at_rest(client)

    run(main())


def test_a_connection_that_the_server_closed_while_idle_is_noticed_before_use(
    mongod: Deployment,
) -> None:
    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            MotorClient(proxy.uri, retryReads=False) as client,
        ):
            await client.aconnect()
            pool = pool_of(client)
            # Each idle connection is looked at, not only those idle for a second.
            pool._check_interval_seconds = 0
            (connection,) = pool.conns
            proxy.cut()
            await asyncio.sleep(0.05)
            assert await client.db.items.find_one() is None
            assert connection.closed

    run(main())
