"""Cursors whose first question stands in the line of a full pool, against a server.

What they have in common with other operations is in `test_turns.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from pymongo import CursorType, ReadPreference
from pymongo.errors import InvalidOperation, OperationFailure

from motorlike import MotorClient
from motorlike.green.hub import current_hub
from tests.integration.support import CommandLog, eventually, fill, pool_of, run, run_script
from tests.integration.turns_support import (
    POOL,
    assert_at_rest,
    connected,
    has_begun,
    ids,
    sleep,
)
from tests.integration.ways_to_read import by_each, by_fetch, by_iterating, by_next

SEED = 20_261_127
ALL = [{"_id": number} for number in range(5)]


async def to_list(cursor: Any) -> list[Any]:
    found: list[Any] = await cursor.to_list()
    return found


async def awaited_first(cursor: Any) -> list[Any]:
    return await to_list(await cursor)


AWAITED = [by_iterating, by_next, by_fetch, to_list]
Make = Callable[..., Any]


def find(items: Any, batch_size: int = 2, **options: Any) -> Any:
    return items.find({}, batch_size=batch_size, sort={"_id": 1}, **options)


def aggregate(items: Any, batch_size: int = 2, **options: Any) -> Any:
    return items.aggregate([{"$sort": {"_id": 1}}], batchSize=batch_size, **options)


KINDS = [(find, read) for read in AWAITED]
KINDS += [(aggregate, read) for read in [*AWAITED, awaited_first]]
CALLED_BACK = [(make, by_each) for make in (find, aggregate)]


def of_each(kinds: list[tuple[Make, Any]]) -> pytest.MarkDecorator:
    names = [f"{make.__name__}-{read.__name__}" for make, read in kinds]
    return pytest.mark.parametrize(("make", "read"), kinds, ids=names)


each_make = pytest.mark.parametrize("make", [find, aggregate])


async def filled(client: Any, name: str) -> Any:
    items = client[name].items
    await items.insert_many(ALL)
    return items


@of_each(KINDS + CALLED_BACK)
def test_a_crowd_of_cursors_has_hardly_more_greenlets_than_connections(
    mongod_uri: str, database_name: str, make: Make, read: Any
) -> None:
    async def main() -> None:
        log, hub = CommandLog(), current_hub()
        async with connected(mongod_uri, maxPoolSize=POOL, event_listeners=[log]) as client:
            items = await filled(client, database_name)
            await fill(client)
            resting = hub.suspended
            # In one batch: for the second one a cursor stands in line in its greenlet.
            cursors = [make(items, batch_size=100, comment=number) for number in range(1, 301)]
            tasks = [asyncio.create_task(read(cursor)) for cursor in cursors]
            most = 0
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0)
                most = max(most, hub.suspended)
            assert most <= resting + POOL + 1
            assert await asyncio.gather(*tasks) == [ALL] * 300
            first = [e for e in log.started_events if e.command_name in ("find", "aggregate")]
            assert [e.command["comment"] for e in first] == list(range(1, 301))
            await eventually(lambda: hub.suspended == resting)

    run(main())


@of_each(KINDS)
def test_one_that_is_cancelled_in_line_sends_nothing_and_can_be_read_after_all(
    mongod_uri: str, database_name: str, make: Make, read: Any
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with connected(mongod_uri, event_listeners=[log]) as client:
            items = await filled(client, database_name)
            busy = sleep(client)
            cursor = make(items, comment=1)
            doomed = asyncio.create_task(read(cursor))
            await asyncio.sleep(0)
            assert pool_of(client).operation_count == 2
            doomed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doomed
            assert pool_of(client).operation_count == 1
            await busy
            assert ids(log) == []
            assert await to_list(cursor) == ALL
            # It is at its end, and nothing is missing.
            assert await to_list(cursor) == []

    run(main())


@each_make
def test_of_two_that_stand_in_line_with_one_cursor_one_is_cancelled_and_the_other_reads(
    mongod_uri: str, database_name: str, make: Make
) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client:
            items = await filled(client, database_name)
            busy = sleep(client)
            cursor = make(items)
            doomed, reading = (
                asyncio.create_task(cursor.next()),
                asyncio.create_task(by_iterating(cursor)),
            )
            await asyncio.sleep(0)
            doomed.cancel()
            assert await reading == ALL
            assert doomed.cancelled()
            await busy

    run(main())


@each_make
def test_each_reads_one_that_another_lists_or_left_in_line(
    mongod_uri: str, database_name: str, make: Make
) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client:
            items = await filled(client, database_name)
            busy = sleep(client)
            listed, left = make(items), make(items)
            listing = listed.to_list(2)
            leaving = asyncio.create_task(left.next())
            await asyncio.sleep(0)
            leaving.cancel()
            results = await asyncio.gather(listing, by_each(listed), by_each(left))
            assert results == [ALL[:2], ALL[2:], ALL]
            await busy

    run(main())


def test_try_next_of_one_that_is_closed_in_line_is_none(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client:
            items = await filled(client, database_name)
            busy = sleep(client)
            cursor = aggregate(items)
            trying = asyncio.create_task(cursor.try_next())
            await asyncio.sleep(0)
            await cursor.close()
            assert await trying is None
            assert await cursor.try_next() is None
            await busy

    run(main())


@of_each(KINDS + CALLED_BACK)
def test_one_that_is_closed_in_line_ends_and_sends_nothing(
    mongod_uri: str, database_name: str, make: Make, read: Any
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with connected(mongod_uri, event_listeners=[log]) as client:
            items = await filled(client, database_name)
            busy = sleep(client)
            cursor = make(items, comment=1)
            reading = asyncio.create_task(read(cursor))
            behind = asyncio.create_task(read(make(items, comment=2)))
            await asyncio.sleep(0)
            await cursor.close()
            assert not reading.done()
            assert await reading == []
            assert await behind == ALL
            await busy
            assert ids(log)[:1] == [2]
            assert 1 not in ids(log)

    run(main())


@pytest.mark.parametrize("read", [by_iterating, by_next, by_fetch])
def test_one_that_is_rewound_in_line_is_asked_once_and_read_from_its_start(
    mongod_uri: str, database_name: str, read: Any
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with connected(mongod_uri, event_listeners=[log]) as client:
            items = await filled(client, database_name)
            busy = sleep(client)
            cursor = find(items, comment=1)
            reading = asyncio.create_task(read(cursor))
            await asyncio.sleep(0)
            cursor.rewind()
            assert await reading == ALL
            await busy
            assert log.names.count("find") == 1

    run(main())


def test_two_that_read_one_cursor_in_line_get_each_document_once(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        for make in (find, aggregate):
            log = CommandLog()
            async with connected(mongod_uri, event_listeners=[log]) as client:
                items = await filled(client, f"{database_name}_{make.__name__}")
                busy = sleep(client)
                cursor = make(items, comment=1)
                both = await asyncio.gather(by_iterating(cursor), by_iterating(cursor))
                await busy
                assert sorted(found["_id"] for half in both for found in half) == list(range(5))
                assert log.names.count(make.__name__) == 1
                await client.drop_database(items.database.name)

    run(main())


def test_those_that_may_go_elsewhere_or_hold_a_connection_begin_at_once(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client, await client.start_session() as session:
            items = await filled(client, database_name)
            busy = sleep(client)
            begun = [
                find(items, session=session).to_list(),
                aggregate(items, session=session).to_list(),
                items.aggregate([], session).to_list(),
                find(items, cursor_type=CursorType.EXHAUST).to_list(),
                items.list_indexes().to_list(),
            ]
            assert all(map(has_begun, begun))
            queued = [find(items).to_list(), aggregate(items).to_list()]
            assert not any(map(has_begun, queued))
            await asyncio.gather(busy, *begun, *queued)

    run(main())


def test_a_line_for_the_primary_keeps_no_cursor_from_a_secondary(replica_set: Any) -> None:
    async def main() -> None:
        async with MotorClient(replica_set.uri, maxPoolSize=1) as client:
            await client.aconnect()
            nearby = client.db.items.with_options(read_preference=ReadPreference.SECONDARY)
            busy = sleep(client)
            assert has_begun(listing := find(nearby).to_list())
            assert await listing == []
            assert await aggregate(nearby).to_list() == []
            assert not busy.done()
            await busy

    run(main())


@each_make
def test_an_error_of_the_first_question_is_the_readers(
    mongod_uri: str, database_name: str, make: Make
) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client:
            items = await filled(client, database_name)
            busy = sleep(client)
            wrong = [
                asyncio.create_task(read(make(items, hint="no such index")))
                for read in (by_iterating, to_list, by_fetch)
            ]
            results = await asyncio.gather(*wrong, return_exceptions=True)
            assert [type(each).__name__ for each in results] == ["OperationFailure"] * 3
            await busy

    run(main())


def test_a_cursor_left_in_line_by_its_loop_is_read_on_the_next_one(mongod_uri: str) -> None:
    assert (
        run_script(
            """
        import asyncio, sys
        from motorlike import MotorClient

        client = MotorClient(sys.argv[1], maxPoolSize=1)
        items = client.test_turns_of_cursors.items

        async def leave():
            await client.aconnect()
            await client.drop_database("test_turns_of_cursors")
            await items.insert_many([{"_id": n} for n in range(5)])
            client.admin.command("sleep", 1, millis=500)
            cursors = [make() for make in (items.find, lambda: items.aggregate([])) * 3]
            cursors[0].to_list(), cursors[1].to_list()
            cursors[2].fetch().send(None), cursors[3].fetch().send(None)
            tasks = [asyncio.create_task(anext(cursor)) for cursor in cursors[4:]]
            await asyncio.sleep(0)
            return cursors

        async def read(cursors):
            for cursor in cursors:
                print(len(await cursor.to_list()), end=" ")
            await client.drop_database("test_turns_of_cursors")

        cursors = asyncio.run(leave())
        asyncio.run(read(cursors))
        client.close()
        """,
            mongod_uri,
        ).split()
        == ["5"] * 6
    )


@pytest.mark.parametrize("size", [1, 3])
def test_a_storm_of_cursors_cancelled_closed_and_rewound_leaves_the_line_at_rest(
    size: int, mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        chance = random.Random(SEED + size)
        hub = current_hub()
        async with connected(mongod_uri, maxPoolSize=size) as client:
            items = await filled(client, database_name)
            await fill(client)
            resting = hub.suspended
            completed = 0
            for _ in range(60):
                cursors, tasks = [], []
                for _ in range(30):
                    make, read = chance.choice(KINDS)
                    cursors.append(make(items))
                    tasks.append(asyncio.create_task(read(cursors[-1])))
                endings, rewound = [], []
                for cursor, task in zip(cursors, tasks, strict=True):
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                    what = chance.randrange(6)
                    if what == 0:
                        task.cancel()
                    elif what == 1:
                        endings.append(asyncio.create_task(cursor.close()))
                    elif what == 2 and hasattr(cursor, "rewind"):
                        rewound.append(cursor)
                        cursor.rewind()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*endings)
                completed += results.count(ALL)
                for cursor, result in zip(cursors, results, strict=True):
                    # Closed in the middle, a cursor has given what came before, or says so.
                    cut_off = (InvalidOperation, OperationFailure) if cursor.closed else ()
                    assert isinstance(result, (list, asyncio.CancelledError, *cut_off)), result
                    assert (
                        isinstance(result, BaseException)
                        or cursor in rewound
                        or result == ALL[: len(result)]
                    )
                await asyncio.gather(*(cursor.close() for cursor in cursors))
                # What PyMongo kills on the server by itself takes a connection, too.
                await eventually(
                    lambda: hub.suspended == resting and not pool_of(client).active_sockets
                )
                assert_at_rest(client)
            assert completed > 600

    run(main(), timeout=120)
