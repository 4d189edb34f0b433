"""However a cursor ends, the server's cursor ends too, and its connection is free."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pymongo import CursorType
from pymongo.errors import InvalidOperation

from motorlike import MotorClient
from motorlike.green.hub import spawn
from tests.integration.support import (
    CommandLog,
    assert_pool_is_at_rest,
    eventually,
    open_cursors,
    pool_of,
    run,
)


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
