"""Thousands of operations, a third of them cancelled at random moments.

Each operation reads back a value that nobody else has written: a reply that
reached the wrong operation would show.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from motorlike import MotorClient
from motorlike.green.hub import current_hub
from motorlike.testing.mongod import Deployment
from tests.integration.support import (
    assert_pool_is_at_rest,
    eventually,
    open_descriptors,
    pool_of,
    run,
)

POOL = 10
# Operations at a time: so many that there is always a line for the pool.
CROWD = 60
SEED = 20_260_401


class Storm:
    """Runs *count* operations, two by two, and counts how they ended."""

    def __init__(self, items: Any, count: int, seed: int) -> None:
        self.items = items
        self.numbers = iter(range(count // 2))
        self.random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.typical_seconds = 0.005

    async def run(self) -> None:
        await asyncio.gather(*(self._work() for _ in range(CROWD)))

    async def _work(self) -> None:
        for number in self.numbers:
            value = f"value {number}"
            await self._end(self.items.insert_one({"_id": number, "value": value}))
            found = await self._end(self.items.find_one({"_id": number}))
            # An insert that was cancelled may have happened or not.
            assert found in (None, {"_id": number, "value": value})

    async def _end(self, operation: asyncio.Future[Any]) -> Any:
        """Await *operation*, or cancel it at a random moment, in one of two ways."""
        started = time.monotonic()
        draw = self.random.random()
        if draw > 1 / 3:
            result = await operation
            self.typical_seconds += (time.monotonic() - started - self.typical_seconds) / 100
            self.outcomes["completed"] += 1
            return result
        delay = self.random.random() ** 2 * self.typical_seconds
        try:
            if draw > 1 / 6:
                result = await asyncio.wait_for(operation, delay)
            else:
                if delay > self.typical_seconds / 10:
                    await asyncio.sleep(delay)
                operation.cancel()
                result = await operation
        except (asyncio.CancelledError, TimeoutError):
            self.outcomes["cancelled"] += 1
            return None
        self.outcomes["completed before its cancel"] += 1
        return result


async def weather(
    client: MotorClient, database_name: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, items = current_hub(), client[database_name].items
    await asyncio.gather(*(items.find_one() for _ in range(POOL)))
    resting, descriptors = hub.suspended, open_descriptors() - len(hub.streams)
    storm = Storm(items, count, SEED)
    started = time.monotonic()
    await storm.run()
    seconds = time.monotonic() - started
    assert sum(storm.outcomes.values()) == 2 * (count // 2)
    assert storm.outcomes["cancelled"] > count / 6
    assert_pool_is_at_rest(client)
    # Only the monitors are left; every descriptor is a connection's of the
    # pool, the monitor's or its round-trip timer's.
    assert hub.suspended == resting
    assert len(pool_of(client).conns) <= POOL
    assert len(hub.streams) <= POOL + 2
    assert open_descriptors() - len(hub.streams) <= descriptors
    documents = await items.find().to_list()
    assert all(document["value"] == f"value {document['_id']}" for document in documents)
    numbers = await asyncio.gather(*(items.find_one({"_id": d["_id"]}) for d in documents[:200]))
    assert numbers == documents[:200]
    with capsys.disabled():
        print(f"\n  storm of {count}: {seconds:.1f} s, {dict(storm.outcomes)}", end=" ")


def test_a_cancel_storm_leaves_the_pool_whole_and_every_reply_with_its_operation(
    mongod_uri: str, database_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pitfalls 3 to 7, twenty thousand times."""

    async def main() -> None:
        async with MotorClient(mongod_uri, maxPoolSize=POOL) as client:
            await weather(client, database_name, 20_000, capsys)

    run(main(), timeout=120)


def test_a_cancel_storm_over_tls_leaves_the_pool_whole(
    tls_mongod: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with MotorClient(tls_mongod.uri, maxPoolSize=POOL) as client:
            await weather(client, "tls_storm", 2_000, capsys)
            await client.drop_database("tls_storm")

    run(main(), timeout=120)


def test_a_cancelled_crowd_leaves_no_greenlet_behind(mongod_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri, maxPoolSize=POOL) as client:
            await asyncio.gather(*(client.admin.command("ping") for _ in range(POOL)))
            resting = current_hub().suspended
            for _ in range(5):
                crowd = [client.admin.command("ping") for _ in range(2000)]
                assert current_hub().suspended == resting + 2000
                for operation in random.Random(SEED).sample(crowd, len(crowd)):
                    operation.cancel()
                with suppress(asyncio.CancelledError):
                    await crowd[0]
                await eventually(lambda: current_hub().suspended == resting)
                assert_pool_is_at_rest(client)

    run(main())
