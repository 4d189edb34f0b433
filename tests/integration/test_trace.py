"""`green.trace` over real operations: the lines, and that nothing else changes."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

from motorlike import MotorClient, green

from .support import run


def steps_of(name: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    pattern = rf"{re.escape(name)} #(\d+) "
    own = [r.getMessage() for r in caplog.records if r.name == "motorlike.trace"]
    return [re.sub(pattern, "", line) for line in own if re.match(pattern, line)]


def test_find_one_is_traced_and_finds_the_same(
    mongod_uri: str, database_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "motorlike.trace")

    async def main() -> None:
        client: MotorClient[dict[str, Any]] = MotorClient(mongod_uri)
        things = client[database_name].things
        await things.insert_many([{"_id": n} for n in range(5)])
        found = await things.find_one({"_id": 3})
        with green.trace(slow_seconds=10):
            assert await things.find_one({"_id": 3}) == found == {"_id": 3}
            assert len(await things.find().to_list()) == 5
            await (await things.aggregate([{"$match": {}}])).to_list()
        await things.find_one()
        await client.close()

    run(main())
    waits, goes_on, ended = steps_of("Collection.find_one", caplog)
    assert re.match(r"waits in .*recv_into.* at pymongo/network_layer.py:\d+; it held", waits)
    assert re.match(r"goes on, after [\d.]+ ms in .*recv_into", goes_on)
    assert re.match(r"ended; it held the loop for [\d.]+ ms", ended)
    assert steps_of("Collection.aggregate", caplog)


def test_cancelled_and_failed_operations_leave_nothing_under_a_trace(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        client: MotorClient[dict[str, Any]] = MotorClient(mongod_uri)
        things = client[database_name].things
        await things.insert_one({"_id": 1})
        logger = logging.getLogger("test.silent")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        with green.trace(logger=logger):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await things.find_one({"$where": "sleep(300) || true"})
            results = await asyncio.gather(
                *(things.insert_one({"_id": 1}) for _ in range(20)), return_exceptions=True
            )
        assert [type(each).__name__ for each in results] == ["DuplicateKeyError"] * 20
        await client.close()

    run(main())
