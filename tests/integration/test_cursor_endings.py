"""However a cursor ends, the server's cursor ends too, and its connection is free."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pymongo import CursorType
from pymongo.errors import InvalidOperation

from motorlike import MotorClient, MotorGridFSBucket
from motorlike.green.hub import spawn
from motorlike.testing.mongod import Deployment
from tests.integration.support import (
    CommandLog,
    assert_pool_is_at_rest,
    eventually,
    fail_point,
    open_cursors,
    pool_of,
    run,
)
from tests.integration.ways_to_read import by_iterating


@pytest.fixture
def seeded(synchronous: Any, database_name: str) -> str:
    synchronous[database_name].items.insert_many({"_id": i} for i in range(50))
    return database_name


def test_async_with_closes_the_cursor_on_the_server(
    mongod_uri: str, seeded: str, synchronous: Any
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            before = open_cursors(synchronous, seeded)
            with suppress(LookupError):
                async with client[seeded].items.find(batch_size=5) as cursor:
                    async for _ in cursor:
                        assert open_cursors(synchronous, seeded) == before + 1
                        raise LookupError
            assert log.names == ["find", "killCursors"]
            assert open_cursors(synchronous, seeded) == before
            # As in PyMongo, what had arrived can still be read.
            assert len(await cursor.to_list()) == 4
            assert not cursor.alive

    run(main())


def test_closing_a_cursor_twice_or_at_its_end_sends_nothing(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            cursor = client[seeded].items.find(batch_size=5)
            await cursor.next()
            await cursor.close()
            await cursor.close()
            assert log.names == ["find", "killCursors"]
            cursor = client[seeded].items.find()
            await cursor.to_list()
            await cursor.close()
            assert log.names == ["find", "killCursors", "find"]

    run(main())


def _in_the_hub(client: MotorClient, collect: Callable[[], None]) -> Any:
    collect()
    return asyncio.sleep(0)


def _in_a_greenlet(client: MotorClient, collect: Callable[[], None]) -> Any:
    return spawn(collect)


def _in_a_greenlet_that_holds_every_lock(client: MotorClient, collect: Callable[[], None]) -> Any:
    def locked() -> None:
        driver = client.delegate
        with driver._lock, driver._topology._lock, pool_of(client).lock:
            collect()

    return spawn(locked)


def _in_a_thread(client: MotorClient, collect: Callable[[], None]) -> Any:
    return asyncio.to_thread(collect)


@pytest.mark.parametrize(
    "where", [_in_the_hub, _in_a_greenlet, _in_a_greenlet_that_holds_every_lock, _in_a_thread]
)
def test_a_cursor_collected_midway_is_killed_on_the_server_soon(
    where: Callable[..., Any], mongod_uri: str, seeded: str, synchronous: Any
) -> None:
    """Pitfall 9: `Cursor.__del__` runs anywhere, and may only schedule."""

    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            before = open_cursors(synchronous, seeded)
            holder = [client[seeded].items.find(batch_size=5)]
            holder.append(client[seeded].items.aggregate([], batchSize=5))
            # In a cycle, so that the garbage collector itself finds them.
            holder.append(holder)  # type: ignore[arg-type]  # on purpose
            await holder[0].next()
            await holder[1].next()
            assert open_cursors(synchronous, seeded) == before + 2
            references = [holder]
            del holder

            def collect() -> None:
                references.clear()
                gc.collect()

            await where(client, collect)
            assert "killCursors" not in log.names
            await eventually(lambda: log.names.count("killCursors") == 1)
            await eventually(lambda: open_cursors(synchronous, seeded) == before)
            assert await client[seeded].items.count_documents({}) == 50
            assert_pool_is_at_rest(client)

    run(main())


def test_closing_the_client_kills_the_cursors_that_were_collected(
    mongod_uri: str, seeded: str, synchronous: Any
) -> None:
    async def main() -> None:
        before = open_cursors(synchronous, seeded)
        async with MotorClient(mongod_uri) as client:
            await client[seeded].items.find(batch_size=5).next()
            gc.collect()
        assert open_cursors(synchronous, seeded) == before

    run(main())


def test_an_exhaust_cursor_keeps_its_connection_until_it_is_closed(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri, maxPoolSize=1) as client:
            items = client[seeded].items
            cursor = items.find(cursor_type=CursorType.EXHAUST, batch_size=5, sort=[("_id", 1)])
            assert [document["_id"] async for document in cursor] == list(range(50))
            cursor = items.find(cursor_type=CursorType.EXHAUST, batch_size=5, sort=[("_id", 1)])
            assert (await cursor.next())["_id"] == 0
            assert pool_of(client).active_sockets == 1
            await cursor.close()
            # The replies that were still to come went with the connection.
            assert await items.find_one({"_id": 7}) == {"_id": 7}
            assert_pool_is_at_rest(client)

    run(main())


def test_a_cancelled_fetch_closes_its_cursor_and_the_client_goes_on(
    mongod_uri: str, seeded: str, synchronous: Any
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            before = open_cursors(synchronous, seeded)
            slow = client[seeded].items.find({"$where": "sleep(20) || true"}, batch_size=5)
            fetching = asyncio.create_task(slow.fetch())
            await asyncio.sleep(0.03)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            assert not slow.alive
            with pytest.raises(InvalidOperation):
                await slow._fetch()
            assert await client[seeded].items.find_one({"_id": 3}) == {"_id": 3}
            assert_pool_is_at_rest(client)
        await eventually(lambda: open_cursors(synchronous, seeded) == before)

    run(main())


@pytest.mark.parametrize(
    "read",
    [
        lambda cursor: cursor.next(),
        lambda cursor: cursor.fetch(),
        lambda cursor: cursor.to_list(),
        lambda cursor: cursor.to_list(3),
    ],
)
def test_documents_that_a_cancelled_fetch_lost_are_not_taken_for_the_end(
    mongod_uri: str, seeded: str, read: Callable[[Any], Any]
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            cursor = client[seeded].items.find({"$where": "sleep(20) || true"}, batch_size=2)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cursor.to_list(), 0.1)
            with pytest.raises(InvalidOperation, match="a fetch of this cursor was cancelled"):
                await read(cursor)
            await cursor.close()
            # That is the user's own end.
            assert await cursor.fetch() == []
            assert (await cursor.rewind().next())["_id"] == 0

    run(main())


def test_a_client_used_after_the_loop_of_its_cursor_leaves_the_cursor_alone(
    mongod_uri: str, seeded: str
) -> None:
    client = MotorClient(mongod_uri)

    async def start() -> Any:
        cursor = client[seeded].items.find(batch_size=5)
        await cursor.next()
        return cursor

    async def go_on(cursor: Any) -> int:
        left = len(await cursor.to_list())
        await client.close()
        return left

    cursor = asyncio.run(start())
    # The server keeps cursors apart from connections.
    assert asyncio.run(go_on(cursor)) == 49


KINDS: dict[str, Callable[[Any], Any]] = {
    "find": lambda items: items.find(sort={"_id": 1}, batch_size=5),
    "aggregate": lambda items: items.aggregate([{"$sort": {"_id": 1}}], batchSize=5),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


READ: dict[str, Callable[[Any], Any]] = {
    "async for": by_iterating,
    "next": lambda cursor: cursor.next(),
    "fetch": lambda cursor: cursor.fetch(),
    "to_list": lambda cursor: cursor.to_list(),
}


@each_kind
@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_who_waits_for_one_whose_list_is_cancelled_is_told_that_documents_are_missing(
    mongod: Deployment, seeded: str, make: Any, read: Any
) -> None:
    async def main() -> None:
        async with MotorClient(mongod.uri, appName="cut off") as client:
            cursor = make(client[seeded].items)
            async with fail_point(mongod.address, ["getMore"], appName="cut off", blockTimeMS=200):
                listing = cursor.to_list()
                waiting = asyncio.ensure_future(read(cursor))
                await asyncio.sleep(0.1)
                listing.cancel()
                with pytest.raises(InvalidOperation, match="documents are missing"):
                    await waiting
                with pytest.raises(InvalidOperation, match="documents are missing"):
                    await cursor.to_list()
            await eventually(lambda: not pool_of(client).active_sockets)

    run(main())


def test_try_next_that_is_cancelled_loses_no_batch_in_silence(
    mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod.uri, appName="cut off") as client:
            cursor = KINDS["aggregate"](client[seeded].items)
            assert len(await cursor.to_list(5)) == 5
            async with fail_point(mongod.address, ["getMore"], appName="cut off", blockTimeMS=200):
                trying = asyncio.ensure_future(cursor.try_next())
                await asyncio.sleep(0.1)
                trying.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await trying
            with pytest.raises(InvalidOperation, match="documents are missing"):
                await cursor.to_list()

    run(main())


@pytest.mark.parametrize(
    "read", [by_iterating, lambda cursor: cursor.fetch(), lambda cursor: cursor.to_list()]
)
def test_a_slice_of_nothing_is_empty_in_all_ways(mongod_uri: str, seeded: str, read: Any) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            assert await read(client[seeded].items.find()[2:2]) == []

    run(main())


@pytest.mark.parametrize("read", [lambda cursor: cursor.next(), lambda cursor: cursor.to_list(2)])
def test_one_that_is_closed_during_its_first_question_leaves_nothing_on_the_server(
    mongod: Deployment, synchronous: Any, seeded: str, read: Any
) -> None:
    async def main() -> None:
        before = open_cursors(synchronous, seeded)
        async with MotorClient(mongod.uri, appName="closed early") as client:
            for make in KINDS.values():
                cursor = make(client[seeded].items)
                async with fail_point(
                    mongod.address, ["find", "aggregate"], appName="closed early", blockTimeMS=200
                ):
                    reading = asyncio.ensure_future(read(cursor))
                    await asyncio.sleep(0.1)
                    await cursor.close()
                    await asyncio.wait([reading])
            await eventually(lambda: open_cursors(synchronous, seeded) == before)
            assert reading.exception() is None or isinstance(
                reading.exception(), InvalidOperation | StopAsyncIteration
            )

    run(main())


def test_files_are_listed_once_though_their_cursor_is_rewound(
    mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod.uri, appName="rewound") as client:
            bucket = MotorGridFSBucket(client[seeded])
            for number in range(6):
                await bucket.upload_from_stream_with_id(number, f"{number}", b"")
            for command in ("find", "getMore"):
                cursor = bucket.find(sort={"_id": 1}, batch_size=2)
                async with fail_point(
                    mongod.address, [command], appName="rewound", blockTimeMS=100
                ):
                    listing = cursor.to_list()
                    await asyncio.sleep(0.05)
                    cursor.rewind()
                    assert [file._id for file in await listing] == list(range(6))
                assert [file._id for file in await cursor.to_list()] == list(range(6))

    run(main())


@pytest.mark.parametrize("kind", ["aggregate", "find"])
def test_a_cursor_left_by_a_loop_that_stopped_hangs_nobody_on_the_next_one(
    mongod_uri: str, seeded: str, kind: str
) -> None:
    client = MotorClient(mongod_uri)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    cursor = KINDS[kind](client[seeded].items)

    async def leave() -> Any:
        await client.aconnect()
        return cursor.to_list()

    async def go_on() -> None:
        try:
            documents = await asyncio.wait_for(cursor.to_list(), 20)
        except InvalidOperation as exc:
            # The first batch had come, or a command was on its way.
            assert re.search("documents are missing|not sent twice", str(exc))
        else:
            assert len(documents) == 50

    try:
        left = first.run_until_complete(leave())
        second.run_until_complete(go_on())
        left.cancel()
        first.run_until_complete(asyncio.wait([left]))
        second.run_until_complete(client.close())
    finally:
        for loop in (first, second):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


@pytest.mark.parametrize("reads_on", [True, False])
def test_a_fetch_ahead_that_was_left_on_a_loop_that_stopped_is_missed_and_not_waited_for(
    mongod_uri: str, seeded: str, reads_on: bool
) -> None:
    client = MotorClient(mongod_uri)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    cursor = client[seeded].items.find({"$where": "sleep(20) || true"}, batch_size=5)

    async def leave() -> None:
        documents = aiter(cursor)
        # In the second batch: the third one is being read then.
        assert [(await anext(documents))["_id"] for _ in range(7)] == list(range(7))

    async def go_on() -> None:
        if reads_on:
            assert [(await cursor.next())["_id"] for _ in range(3)] == [7, 8, 9]
            with pytest.raises(InvalidOperation, match="documents are missing"):
                await asyncio.wait_for(cursor.next(), 20)
        await asyncio.wait_for(cursor.close(), 20)
        await client.close()

    try:
        first.run_until_complete(leave())
        second.run_until_complete(go_on())
    finally:
        for loop in (first, second):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
