"""While a batch is iterated, the next one is fetched: when, and how that ends."""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import random
import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import bson
import pymongo
import pytest
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo import CursorType
from pymongo.errors import InvalidOperation, OperationFailure

from motorlike import MotorClient, MotorGridFSBucket, MotorGridOut, ahead, pace
from motorlike.driver import packed
from motorlike.green.hub import current_hub
from motorlike.green.stream import GreenStream
from motorlike.pace import Pace
from motorlike.testing.mongod import Deployment
from tests.integration.support import (
    CommandLog,
    assert_pool_is_at_rest,
    eventually,
    fail_point,
    open_cursors,
    pool_of,
    run,
    run_script,
)
from tests.integration.ways_to_read import (
    Way,
    by_each,
    by_fetch,
    by_fetch_next,
    by_iterating,
    by_next,
    by_to_list,
    by_try_next,
)

BATCH = 5
IDS = list(range(28))
# In the second batch: the third one is being read then.
MIDWAY = IDS[:7]
APP = "reads ahead"
SEED = 20_261_127


@pytest.fixture(autouse=True, params=[True, False], ids=["packed", "decoded"])
def packs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether batches that are read ahead are decoded later, also where commands are logged."""
    if request.param:
        monkeypatch.setattr(packed, "_is_watched", lambda client: False)
    chosen: bool = request.param
    return chosen


@pytest.fixture
def seeded(synchronous: Any, database_name: str) -> str:
    """The name of a database whose collection `items` has documents 0 to 27."""
    synchronous[database_name].items.insert_many({"_id": i} for i in IDS)
    return database_name


class Reading:
    """A client, the commands that it sent, and cursors over all documents."""

    def __init__(self, uri: str, database: str, **options: Any) -> None:
        self.log = CommandLog()
        self.client = MotorClient(uri, event_listeners=[self.log], appname=APP, **options)
        self.items = self.client[database].items

    def find(self, **options: Any) -> Any:
        return self.items.find(sort=[("_id", 1)], batch_size=BATCH, **options)

    def aggregate(self, **options: Any) -> Any:
        return self.items.aggregate([{"$sort": {"_id": 1}}], batchSize=BATCH, **options)

    @property
    def fetches(self) -> int:
        return self.log.names.count("getMore")


@asynccontextmanager
async def reading(uri: str, database: str, **options: Any) -> AsyncIterator[Reading]:
    made = Reading(uri, database, **options)
    async with made.client:
        await made.client.aconnect()
        yield made
        assert_pool_is_at_rest(made.client)


async def take(cursor: Any, count: int) -> list[int]:
    """Iterate over *count* documents, and break the iteration off."""
    found: list[int] = []
    async for document in cursor:
        found.append(document["_id"])
        if len(found) == count:
            break
    return found


WAYS = [by_iterating, by_next, by_fetch, by_to_list, by_each, by_fetch_next]


def slowly(mongod: Deployment, after: int = 1, milliseconds: int = 200, **how: Any) -> Any:
    """Let the fetches *after* the first ones wait on the server, or fail."""
    data = how or {"blockTimeMS": milliseconds}
    return fail_point(mongod.address, ["getMore"], mode={"skip": after}, appName=APP, **data)


def test_the_next_batch_is_asked_for_when_a_later_batch_begins(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            for cursor in (r.find(), r.aggregate(), await r.aggregate()):
                del r.log.started_events[:]
                asked = []
                async for document in cursor:
                    # A document is for whoever iterates, and so is the time.
                    await asyncio.sleep(0)
                    asked.append((document["_id"], r.fetches))
                assert [number for number, _ in asked] == IDS
                # Of the first batch many iterations want no more.
                assert {fetches for number, fetches in asked if number < BATCH} == {0}
                assert {fetches for number, fetches in asked if BATCH <= number < 2 * BATCH} == {2}
                assert all(fetches <= number // BATCH + 1 for number, fetches in asked)
                assert r.fetches == 5

    run(main())


def test_an_iteration_that_ends_in_its_first_batch_asks_for_no_other(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            async with r.find() as cursor:
                assert await take(cursor, BATCH) == IDS[:BATCH]
            assert r.log.names == ["ping", "find", "killCursors"]

    run(main())


@pytest.mark.parametrize("how", ["find", "aggregate"])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("way", [*WAYS, by_try_next])
def test_documents_that_were_read_ahead_come_in_order_however_one_goes_on(
    way: Way, waits: bool, how: str, mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        if how == "find" and way is by_try_next:
            return
        async with reading(mongod.uri, seeded) as r, slowly(mongod, milliseconds=30):
            cursor = getattr(r, how)()
            assert await take(cursor, len(MIDWAY)) == MIDWAY
            if waits:
                await eventually(lambda: len(r.log.succeeded_events) == 4)
            assert cursor.alive
            assert [document["_id"] for document in await way(cursor)] == IDS[len(MIDWAY) :]
            assert not cursor.alive

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"cursor_type": CursorType.TAILABLE},
        {"cursor_type": CursorType.TAILABLE_AWAIT},
        {"cursor_type": CursorType.EXHAUST},
    ],
)
def test_nothing_is_read_ahead_of_a_cursor_that_waits_or_holds_its_connection(
    options: dict[str, Any], mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, database_name) as r:
            capped = await r.client[database_name].create_collection(
                "items", capped=True, size=1 << 16
            )
            await capped.insert_many([{"_id": number} for number in IDS])
            cursor = capped.find(batch_size=BATCH, **options)
            assert await take(cursor, len(MIDWAY)) == MIDWAY
            assert cursor._batch.done()
            assert not cursor._held
            await cursor.close()

    run(main())


@asynccontextmanager
async def _timeout(r: Reading) -> AsyncIterator[dict[str, Any]]:
    with pymongo.timeout(20):
        yield {}


@asynccontextmanager
async def _session(r: Reading) -> AsyncIterator[dict[str, Any]]:
    async with r.client.start_session() as session:
        yield {"session": session}


@asynccontextmanager
async def _bound_session(r: Reading) -> AsyncIterator[dict[str, Any]]:
    async with r.client.start_session() as session, session.bind():
        yield {}


@asynccontextmanager
async def _socket_request(r: Reading) -> AsyncIterator[dict[str, Any]]:
    with r.client.start_request():
        yield {}


@pytest.mark.parametrize("block", [_timeout, _session, _bound_session, _socket_request])
@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_nothing_is_read_ahead_within(block: Any, how: str, mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with (
            reading(mongod_uri, seeded) as r,
            block(r) as options,
            getattr(r, how)(**options) as cursor,
        ):
            assert await take(cursor, len(MIDWAY)) == MIDWAY
            assert r.fetches == 1

    run(main())


def test_nothing_is_read_ahead_of_a_limit_that_is_reached(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            assert len(await by_iterating(r.find(limit=2 * BATCH))) == 2 * BATCH
            assert r.fetches == 1

    run(main())


@pytest.mark.parametrize("way", WAYS)
def test_an_error_ahead_comes_where_the_documents_before_it_end(
    way: Way, mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod, errorCode=8000):
            cursor = r.find()
            assert await take(cursor, len(MIDWAY)) == MIDWAY
            await eventually(lambda: r.log.failed_events)
            if way is not by_to_list:
                assert await take(cursor, 3) == IDS[len(MIDWAY) : 2 * BATCH]
            assert cursor.alive
            with pytest.raises(OperationFailure, match="fail"):
                await way(cursor)
            # It is told once, as PyMongo does.
            assert not cursor.alive
            assert await way(cursor) == []

    run(main())


def test_to_list_of_fewer_documents_than_are_there_does_not_wait_for_more(
    mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod):
            cursor = r.find()
            await take(cursor, len(MIDWAY))
            assert await cursor.to_list(3) == [{"_id": 7}, {"_id": 8}, {"_id": 9}]
            assert len(r.log.succeeded_events) == 3
            await cursor.close()

    run(main())


def test_an_error_ahead_of_an_iteration_that_was_left_troubles_nobody(
    mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod, errorCode=8000):
            assert await take(r.find(), len(MIDWAY)) == MIDWAY
            await eventually(lambda: r.log.failed_events)
            # The fixture fails a test in which a loop reports something.
            gc.collect()

    run(main())


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_cancelling_what_waits_for_the_batch_ahead_closes_the_cursor(
    how: str, mongod: Deployment, seeded: str, synchronous: Any
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod):
            cursor = getattr(r, how)()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(take(cursor, len(IDS)), 0.05)
            for way in (by_iterating, by_fetch, by_to_list):
                with pytest.raises(InvalidOperation, match="a fetch of this cursor was cancelled"):
                    await way(cursor)
            await eventually(lambda: open_cursors(synchronous, seeded) == 0)
            if how == "find":
                assert await take(cursor.rewind(), BATCH) == IDS[:BATCH]
            await cursor.close()
            await eventually(lambda: pool_of(r.client).active_sockets == 0)

    run(main())


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_closing_a_cursor_ends_the_fetch_ahead_and_keeps_its_connection(
    how: str, mongod: Deployment, seeded: str, synchronous: Any
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod):
            async with getattr(r, how)() as cursor:
                assert await take(cursor, len(MIDWAY)) == MIDWAY
                # One for the fetch, one to end it.
                assert pool_of(r.client).active_sockets == 1
            assert r.log.names[-1] == "killCursors"
            assert cursor._batch.done()
            assert open_cursors(synchronous, seeded) == 0
            assert_pool_is_at_rest(r.client)
            assert len(pool_of(r.client).conns) == 2
            # What had been delivered to the client before is still there.
            assert await take(cursor, 3) == IDS[len(MIDWAY) : 2 * BATCH]
            await cursor.to_list()
            assert not cursor.alive

    run(main())


def test_a_rewound_cursor_has_nothing_of_the_batch_that_was_being_read(
    mongod: Deployment, seeded: str, synchronous: Any
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod, milliseconds=30):
            cursor = r.find()
            for _ in range(3):
                assert await take(cursor, len(MIDWAY)) == MIDWAY
                assert cursor.rewind() is cursor
            found = [document["_id"] for document in await by_iterating(cursor)]
            assert found == IDS
            await eventually(lambda: open_cursors(synchronous, seeded) == 0)

    run(main())


def test_rewinding_amid_an_iteration_starts_the_iteration_again(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            cursor = r.find()
            found = []
            async for document in cursor:
                found.append(document["_id"])
                if len(found) == len(MIDWAY):
                    cursor.rewind()
            assert found == MIDWAY + IDS

    run(main())


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_a_cursor_that_is_dropped_midway_is_killed_when_its_fetch_has_ended(
    how: str, mongod: Deployment, seeded: str, synchronous: Any
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod, milliseconds=50):
            assert await take(getattr(r, how)(), len(MIDWAY)) == MIDWAY
            (fetching,) = pool_of(r.client).active_contexts
            await eventually(lambda: pool_of(r.client).active_sockets == 0)
            await eventually(lambda: open_cursors(synchronous, seeded) == 0)
            assert r.log.names.count("killCursors") == 1
            # Its connection was not given up for it, but used again.
            await eventually(lambda: pool_of(r.client).active_sockets == 0)
            assert fetching in {conn.cancel_context for conn in pool_of(r.client).conns}

    run(main())


def test_a_loop_that_ends_during_a_fetch_ahead_loses_that_batch_and_says_so(
    mongod_uri: str, seeded: str
) -> None:
    r = Reading(mongod_uri, seeded)
    cursor = r.items.find({"$where": "sleep(20) || true"}, batch_size=BATCH)

    async def start() -> None:
        assert await take(cursor, len(MIDWAY)) == MIDWAY

    async def go_on() -> None:
        assert await take(cursor, 3) == IDS[len(MIDWAY) : 2 * BATCH]
        with pytest.raises(InvalidOperation, match="documents are missing"):
            await cursor.next()
        with pytest.raises(InvalidOperation, match="documents are missing"):
            await cursor.to_list()
        await r.client.close()

    asyncio.run(start())
    asyncio.run(go_on())


def test_a_loop_that_is_closed_after_a_break_has_nothing_pending(
    mongod_uri: str, seeded: str
) -> None:
    # With a generator that asyncio knows, `break` would have started a task.
    run_script(
        """
        import asyncio, sys
        from motorlike import MotorClient, MotorGridFSBucket, MotorGridOut

        async def main(client):
            async for document in client[sys.argv[2]].items.find():
                break
            tasks = len(asyncio.all_tasks())
            async for document in client[sys.argv[2]].items.find():
                return tasks

        client = MotorClient(sys.argv[1])
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(main(client)) == 1
        assert not asyncio.all_tasks(loop)
        loop.run_until_complete(client.close())
        loop.close()
        """,
        mongod_uri,
        seeded,
    )


def test_iterations_that_share_a_cursor_get_each_document_once(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            for cursor in (r.find(), r.aggregate(), r.find()):
                found: list[int] = []

                async def work(cursor: Any = cursor, found: list[int] = found) -> None:
                    async for document in cursor:
                        found.append(document["_id"])
                        await asyncio.sleep(0)

                await asyncio.gather(work(), work(), work())
                assert sorted(found) == IDS

    run(main())


async def by_steps(cursor: Any) -> list[Any]:
    found = []
    async for document in cursor:
        found.append(document)
        await asyncio.sleep(0)
    return found


async def by_short_lists(cursor: Any) -> list[Any]:
    found = []
    while cursor.alive and (some := await cursor.to_list(3)):
        found += some
    return found


def most_at_once(log: CommandLog) -> Callable[[], int]:
    """Count how many fetches are under way at once, from now on."""
    under_way = most = 0
    started, succeeded = log.started, log.succeeded

    def start(event: Any) -> None:
        nonlocal under_way, most
        under_way += event.command_name == "getMore"
        most = max(most, under_way)
        started(event)

    def succeed(event: Any) -> None:
        nonlocal under_way
        under_way -= event.command_name == "getMore"
        succeeded(event)

    log.started, log.succeeded = start, succeed  # type: ignore[method-assign]
    return lambda: most


@pytest.mark.parametrize("how", ["find", "aggregate", "files"])
def test_all_ways_to_read_one_cursor_at_once_give_each_document_once(
    how: str, mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        chance = random.Random(f"{SEED} {how}")
        ways = [by_steps, by_next, by_fetch, by_to_list, by_short_lists]
        ways += [by_try_next] if how == "aggregate" else []
        async with reading(mongod_uri, seeded) as r:
            most = most_at_once(r.log)
            bucket = MotorGridFSBucket(r.client[seeded])
            if how == "files":
                for number in IDS:
                    await bucket.upload_from_stream_with_id(number, f"{number}", b"")
            for _ in range(60):
                cursor = bucket.find(batch_size=BATCH) if how == "files" else getattr(r, how)()
                first = await take(cursor, chance.randrange(1, 12)) if how != "files" else []
                readers = chance.choices(ways, k=chance.randrange(2, 4))
                parts = await asyncio.gather(*(way(cursor) for way in readers))
                found = [each._id if how == "files" else each["_id"] for p in parts for each in p]
                assert sorted(first + found) == IDS, [way.__name__ for way in readers]
                await cursor.close()
            assert most() == 1

    run(main())


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_a_batch_that_is_there_before_its_fetch_waits_takes_no_others_place(
    how: str, mongod_uri: str, seeded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it can be with pyOpenSSL, which looks at the socket itself."""

    def receive_at_once(stream: Any, buffer: Any, size: int, timeout: float | None) -> Any:
        select.select([stream.socket], [], [], 10)
        return stream._receive_ahead(buffer, size)

    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            # The monitors wait already, in the stream's own way.
            await eventually(lambda: current_hub().outbox.awaited == 0)
            with monkeypatch.context() as patch:
                patch.setattr(GreenStream, "_receive_later", receive_at_once)
                cursor = getattr(r, how)()
                assert [each["_id"] for each in await by_iterating(cursor)] == IDS
                assert r.fetches == 5

    run(main())


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_of_two_that_wait_for_a_batch_one_is_cancelled_and_the_other_told(
    how: str, mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod, after=0):
            cursor = getattr(r, how)()
            assert await take(cursor, BATCH) == IDS[:BATCH]
            first, second = (asyncio.ensure_future(cursor.next()) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            with pytest.raises(InvalidOperation, match="a fetch of this cursor was cancelled"):
                await second
            await eventually(lambda: pool_of(r.client).active_sockets == 0)

    run(main())


def test_files_and_raw_batches_are_read_ahead_too(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            bucket = MotorGridFSBucket(r.client[seeded])
            for number in range(9):
                await bucket.upload_from_stream(f"{number}", b"")
            for files in (bucket.find(batch_size=2), bucket.find(batch_size=2)):
                del r.log.started_events[:]
                found = []
                async for file in files:
                    found.append(file)
                    if len(found) == 3:
                        assert r.fetches == 2
                        found += await files.to_list()
                assert [file.filename for file in found] == list("012345678")
                assert all(isinstance(file, MotorGridOut) for file in found)
            raw = r.items.find_raw_batches(sort=[("_id", 1)], batch_size=BATCH)
            batches = []
            async for batch in raw:
                batches.append(batch)
                if len(batches) == 2:
                    assert r.log.names[-3:] == ["find", "getMore", "getMore"]
            assert [each["_id"] for batch in batches for each in bson.decode_all(batch)] == IDS

    run(main())


class Storm:
    """Iterations over one collection that are left, and go on, in all ways."""

    def __init__(self, r: Reading, seed: int) -> None:
        self.reading = r
        self.random = random.Random(seed)
        self.actions = [
            self.go_on,
            self.go_on,
            self.pause,
            self.take_some,
            self.list_some,
            self.rewind,
            self.close,
            self.cancel,
        ]

    async def run(self, rounds: int) -> None:
        await asyncio.gather(*(self.work(rounds) for _ in range(8)))

    async def work(self, rounds: int) -> None:
        for _ in range(rounds):
            how = self.random.choice([self.reading.find, self.reading.aggregate])
            self.check(await self.use(how()))

    def check(self, found: list[int]) -> None:
        assert found == IDS[: len(found)]

    async def use(self, cursor: Any) -> list[int]:
        found: list[int] = []
        try:
            while cursor.alive and len(found) < len(IDS):
                if await self.random.choice(self.actions)(cursor, found):
                    break
        except InvalidOperation:
            assert cursor._is_fetching
        return found

    async def go_on(self, cursor: Any, found: list[int]) -> bool:
        found += await take(cursor, self.random.randint(1, 9))
        return False

    async def pause(self, cursor: Any, found: list[int]) -> bool:
        await asyncio.sleep(self.random.random() / 500)
        return False

    async def take_some(self, cursor: Any, found: list[int]) -> bool:
        found += [document["_id"] for document in await cursor.fetch()]
        return False

    async def list_some(self, cursor: Any, found: list[int]) -> bool:
        documents = await cursor.to_list(self.random.randint(0, 8))
        found += [document["_id"] for document in documents]
        return False

    async def rewind(self, cursor: Any, found: list[int]) -> bool:
        if hasattr(cursor, "rewind"):
            cursor.rewind()
            found.clear()
        return False

    async def close(self, cursor: Any, found: list[int]) -> bool:
        if self.random.random() < 0.3:
            await cursor.close()
            # What had arrived may still be read.
            found += [document["_id"] async for document in cursor]
            return True
        return False

    async def cancel(self, cursor: Any, found: list[int]) -> bool:
        if not found:
            # A query whose reply is not waited for leaves a cursor that nobody knows.
            return False
        iterating = asyncio.ensure_future(self._add(cursor, found))
        await asyncio.sleep(self.random.random() / 500)
        iterating.cancel()
        await asyncio.wait([iterating])
        if not iterating.cancelled():
            iterating.result()
        return False

    async def _add(self, cursor: Any, found: list[int]) -> None:
        async for document in cursor:
            found.append(document["_id"])
            if self.random.random() < 0.2:
                await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_storm_of_broken_iterations_loses_nothing_and_leaves_nothing(
    size: int, seed: int, mongod_uri: str, seeded: str, synchronous: Any
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded, maxPoolSize=size) as r:
            await Storm(r, seed).run(30)
            gc.collect()
            await eventually(lambda: open_cursors(synchronous, seeded) == 0)
            # The client itself kills those that were dropped.
            await eventually(lambda: pool_of(r.client).active_sockets == 0)

    run(main())


# -- how much at a time ---------------------------------------------------------

LARGE = 4000
LARGE_IDS = list(range(1200))


@pytest.fixture
def large(synchronous: Any, database_name: str) -> str:
    """The name of a database whose collection `items` has 4.8 MB in documents of 4 kB."""
    synchronous[database_name].items.insert_many({"_id": i, "x": "y" * LARGE} for i in LARGE_IDS)
    return database_name


def sizes(r: Reading) -> list[int | None]:
    """The batch sizes that a client has asked for, after the first batches."""
    events = r.log.started_events
    return [each.command.get("batchSize") for each in events if each.command_name == "getMore"]


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_an_iteration_asks_for_a_megabyte_at_a_time(how: str, mongod_uri: str, large: str) -> None:
    async def main() -> None:
        async with reading(mongod_uri, large) as r:
            cursor = r.items.find() if how == "find" else r.items.aggregate([])
            found = []
            async for document in cursor:
                found.append(document["_id"])
                # Nobody waits for what was ready before.
                if r.log.names[-1] == "getMore" and len(r.log.succeeded_events) < len(r.log.names):
                    await eventually(lambda: len(r.log.succeeded_events) == len(r.log.names))
            assert found == LARGE_IDS
            asked = sizes(r)
            assert len(asked) == 5
            assert {round((size or 0) * LARGE / (1 << 20), 1) for size in asked} == {1.0}

    run(main())


@pytest.fixture
def near_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server is near, and has nothing else to do."""
    monkeypatch.setattr(pace, "_NEAR_SECONDS", 60)
    # Monitors may be under way just after a client has connected.
    monkeypatch.setattr(ahead, "_is_alone", lambda: True)


SMALL_IDS = list(range(6000))


@pytest.fixture
def small(synchronous: Any, database_name: str) -> str:
    """The name of a database whose collection `items` has 6,000 documents of 69 bytes."""
    synchronous[database_name].items.insert_many({"_id": i, "x": "y" * 47} for i in SMALL_IDS)
    return database_name


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_of_a_server_that_is_near_small_batches_are_wanted_first(
    how: str, near_server: None, mongod: Deployment, small: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, small) as r:
            cursor = r.items.find() if how == "find" else r.items.aggregate([])
            assert [each["_id"] async for each in cursor] == SMALL_IDS
            first, *others = [size or 0 for size in sizes(r)]
            assert 48 * 1024 // 80 < first < 48 * 1024 // 64
            assert len(others) >= 2
            # By what has come: a server sends no more than it is asked for.
            for before, size in itertools.pairwise([first, *others[:-1]]):
                assert before * 1.7 < size < before * 2.3

    run(main())


def test_of_a_server_that_is_far_or_at_work_for_others_small_batches_are_not_wanted(
    mongod: Deployment, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, small) as r:
            monkeypatch.setattr(pace, "_NEAR_SECONDS", 0)
            assert len(await by_iterating(r.items.find())) == len(SMALL_IDS)
            assert sizes(r) == [pytest.approx(1024 * 1024 / 72, rel=0.1)]
            monkeypatch.setattr(pace, "_NEAR_SECONDS", 60)
            del r.log.started_events[:]
            found = await asyncio.gather(*(by_iterating(r.items.find()) for _ in range(5)))
            assert [len(each) for each in found] == 5 * [len(SMALL_IDS)]
            # Those that are asked first are answered while the others wait.
            assert len(sizes(r)) < 5 * 3

    run(main())


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_of_raw_batches_the_server_chooses_the_size(
    how: str, near_server: None, mongod_uri: str, seeded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Pace] = []

    class Watched(Pace):
        __slots__ = ()

        def __init__(self) -> None:
            super().__init__()
            found.append(self)

    monkeypatch.setattr(ahead, "Pace", Watched)

    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            cursor = (
                r.items.find_raw_batches(batch_size=BATCH)
                if how == "find"
                else r.items.aggregate_raw_batches([], batchSize=BATCH)
            )
            assert len([batch async for batch in cursor]) == 6
            # Nobody knows how many documents are in one.
            assert [each.size for each in found] == [0]

    run(main())


@pytest.mark.parametrize("way", [*WAYS[1:], by_try_next])
def test_other_ways_through_a_cursor_let_the_server_choose(
    way: Way, mongod_uri: str, large: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, large) as r:
            cursor = r.items.aggregate([]) if way is by_try_next else r.items.find()
            assert len(await way(cursor)) == len(LARGE_IDS)
            assert sizes(r) == [None]

    run(main())


@pytest.mark.parametrize("block", [_timeout, _session, _bound_session, _socket_request])
def test_where_nothing_is_read_ahead_the_server_chooses(
    block: Any, mongod_uri: str, large: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, large) as r, block(r) as options:
            assert len(await by_iterating(r.items.find(**options))) == len(LARGE_IDS)
            assert sizes(r) == [None]

    run(main())


def test_a_batch_size_of_the_users_is_kept(mongod_uri: str, large: str) -> None:
    async def main() -> None:
        async with reading(mongod_uri, large) as r:
            for cursor in (
                r.items.find(batch_size=500),
                r.items.find().batch_size(500),
                r.items.aggregate([], batchSize=500),
            ):
                del r.log.started_events[:]
                assert len(await by_iterating(cursor)) == len(LARGE_IDS)
                assert sizes(r) == [500, 500]

    run(main())


def test_a_batch_size_that_is_set_amid_an_iteration_holds_from_then_on(
    mongod_uri: str, large: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, large) as r:
            cursor = await r.items.aggregate([])
            found = 0
            async for document in cursor:
                found += 1
                if document["_id"] == 200:
                    await eventually(lambda: len(r.log.succeeded_events) == len(r.log.names))
                    cursor.batch_size(150)
            assert found == len(LARGE_IDS)
            asked = sizes(r)
            assert len(asked) > 5
            assert asked[0] == asked[1] != 150
            assert set(asked[2:]) == {150}

    run(main())


def test_how_long_a_batch_took_is_measured_from_its_request(
    mongod: Deployment, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[float, float, float]] = []

    class Watched(Pace):
        def note_wait(self, count: float, seconds: float, waited: float) -> None:
            waits.append((count, seconds, waited))

    monkeypatch.setattr(ahead, "Pace", Watched)

    async def main() -> None:
        async with reading(mongod.uri, large) as r, slowly(mongod, after=1, milliseconds=60):
            assert len(await by_iterating(r.items.find())) == len(LARGE_IDS)
            # The first fetch was not ahead of anything.
            counts = [round(count) for count, _, _ in waits]
            assert counts[:-1] == sizes(r)[1:-1]
            assert all(0.05 < seconds < 5 for _, seconds, _ in waits)
            assert all(waited <= seconds for _, seconds, waited in waits)
            # Decoding is no waiting, but takes far less than the server does here.
            assert max(waited for _, _, waited in waits) > 0.03

    run(main())


def test_a_limit_holds_for_an_iteration_that_asks_for_less(mongod_uri: str, large: str) -> None:
    async def main() -> None:
        async with reading(mongod_uri, large) as r:
            for limit in (101, 102, 400, 1200, 1300):
                found = await by_iterating(r.items.find().limit(limit))
                assert [each["_id"] for each in found] == LARGE_IDS[:limit]

    run(main())


def test_a_copy_of_a_cursor_amid_its_iteration_asks_for_no_size(
    mongod_uri: str, large: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, large) as r:
            cursor = r.items.find()
            async for document in cursor:
                if document["_id"] in (50, 101, 150, 400):
                    for other in (cursor.clone(), copy.copy(cursor), copy.deepcopy(cursor)):
                        assert other.delegate._batch_size == 0
                assert cursor.delegate._batch_size == 0
            del r.log.started_events[:]
            assert len(await cursor.rewind().to_list()) == len(LARGE_IDS)
            assert sizes(r) == [None]

    run(main())


def test_far_from_the_server_an_iteration_asks_for_more_and_more(
    mongod: Deployment, large: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, large) as r, slowly(mongod, after=0, milliseconds=60):
            assert len(await by_iterating(r.items.find())) == len(LARGE_IDS)
            asked = [size or 0 for size in sizes(r)]
            assert len(asked) < 5
            assert asked[0] == asked[1]
            assert asked[2] >= 2 * asked[1] - 2

    run(main())


# -- decoded when its turn has come ---------------------------------------------


async def fetched(r: Reading) -> None:
    """Wait until the batch ahead has come."""
    await eventually(lambda: len(r.log.succeeded_events) == 4)


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_a_batch_ahead_is_decoded_when_the_one_before_it_has_been_read(
    how: str, packs: bool, mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r, getattr(r, how)() as cursor:
            assert await take(cursor, len(MIDWAY)) == MIDWAY
            await fetched(r)
            assert (cursor._packed is not None) is packs
            assert len(cursor.delegate._data) == (0 if packs else BATCH)
            assert await take(cursor, 3) == IDS[len(MIDWAY) : 2 * BATCH]
            assert (cursor._packed is not None) is packs
            assert await take(cursor, 1) == [2 * BATCH]
            assert cursor._packed is None

    run(main())


def fetches_when_decoding(r: Reading, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of how many fetches had been sent when each packed batch was decoded."""
    decode = packed.Packed.documents
    asked: list[int] = []

    def documents(self: packed.Packed, cursor: Any) -> list[Any]:
        asked.append(r.fetches)
        return decode(self, cursor)

    monkeypatch.setattr(packed.Packed, "documents", documents)
    return asked


def test_the_server_is_asked_before_a_batch_is_decoded(
    packs: bool, mongod_uri: str, seeded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            asked = fetches_when_decoding(r, monkeypatch)
            assert len(await by_iterating(r.find())) == len(IDS)
            # The last one has none behind it.
            assert asked == ([3, 4, 5, 5] if packs else [])

    run(main())


@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_the_second_batch_is_decoded_after_the_third_was_asked_for_unless_its_size_is_the_users(
    how: str,
    packs: bool,
    near_server: None,
    mongod_uri: str,
    small: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, small) as r:
            asked = fetches_when_decoding(r, monkeypatch)
            for way in (by_iterating, by_fetch, by_next, by_to_list, by_each):
                del asked[:], r.log.started_events[:]
                cursor = r.items.find() if how == "find" else r.items.aggregate([])
                # Into the second batch, and on in another way.
                found = await take(cursor, 102)
                assert asked[:1] == ([2] if packs else [])
                found += [each["_id"] for each in await way(cursor)]
                assert found == SMALL_IDS
            size = (
                r.items.find(batch_size=1000)
                if how == "find"
                else r.items.aggregate([], batchSize=1000)
            )
            del asked[:], r.log.started_events[:]
            assert await take(size, 1001) == SMALL_IDS[:1001]
            assert asked == []
            await size.close()

    run(main())


@pytest.mark.parametrize("is_ahead", [True, False])
def test_a_fetch_that_had_to_wait_ends_with_the_cursor_that_was_rewound_meanwhile(
    is_ahead: bool, mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            cursor = r.find()
            assert await take(cursor, BATCH) == IDS[:BATCH]
            ask = cursor._refresh_packed if is_ahead else None
            # As a list does that is under way.
            with cursor._lock.here():
                waiting = cursor._binding.spawn(cursor._refresh, (cursor.delegate, ask), {})
                await asyncio.sleep(0.01)
                cursor.rewind()
            # Whoever waits for it looks again.
            assert await waiting == 1
            # Nor does one that has not begun before.
            left = r.find().delegate
            assert await cursor._binding.spawn(cursor._refresh, (left, ask), {}) == 1
            assert r.fetches == 0
            assert r.log.names.count("find") == 1
            assert [each["_id"] for each in await by_iterating(cursor)] == IDS

    run(main())


@pytest.mark.parametrize("way", [by_iterating, by_next, by_fetch, by_each, by_fetch_next])
def test_who_waits_behind_a_list_reads_the_cursor_that_was_rewound_meanwhile(
    way: Callable[[Any], Any], mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod, after=1, milliseconds=60):
            cursor = r.find()
            assert await take(cursor, BATCH) == IDS[:BATCH]
            listing = cursor.to_list()
            await asyncio.sleep(0.01)
            reading_on = asyncio.ensure_future(way(cursor))
            await asyncio.sleep(0.01)
            assert not listing.done()
            cursor.rewind()
            # The list goes on with what it had begun.
            assert [each["_id"] for each in await listing] == IDS[BATCH:]
            assert [each["_id"] for each in await reading_on] == IDS

    run(main())


# `each` goes on in callbacks, which are no task's.
@pytest.mark.parametrize("way", [each for each in WAYS if each is not by_each])
def test_all_ways_to_read_have_their_part_in_the_callers_socket_request(
    way: Callable[[Any], Any], mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        # Another connection would have to be waited for, without end.
        async with reading(mongod_uri, seeded, maxPoolSize=1) as r, r.client.start_request():
            await r.items.find_one()
            assert [each["_id"] for each in await way(r.find())] == IDS

    run(main())


def test_closing_ends_though_the_fetch_that_it_waits_for_is_cancelled_by_a_reader(
    mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r:
            for _ in range(5):
                async with slowly(mongod, after=1, milliseconds=100):
                    cursor = r.find()
                    # Into the second batch: the third is on its way.
                    await take(cursor, BATCH + 1)
                    closing = asyncio.ensure_future(cursor.close())
                    # The cursor is killed; the fetch has not ended.
                    await asyncio.sleep(0.03)
                    reader = asyncio.ensure_future(by_iterating(cursor))
                    await asyncio.sleep(0)
                    assert not closing.done()
                    reader.cancel()
                    await closing
                    await asyncio.gather(reader, return_exceptions=True)

    run(main())


def test_a_command_that_was_sent_is_not_sent_again_by_who_waited_behind_a_cancelled_one(
    mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        slow = fail_point(mongod.address, ["aggregate"], appName=APP, blockTimeMS=100)
        async with reading(mongod.uri, seeded) as r, slow:
            for way in (by_to_list, by_next, by_fetch):
                del r.log.started_events[:]
                cursor = r.aggregate()
                listing = cursor.to_list()
                await asyncio.sleep(0.02)
                behind = asyncio.ensure_future(way(cursor))
                await asyncio.sleep(0.02)
                listing.cancel()
                with pytest.raises(InvalidOperation, match="not sent twice"):
                    await behind
                with pytest.raises(InvalidOperation, match="not sent twice"):
                    await way(cursor)
                assert r.log.names.count("aggregate") == 1

    run(main())


def test_each_goes_on_if_another_who_waited_for_the_same_is_cancelled_and_nothing_is_lost(
    mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            cursor = r.find()
            assert await take(cursor, BATCH) == IDS[:BATCH]
            # As a list does that is under way: neither has asked the server yet.
            with cursor._lock.here():
                each = asyncio.ensure_future(by_each(cursor))
                await asyncio.sleep(0)
                other = asyncio.ensure_future(cursor.next())
                await asyncio.sleep(0.01)
                other.cancel()
                await asyncio.gather(other, return_exceptions=True)
            assert [document["_id"] for document in await each] == IDS[BATCH:]

    run(main())


def test_each_tells_its_callback_that_a_fetch_was_cancelled_by_another(
    mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod, after=0, milliseconds=100):
            cursor = r.find()
            assert await take(cursor, BATCH) == IDS[:BATCH]
            each = asyncio.ensure_future(by_each(cursor))
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cursor.next(), 0.03)
            with pytest.raises(InvalidOperation, match="a fetch of this cursor was cancelled"):
                await each

    run(main())


def test_each_tells_its_callback_of_a_batch_that_cannot_be_decoded(
    mongod: Deployment, synchronous: Any, seeded: str
) -> None:
    items = synchronous[seeded].items
    items.delete_one({"_id": 12})
    evil = bson.encode({"_id": 12, "x": "evil"}).replace(b"evil", b"ev\xffl")
    items.insert_one(RawBSONDocument(evil))

    async def main() -> None:
        async with reading(mongod.uri, seeded) as r, slowly(mongod, after=0, milliseconds=60):
            cursor = r.find()
            found = await take(cursor, len(MIDWAY))
            told = asyncio.get_running_loop().create_future()

            def callback(document: Any, error: BaseException | None) -> None:
                if document is not None:
                    found.append(document["_id"])
                else:
                    told.set_result(error)

            # The third batch, which it waits for, is on its way.
            cursor.each(callback)
            assert isinstance(await told, InvalidBSON)
            assert found == IDS[:10]

    run(main())


def test_a_cursor_tells_how_many_documents_it_has_got(mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            cursor = r.find()
            assert await take(cursor, len(IDS)) == IDS
            assert cursor.retrieved == len(IDS)
            cursor.rewind()
            assert cursor.retrieved == 0
            assert await take(cursor, len(MIDWAY)) == MIDWAY
            assert len(await by_to_list(cursor)) == len(IDS) - len(MIDWAY)
            assert cursor.retrieved == len(IDS)

    run(main())


@pytest.mark.parametrize("limit", [1, BATCH, len(MIDWAY), 2 * BATCH, 17, len(IDS), 100])
def test_a_limit_holds_whatever_is_read_ahead(limit: int, mongod_uri: str, seeded: str) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            found = await by_iterating(r.find(limit=limit))
            assert [document["_id"] for document in found] == IDS[:limit]

    run(main())


@pytest.mark.parametrize("way", [by_iterating, by_fetch, by_to_list, by_each])
@pytest.mark.parametrize("how", ["find", "aggregate"])
def test_a_batch_that_cannot_be_decoded_is_an_error_where_it_begins(
    how: str, way: Way, mongod_uri: str, seeded: str, synchronous: Any
) -> None:
    # In the third batch. Other drivers, too, write what is not UTF-8.
    evil = RawBSONDocument(bson.encode({"_id": 12, "x": "evil"}).replace(b"evil", b"ev\xffl"))
    synchronous[seeded].items.delete_one({"_id": 12})
    synchronous[seeded].items.insert_one(evil)

    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            cursor = getattr(r, how)()
            assert await take(cursor, len(MIDWAY)) == MIDWAY
            await fetched(r)
            if way is not by_to_list:
                assert await take(cursor, 3) == IDS[len(MIDWAY) : 2 * BATCH]
            with pytest.raises(InvalidBSON):
                await way(cursor)
            # No document behind it comes as if nothing were missing.
            try:
                assert await way(cursor) == []
            except InvalidOperation as exc:
                assert "documents are missing" in str(exc)
            await cursor.close()
            await eventually(lambda: open_cursors(synchronous, seeded) == 0)
            await eventually(lambda: pool_of(r.client).active_sockets == 0)

    run(main())


def test_in_company_batches_are_decoded_as_they_come(
    packs: bool, mongod: Deployment, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod.uri, seeded) as r:
            busy = [
                asyncio.ensure_future(r.items.find_one({"$where": "sleep(50) || false"}))
                for _ in range(4)
            ]
            await asyncio.sleep(0.05)
            cursor = r.find()
            assert await take(cursor, len(MIDWAY)) == MIDWAY
            await eventually(lambda: r.log.names.count("getMore") == 2)
            await eventually(lambda: not cursor._is_batch_to_come)
            assert not any(each.done() for each in busy)
            assert cursor._packed is None
            assert len(cursor.delegate._data) == BATCH
            await asyncio.gather(*busy)
            await cursor.close()

    run(main())


def test_listeners_are_shown_the_documents_of_a_batch_ahead(
    mongod_uri: str, seeded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the fixture has done, so that a log may be kept of batches left packed.
    monkeypatch.undo()

    async def main() -> None:
        async with reading(mongod_uri, seeded) as r:
            assert len(await by_iterating(r.find())) == len(IDS)
            replies = [
                event.reply["cursor"]["nextBatch"]
                for event in r.log.succeeded_events
                if event.command_name == "getMore"
            ]
            assert [each["_id"] for batch in replies for each in batch] == IDS[BATCH:]

    run(main())


@pytest.mark.parametrize("document_class", [dict, RawBSONDocument, bson.SON])
def test_documents_of_all_classes_are_read_ahead(
    document_class: type[Any], mongod_uri: str, seeded: str
) -> None:
    async def main() -> None:
        async with reading(mongod_uri, seeded, document_class=document_class) as r:
            for cursor in (r.find(), r.aggregate()):
                found = await by_iterating(cursor)
                assert [document["_id"] for document in found] == IDS
                assert {type(document) for document in found} == {document_class}

    run(main())
