"""Operations that send together at the end of a turn, against a server.

The rules of holding are in `tests/unit/green/test_outbox.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
from pymongo.errors import AutoReconnect
from pymongo.write_concern import WriteConcern

from motorlike import MotorClient
from motorlike.green.hub import current_hub
from motorlike.green.outbox import COMPANY, Outbox
from tests.integration.support import assert_pool_is_at_rest, eventually, fail_point, run

CROWD = 30


@contextmanager
def counted_holds() -> Iterator[list[Any]]:
    """Note each stream that is held meanwhile."""
    held: list[Any] = []
    hold = Outbox.hold

    def counting(outbox: Outbox, stream: Any) -> None:
        held.append(stream)
        hold(outbox, stream)

    Outbox.hold = counting  # type: ignore[method-assign]  # nothing else sees them
    try:
        yield held
    finally:
        Outbox.hold = hold  # type: ignore[method-assign]


async def nothing_is_held() -> None:
    outbox = current_hub().outbox
    # A monitor may wait for its first answer still.
    await eventually(lambda: not outbox.awaited)
    assert outbox.held is None
    assert outbox._streams == []


def test_each_of_a_crowd_gets_its_own_answer(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri, maxPoolSize=10) as client:
            items = client[database_name].items
            await items.insert_many([{"_id": number} for number in range(CROWD)])
            with counted_holds() as held:
                for _ in range(5):
                    found = await asyncio.gather(
                        *(items.find_one({"_id": number}) for number in range(CROWD))
                    )
                    assert [document["_id"] for document in found] == list(range(CROWD))
            # All but those that began before there was company.
            assert len(held) > CROWD
            await nothing_is_held()
            assert_pool_is_at_rest(client)

    run(main())


def test_one_at_a_time_nothing_is_held(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name].items
            await items.insert_one({"_id": 1})
            with counted_holds() as held:
                for _ in range(20):
                    await items.find_one({"_id": 1})
            assert held == []

    run(main())


def test_unacknowledged_writes_in_company_are_written_though_the_client_closes(
    mongod_uri: str, database_name: str, synchronous: pymongo.MongoClient[dict[str, Any]]
) -> None:
    items = synchronous[database_name].items

    async def main() -> None:
        async with MotorClient(mongod_uri, maxPoolSize=CROWD) as client:
            await client.admin.command("ping")
            unacknowledged = client[database_name].get_collection(
                "items", write_concern=WriteConcern(w=0)
            )
            sleeping = [
                asyncio.ensure_future(client.admin.command("sleep", 1, millis=300))
                for _ in range(COMPANY + 2)
            ]
            await eventually(lambda: current_hub().outbox.awaited >= COMPANY)
            with counted_holds() as held:
                await asyncio.gather(
                    *(unacknowledged.insert_one({"_id": number}) for number in range(CROWD))
                )
            assert held
            client.close()
            await asyncio.gather(*sleeping, return_exceptions=True)
        await eventually(lambda: items.count_documents({}) == CROWD)

    run(main())


def test_a_server_that_hangs_up_on_a_crowd_is_reported_to_each(
    mongod: Any, database_name: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod.uri, retryReads=False, maxPoolSize=CROWD) as client:
            items = client[database_name].items
            await items.insert_one({"_id": 1})
            host, port = client.address
            async with fail_point((host, port), ["find"], closeConnection=True):
                results = await asyncio.gather(
                    *(items.find_one({"_id": 1}) for _ in range(CROWD)), return_exceptions=True
                )
            assert {type(each) for each in results} <= {AutoReconnect}
            found = await asyncio.gather(*(items.find_one({"_id": 1}) for _ in range(CROWD)))
            assert found == [{"_id": 1}] * CROWD
            await nothing_is_held()
            assert_pool_is_at_rest(client)

    run(main())
