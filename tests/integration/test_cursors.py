"""Cursors: what they give, what a batch costs, and how they end."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import bson
import pytest
from pymongo import CursorType
from pymongo.errors import InvalidOperation, OperationFailure

from motorlike import MotorClient, MotorCollection, MotorCursor, MotorLatentCommandCursor
from motorlike.green.hub import current_hub
from tests.integration.support import CommandLog, assert_pool_is_at_rest, counted_spawns, run

COUNT = 25
IDS = list(range(COUNT))


@pytest.fixture
def seeded(synchronous: Any, database_name: str) -> str:
    """The name of a database whose collection `items` has documents 0 to 24."""
    synchronous[database_name].items.insert_many({"_id": i, "n": i % 5} for i in IDS)
    return database_name


def ids(documents: list[Any]) -> list[int]:
    return [document["_id"] for document in documents]


def test_async_for_yields_every_document_in_order(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[seeded].items
            cursor = items.find().sort("_id").batch_size(10)
            assert [document["_id"] async for document in cursor] == IDS
            assert not cursor.alive
            cursor = items.aggregate([{"$sort": {"_id": 1}}], batchSize=10)
            assert [document["_id"] async for document in cursor] == IDS

    run(main())


def test_a_subclass_that_makes_its_documents_itself_is_iterated_by_that(
    mongod_uri: str, seeded: str
) -> None:
    """As umongo's cursors, which hold the one that they ask."""

    class Ids(MotorCursor[Any]):
        async def next(self) -> Any:
            return (await super().next())["_id"]

        __anext__ = next

    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            found = client[seeded].items.find(sort=[("_id", 1)], batch_size=5)
            assert [each async for each in Ids(found.delegate, found.collection)] == IDS

    run(main())


@pytest.mark.parametrize(("length", "expected"), [(None, IDS), (7, IDS[:7]), (0, []), (99, IDS)])
def test_to_list_gives_at_most_so_many(
    length: int | None, expected: list[int], mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[seeded].items
            for cursor in (
                items.find(sort=[("_id", 1)], batch_size=5),
                items.aggregate([{"$sort": {"_id": 1}}], batchSize=5),
            ):
                assert ids(await cursor.to_list(length)) == expected
                # The rest is still there.
                assert ids(await cursor.to_list()) == IDS[len(expected) :]
                await cursor.close()

    run(main())


@pytest.mark.parametrize(("length", "error"), [(-1, ValueError), ("5", TypeError)])
def test_to_list_refuses_a_length_that_is_none(
    length: Any, error: type[Exception], mongod_uri: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            with pytest.raises(error, match="length must be"):
                client.db.items.find().to_list(length)

    run(main())


def test_fetch_gives_one_batch_after_the_other(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            for cursor in (
                client[seeded].items.find(sort=[("_id", 1)], batch_size=10),
                client[seeded].items.aggregate([{"$sort": {"_id": 1}}], batchSize=10),
            ):
                batches = [ids(batch) async for batch in _batches(cursor)]
                assert [len(batch) for batch in batches] == [10, 10, 5]
                assert [i for batch in batches for i in batch] == IDS
                assert await cursor.fetch() == []

    run(main())


async def _batches(cursor: Any) -> Any:
    while batch := await cursor.fetch():
        yield batch


def test_iterating_costs_one_greenlet_and_one_command_per_batch(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            await client.aconnect()
            del log.started_events[:]
            with counted_spawns(current_hub()) as spawned:
                cursor = client[seeded].items.find(batch_size=10)
                assert len([document async for document in cursor]) == COUNT
            assert log.names == ["find", "getMore", "getMore"]
            assert len(spawned) == 3
            del log.started_events[:]
            with counted_spawns(current_hub()) as spawned:
                latent = client[seeded].items.aggregate([], batchSize=10)
                assert len([document async for document in latent]) == COUNT
            assert log.names == ["aggregate", "getMore", "getMore"]
            assert len(spawned) == 3

    run(main())


def test_to_list_is_one_greenlet_whatever_the_number_of_batches(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            with counted_spawns(current_hub()) as spawned:
                assert len(await client[seeded].items.find(batch_size=2).to_list()) == COUNT
            assert len(spawned) == 1

    run(main())


def test_a_rewound_cursor_runs_its_query_again(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            cursor = client[seeded].items.find(sort=[("_id", 1)], batch_size=4)
            assert ids(await cursor.to_list(6)) == IDS[:6]
            assert cursor.rewind() is cursor
            assert ids(await cursor.to_list(2)) == IDS[:2]
            await cursor.close()
            assert ids(await cursor.rewind().to_list()) == IDS

    run(main())


@pytest.mark.parametrize("clone", [lambda c: c.clone(), copy.copy, copy.deepcopy])
def test_a_clone_has_the_query_and_not_the_position(
    clone: Any, mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            cursor = client[seeded].items.find({"_id": {"$gt": 3}}, sort=[("_id", 1)])
            await cursor.next()
            other = clone(cursor)
            assert type(other) is type(cursor)
            assert other.collection is cursor.collection
            assert ids(await other.to_list()) == IDS[4:]
            assert ids(await cursor.to_list()) == IDS[5:]

    run(main())


def test_slices_and_indexes_limit_a_cursor(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[seeded].items
            assert ids(await items.find(sort=[("_id", 1)])[3:6].to_list()) == [3, 4, 5]
            assert ids(await items.find(sort=[("_id", 1)])[20:].to_list()) == IDS[20:]
            assert ids(await items.find(sort=[("_id", 1)])[7].to_list()) == [7]
            with pytest.raises(IndexError, match="negative index such as -1"):
                items.find()[-1]

    run(main())


def test_a_cursor_that_has_started_refuses_other_options(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            cursor = client[seeded].items.find(batch_size=5)
            await cursor.next()
            with pytest.raises(InvalidOperation):
                cursor.limit(3)
            await cursor.close()

    run(main())


def test_a_latent_cursor_sends_its_command_at_the_first_fetch(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            await client.aconnect()
            cursor = client[seeded].items.aggregate([{"$sort": {"_id": 1}}]).batch_size(10)
            assert isinstance(cursor, MotorLatentCommandCursor)
            await asyncio.sleep(0.02)
            assert log.names == ["ping"]
            assert (await cursor.next())["_id"] == 0
            assert log.names == ["ping", "aggregate"]
            assert log.started_events[-1].command["cursor"] == {"batchSize": 10}
            assert ids(await cursor.to_list()) == IDS[1:]

    run(main())


def test_a_latent_cursor_can_be_awaited_to_send_its_command_at_once(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            cursor = await client[seeded].items.aggregate([{"$sort": {"_id": 1}}])
            assert log.names == ["aggregate"]
            assert ids(await cursor.to_list()) == IDS
            async with await client[seeded].items.list_indexes() as indexes:
                assert [index["name"] async for index in indexes] == ["_id_"]

    run(main())


def test_a_latent_cursor_that_is_closed_first_never_sends_its_command(mongod_uri: str) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            cursor = client.db.items.aggregate([])
            await cursor.close()
            assert not cursor.alive
            assert [document async for document in cursor] == []
            assert log.names == []

    run(main())


def test_a_latent_cursor_sends_its_command_once_for_several_first_uses(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            cursor = client[seeded].items.aggregate([{"$sort": {"_id": 1}}])
            found = await asyncio.gather(cursor, *(cursor.next() for _ in range(3)))
            assert ids(found[1:]) == IDS[:3]
            assert log.names == ["aggregate"]

    run(main())


def test_a_latent_cursor_that_is_closed_while_its_command_runs_leaves_none_on_the_server(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            await client.aconnect()
            cursor = client[seeded].items.aggregate([], batchSize=2)
            first = asyncio.ensure_future(cursor.next())
            await asyncio.sleep(0)
            await cursor.close()
            await first
            assert log.names == ["ping", "aggregate", "killCursors"]

    run(main())


def test_an_error_of_an_aggregate_arrives_at_the_first_fetch(mongod_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items: MotorCollection = client.db.items
            for fetch in (
                lambda cursor: cursor.to_list(),
                lambda cursor: cursor.next(),
                lambda cursor: cursor.fetch(),
                lambda cursor: cursor.try_next(),
                lambda cursor: cursor,
            ):
                cursor = items.aggregate([{"$noSuchStage": 1}])
                with pytest.raises(OperationFailure, match="noSuchStage"):
                    await fetch(cursor)
            assert_pool_is_at_rest(client)

    run(main())


def test_try_next_says_none_at_the_end(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            cursor = client[seeded].items.aggregate([{"$match": {"_id": 3}}])
            assert await cursor.try_next() == {"_id": 3, "n": 3}
            assert await cursor.try_next() is None

    run(main())


def test_next_at_the_end_stops_the_iteration(mongod_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            with pytest.raises(StopAsyncIteration):
                await client.db.nothing.find().next()

    run(main())


def test_two_parallel_to_lists_on_one_client_both_end(mongod_uri: str, seeded: str) -> None:
    """Pitfall 8: an early greenlet driver deadlocked here."""

    async def main() -> None:
        for size in (1, 2, 100):
            async with MotorClient(mongod_uri, maxPoolSize=size) as client:
                items = client[seeded].items
                lists = await asyncio.gather(
                    *(items.find(sort=[("_id", 1)], batch_size=2).to_list() for _ in range(2))
                )
                assert [ids(documents) for documents in lists] == [IDS, IDS]
                assert_pool_is_at_rest(client)

    run(main())


def test_raw_batches_are_undecoded_bson(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[seeded].items
            batches = [
                [batch async for batch in items.find_raw_batches(sort=[("_id", 1)], batch_size=10)],
                [
                    batch
                    async for batch in items.aggregate_raw_batches(
                        [{"$sort": {"_id": 1}}], batchSize=10
                    )
                ],
                await items.find_raw_batches(sort=[("_id", 1)], batch_size=10).to_list(),
            ]
            for raw in batches:
                assert all(isinstance(batch, bytes) for batch in raw)
                assert ids([d for batch in raw for d in bson.decode_all(batch)]) == IDS

    run(main())


def test_a_tailable_cursor_waits_for_more(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            capped = await client[database_name].create_collection("log", capped=True, size=1 << 16)
            await capped.insert_many([{"_id": i} for i in range(3)])
            cursor = capped.find(cursor_type=CursorType.TAILABLE_AWAIT).max_await_time_ms(200)
            with pytest.raises(InvalidOperation, match="tailable"):
                cursor.to_list()
            assert [document["_id"] async for document in cursor] == [0, 1, 2]
            assert cursor.alive
            later = asyncio.create_task(_insert_later(capped, {"_id": 3}))
            seen: list[int] = []
            while cursor.alive and not seen:
                seen = [document["_id"] async for document in cursor]
            assert seen == [3]
            await later
            await cursor.close()
            assert not cursor.alive

    run(main())


async def _insert_later(collection: MotorCollection, document: dict[str, Any]) -> None:
    await asyncio.sleep(0.05)
    await collection.insert_one(document)
