"""Change streams on a replica set: they wait, resume, and end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pymongo
import pytest

from motorlike import MotorChangeStream, MotorClient
from motorlike.motor_asyncio import AsyncIOMotorChangeStream, AsyncIOMotorClient
from motorlike.testing.mongod import Deployment
from tests.integration.support import CommandLog, eventually, fail_point, run

Story = Callable[[MotorClient[dict[str, Any]], Any], Coroutine[Any, Any, None]]


@pytest.fixture
def uri(replica_set: Deployment) -> Iterator[str]:
    with pymongo.MongoClient(replica_set.uri, w="majority") as client:
        client.drop_database("streams")
        client.streams.create_collection("items")
        yield replica_set.uri
        client.drop_database("streams")


def tell(uri: str, story: Story, **options: Any) -> None:
    """Run *story* with a client and its collection."""

    async def main() -> None:
        async with MotorClient(uri, **options) as client:
            await story(client, client.streams.items)

    run(main())


def test_watching_sends_nothing_before_the_stream_is_used(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any) -> None:
        streams = [client.watch(), client.streams.watch(), items.watch()]
        assert all(type(stream) is MotorChangeStream for stream in streams)
        assert all(stream.alive and stream.resume_token is None for stream in streams)
        assert "aggregate" not in log.names
        for stream in streams:
            await stream.close()
            assert not stream.alive
        assert "aggregate" not in log.names

    tell(uri, story, event_listeners=[log])


def test_changes_come_in_order_with_a_token_each(uri: str) -> None:
    async def story(client: Any, items: Any) -> None:
        async with items.watch([{"$match": {"operationType": "insert"}}]) as stream:
            await items.insert_many([{"_id": i} for i in range(5)])
            seen = []
            async for change in stream:
                seen.append(change["documentKey"]["_id"])
                assert stream.resume_token["_data"]
                if len(seen) == 5:
                    break
            assert seen == [0, 1, 2, 3, 4]
        assert not stream.alive
        with pytest.raises(StopAsyncIteration):
            await stream.next()
        assert await stream.try_next() is None

    tell(uri, story)


def test_stream_may_be_awaited_which_opens_it(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any) -> None:
        async with await items.watch() as stream:
            assert type(stream) is MotorChangeStream
            assert log.names.count("aggregate") == 1
            await items.insert_one({"_id": 1})
            assert (await stream.next())["documentKey"] == {"_id": 1}

    tell(uri, story, event_listeners=[log])


def test_stream_is_opened_once_by_several_first_uses(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any) -> None:
        stream = items.watch(max_await_time_ms=50)
        await asyncio.gather(stream, stream, stream.try_next())
        assert log.names.count("aggregate") == 1
        await stream.close()
        assert log.names.count("killCursors") == 1

    tell(uri, story, event_listeners=[log])


@pytest.mark.parametrize("target", ["client", "database"])
def test_databases_and_clients_are_watched_too(uri: str, target: str) -> None:
    async def story(client: Any, items: Any) -> None:
        watched = client if target == "client" else client.streams
        async with watched.watch() as stream:
            await items.insert_one({"_id": 1})
            assert (await stream.next())["ns"] == {"db": "streams", "coll": "items"}

    tell(uri, story)


def test_changes_that_have_arrived_are_given_without_waiting(uri: str) -> None:
    async def story(client: Any, items: Any) -> None:
        async with items.watch() as stream:
            await items.insert_many([{"_id": i} for i in range(3)])
            first = await stream.next()
            for number in (1, 2):
                with pytest.raises(StopIteration) as returned:
                    stream.next().send(None)
                change = returned.value.value
                assert change["documentKey"] == {"_id": number}
                assert stream.resume_token == change["_id"] != first["_id"]

    tell(uri, story)


def test_try_next_gives_none_where_nothing_changed(uri: str) -> None:
    async def story(client: Any, items: Any) -> None:
        stream = items.watch(max_await_time_ms=50)
        assert await stream.try_next() is None
        await items.insert_one({"_id": 1})
        change = await stream.try_next() or await stream.try_next()
        assert change["operationType"] == "insert"
        await stream.close()

    tell(uri, story)


def test_stream_goes_on_after_a_token(uri: str) -> None:
    async def story(client: Any, items: Any) -> None:
        async with items.watch() as stream:
            await items.insert_many([{"_id": i} for i in range(3)])
            await stream.next()
            token = stream.resume_token
        later = items.watch(resume_after=token)
        assert later.resume_token == token
        async with later:
            assert (await later.next())["documentKey"] == {"_id": 1}

    tell(uri, story)


def test_stream_resumes_after_its_cursor_was_killed(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any) -> None:
        async with items.watch(max_await_time_ms=100) as stream:
            await items.insert_one({"_id": 1})
            assert (await stream.next())["documentKey"] == {"_id": 1}
            cursor = stream.delegate._cursor.cursor_id
            await client.streams.command("killCursors", "items", cursors=[cursor])
            await items.insert_one({"_id": 2})
            assert (await stream.next())["documentKey"] == {"_id": 2}
            assert stream.delegate._cursor.cursor_id != cursor
        assert log.names.count("aggregate") == 2

    tell(uri, story, event_listeners=[log])


def test_stream_resumes_after_its_connection_was_lost(uri: str, replica_set: Deployment) -> None:
    async def story(client: Any, items: Any) -> None:
        async with items.watch(max_await_time_ms=100) as stream:
            assert await stream.try_next() is None
            address = await _primary(client)
            async with fail_point(
                address, ["getMore"], mode={"times": 1}, closeConnection=True, appName="resuming"
            ):
                await items.insert_one({"_id": 1})
                assert (await stream.next())["documentKey"] == {"_id": 1}

    tell(uri, story, appname="resuming")


def test_errors_that_cannot_be_resumed_are_raised_and_close_it(uri: str) -> None:
    async def story(client: Any, items: Any) -> None:
        stream = items.watch([{"$noSuchStage": {}}])
        with pytest.raises(pymongo.errors.OperationFailure):
            await stream.next()
        with pytest.raises(pymongo.errors.OperationFailure):
            async with items.watch([{"$project": {"_id": 0}}]) as stream:
                await items.insert_one({"_id": 1})
                await stream.next()
        assert not stream.alive

    tell(uri, story)


def test_stream_ends_when_its_collection_is_dropped(uri: str) -> None:
    async def story(client: Any, items: Any) -> None:
        async with items.watch() as stream:
            await items.drop()
            kinds = [change["operationType"] async for change in stream]
        assert kinds == ["drop", "invalidate"]

    tell(uri, story)


def test_cancelling_who_waits_closes_the_stream(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any) -> None:
        stream = items.watch()
        waiting = asyncio.create_task(stream.next())
        await eventually(lambda: "getMore" in log.names)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not stream.alive
        assert await items.count_documents({}) == 0

    tell(uri, story, event_listeners=[log])


def test_closing_ends_a_loop_that_waits(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any) -> None:
        stream = items.watch()

        async def read() -> list[Any]:
            return [change async for change in stream]

        reading = asyncio.create_task(read())
        await eventually(lambda: "getMore" in log.names)
        await stream.close()
        assert await reading == []

    tell(uri, story, event_listeners=[log])


def test_fifty_streams_and_a_small_pool_leave_room_for_operations(uri: str) -> None:
    # Each holds a connection for the 50 ms that its getMore waits: 50 of them
    # take turns on five connections, and so does everything else.
    async def story(client: Any, items: Any) -> None:
        streams = [items.watch(max_await_time_ms=50) for _ in range(50)]
        readers = [asyncio.create_task(stream.next()) for stream in streams]
        await eventually(lambda: all(stream.resume_token for stream in streams), 20)
        async with asyncio.timeout(10):
            for i in range(5):
                await items.find_one({"_id": i})
        await items.insert_one({"_id": "seen"})
        changes = await asyncio.gather(*readers)
        assert {change["documentKey"]["_id"] for change in changes} == {"seen"}
        for stream in streams:
            await stream.close()

    tell(uri, story, maxPoolSize=5)


def test_session_of_motorlike_is_taken(uri: str) -> None:
    async def story(client: Any, items: Any) -> None:
        async with client.start_session() as session, items.watch(session=session) as stream:
            await items.insert_one({"_id": 1}, session=session)
            assert (await stream.next())["documentKey"] == {"_id": 1}

    tell(uri, story)


def test_streams_of_the_asyncio_family(uri: str) -> None:
    async def main() -> None:
        async with AsyncIOMotorClient(uri) as client, client.streams.items.watch() as stream:
            assert type(stream) is AsyncIOMotorChangeStream
            assert stream.get_io_loop() is asyncio.get_running_loop()

    run(main())


async def _primary(client: Any) -> tuple[str, int]:
    await client.admin.command("ping")
    address: tuple[str, int] = client.primary
    return address


def test_a_stream_that_a_loop_left_opening_is_opened_on_the_next_one(uri: str) -> None:
    client = MotorClient(uri)
    stream = client.streams.items.watch(max_await_time_ms=100)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def leave() -> asyncio.Task[Any]:
        await client.aconnect()
        # It begins in the loop's last turn, and has no answer then.
        return asyncio.create_task(stream.try_next())

    async def go_on() -> None:
        assert await asyncio.wait_for(stream.try_next(), 20) is None
        await client.streams.items.insert_one({"_id": 1})
        assert (await asyncio.wait_for(stream.next(), 20))["documentKey"] == {"_id": 1}
        await stream.close()
        await client.close()

    try:
        left = first.run_until_complete(leave())
        second.run_until_complete(go_on())
        left.cancel()
        first.run_until_complete(asyncio.wait([left]))
    finally:
        for loop in (first, second):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
