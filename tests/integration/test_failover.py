"""A replica set that loses its primary, under load."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import AutoReconnect, PyMongoError, WriteError

from motorlike import MotorClient
from motorlike.testing.mongod import Deployment
from tests.integration.support import CommandLog, eventually, fail_point, run

APP = "test_failover"
WORKERS = 50
MAX_STALL_SECONDS = 0.1
# A call that blocks the loop does so in every failover; a machine that is too
# busy with others, or a processor shared with them, does not.
ATTEMPTS = 3
TICK_SECONDS = 0.005
# The server's error code.
PRIMARY_STEPPED_DOWN = 189


class Lag:
    """How late the loop's ticks came.

    Attributes:
        wall_seconds: The latest of them, by the clock.
        stall_seconds: The same without the time in which the loop's thread
            was ready to run and the machine ran others.
    """

    def __init__(self) -> None:
        self.wall_seconds = 0.0
        self.stall_seconds = 0.0

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        # Its debug mode extracts a stack for every future and callback.
        asyncio.get_running_loop().set_debug(False)
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        while True:
            started, waited = time.monotonic(), _seconds_ready_but_not_run()
            await asyncio.sleep(TICK_SECONDS)
            late = time.monotonic() - started - TICK_SECONDS
            waited = _seconds_ready_but_not_run() - waited
            self.wall_seconds = max(self.wall_seconds, late)
            self.stall_seconds = max(self.stall_seconds, late - waited)


def _seconds_ready_but_not_run() -> float:
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


async def insert_until(
    stop: asyncio.Event, items: Any, numbers: Any, acknowledged: list[int], errors: list[Any]
) -> None:
    while not stop.is_set():
        number = next(numbers)
        try:
            await items.insert_one({"_id": number})
        except PyMongoError as exc:
            errors.append(exc)
        else:
            acknowledged.append(number)


def test_every_acknowledged_insert_outlives_the_primary_and_the_loop_never_stalls(
    replica_set: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    stalls = []
    for _ in range(ATTEMPTS):
        lag = kill_the_primary_under_load(replica_set, capsys)
        stalls.append(lag.stall_seconds)
        if lag.stall_seconds < MAX_STALL_SECONDS:
            break
        for member in replica_set.members:
            if not member.is_running:
                member.restart()
        replica_set.wait_for_primary()
    assert min(stalls) < MAX_STALL_SECONDS


def kill_the_primary_under_load(replica_set: Deployment, capsys: pytest.CaptureFixture[str]) -> Lag:
    primary = replica_set.primary()
    lag, acknowledged, errors = Lag(), [], []

    async def main() -> list[int]:
        async with MotorClient(
            replica_set.uri, w="majority", retryWrites=True, serverSelectionTimeoutMS=30_000
        ) as client:
            items = client.failover.items
            await items.drop()
            stop = asyncio.Event()
            async with lag.measured():
                arguments = (stop, items, itertools.count(), acknowledged, errors)
                workers = [asyncio.create_task(insert_until(*arguments)) for _ in range(WORKERS)]
                await eventually(lambda: len(acknowledged) > 500)
                before = len(acknowledged)
                # In a thread: a test must not stall the loop either.
                killing = threading.Thread(target=primary.kill)
                killing.start()
                await asyncio.sleep(0.5)
                killing.join()
                await eventually(lambda: len(acknowledged) > before + 1000, seconds=40)
                stop.set()
                await asyncio.gather(*workers)
            assert client.primary not in (None, primary.address)
            found = await items.distinct("_id")
            await client.drop_database("failover")
            return found

    found = run(main(), timeout=90)
    with capsys.disabled():
        print(
            f"\n  failover: {len(acknowledged)} acknowledged, {len(errors)} errors, worst loop lag "
            f"{lag.wall_seconds * 1000:.0f} ms, of which ours {lag.stall_seconds * 1000:.0f} ms",
            end=" ",
        )
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= set(found)
    return lag


def test_a_step_down_is_survived_by_retryable_writes(replica_set: Deployment) -> None:
    async def main() -> None:
        async with MotorClient(replica_set.uri, w="majority") as client:
            items = client.failover.items
            await items.drop()
            stop, acknowledged, errors = asyncio.Event(), [], []
            arguments = (stop, items, itertools.count(), acknowledged, errors)
            workers = [asyncio.create_task(insert_until(*arguments)) for _ in range(10)]
            await eventually(lambda: len(acknowledged) > 50)
            old, before = client.primary, len(acknowledged)
            await client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=4)
            await eventually(lambda: len(acknowledged) > before + 100, seconds=30)
            stop.set()
            await asyncio.gather(*workers)
            assert client.primary != old
            # The server may tell it of the document: PyMongo does not try that again.
            told = [each for each in errors if isinstance(each, WriteError)]
            assert {each.code for each in told} <= {PRIMARY_STEPPED_DOWN}
            assert len(told) < len(workers)
            # A write is tried twice, and a busy machine may lose both to one election.
            lost = [each for each in errors if each not in told]
            assert [each for each in lost if not isinstance(each, AutoReconnect)] == []
            assert len(lost) <= 1
            assert set(acknowledged) <= set(await items.distinct("_id"))
            await client.drop_database("failover")

    run(main(), timeout=60)


def test_a_read_is_retried_once_after_a_network_error(replica_set: Deployment) -> None:
    address = replica_set.primary().address

    async def main() -> None:
        log = CommandLog()
        async with MotorClient(replica_set.uri, appName=APP, event_listeners=[log]) as client:
            await client.aconnect()
            await client.failover.items.drop()
            async with fail_point(
                address, ["find"], mode={"times": 1}, appName=APP, closeConnection=True
            ):
                assert await client.failover.items.find_one() is None
            assert log.names.count("find") == 2
            assert len(log.failed_events) == 1
            async with fail_point(
                address, ["find"], mode={"times": 2}, appName=APP, closeConnection=True
            ):
                with pytest.raises(AutoReconnect):
                    await client.failover.items.find_one()

    run(main())


def test_a_write_that_was_applied_before_its_connection_broke_is_not_applied_twice(
    replica_set: Deployment,
) -> None:
    address = replica_set.primary().address

    async def main() -> None:
        async with MotorClient(replica_set.uri, appName=APP) as client:
            items = client.failover.items
            await items.drop()
            async with fail_point(
                address, ["insert"], mode={"times": 1}, appName=APP, closeConnection=True
            ):
                await items.insert_one({"_id": 1})
            assert await items.count_documents({}) == 1
            await client.drop_database("failover")

    run(main())


def test_reads_from_secondaries_go_on_without_a_primary(replica_set: Deployment) -> None:
    primary = replica_set.primary()
    with pymongo.MongoClient(replica_set.uri, w=3) as client:
        client.failover.items.insert_one({"_id": 1})

    async def main() -> None:
        async with MotorClient(
            replica_set.uri, readPreference="secondary", serverSelectionTimeoutMS=10_000
        ) as client:
            assert await client.failover.items.find_one() == {"_id": 1}
            await asyncio.to_thread(primary.kill)
            for _ in range(50):
                assert await client.failover.items.find_one() == {"_id": 1}
                await asyncio.sleep(0.01)

    run(main(), timeout=60)
    with pymongo.MongoClient(replica_set.uri) as client:
        client.drop_database("failover")
