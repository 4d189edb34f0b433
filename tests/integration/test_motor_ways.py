"""What Motor's users write: both families, loops, sessions, cursors' older ways, arguments."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from bson import DBRef
from pymongo.errors import InvalidOperation, OperationFailure
from tornado import gen
from tornado.ioloop import IOLoop

import motorlike
from motorlike import (
    MotorClient,
    MotorClientSession,
    MotorCollection,
    MotorCommandCursor,
    MotorDatabase,
)
from motorlike.declare import EnteringFuture
from motorlike.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorCommandCursor,
    AsyncIOMotorCursor,
    AsyncIOMotorDatabase,
    AsyncIOMotorLatentCommandCursor,
    AsyncIOMotorRawBatchCommandCursor,
    AsyncIOMotorRawBatchCursor,
)
from tests.integration.support import run

# -- families -------------------------------------------------------------


def test_all_that_is_reached_from_a_client_is_of_its_family(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        async with AsyncIOMotorClient(mongod_uri) as client:
            database = client[database_name]
            items = await database.create_collection("items")
            await items.insert_many([{"_id": i} for i in range(3)])
            session = await client.start_session()
            reached = {
                AsyncIOMotorDatabase: [database, client.db, database.with_options()],
                AsyncIOMotorCollection: [items, items.sub, items["a"], items.with_options()],
                AsyncIOMotorCursor: [items.find(), items.find().clone(), items.find()[1:2]],
                AsyncIOMotorRawBatchCursor: [items.find_raw_batches()],
                AsyncIOMotorLatentCommandCursor: [items.aggregate([]), items.list_indexes()],
                AsyncIOMotorCommandCursor: [await client.list_databases()],
                AsyncIOMotorClientSession: [session],
            }
            for cls, objects in reached.items():
                # The type of an attribute has a name of its own besides.
                assert {type(each).__qualname__ for each in objects} == {cls.__name__}
                assert all(isinstance(each, cls) for each in objects)
                assert all(each.get_io_loop() is asyncio.get_running_loop() for each in objects)
            assert issubclass(AsyncIOMotorRawBatchCommandCursor, motorlike.MotorCommandCursor)
            assert await items.find(session=session).to_list() == [{"_id": i} for i in range(3)]
            await session.end_session()

    run(main())


def test_client_info_names_the_family() -> None:
    tornado_client: Any = MotorClient()
    asyncio_client: Any = AsyncIOMotorClient()
    assert tornado_client.options.pool_options.metadata["platform"].endswith(
        motorlike.loops.TornadoLoops.platform
    )
    assert asyncio_client.options.pool_options.metadata["platform"].endswith("asyncio")


def test_a_subclass_is_kept_by_with_options_and_not_by_its_parts() -> None:
    class Shop(MotorDatabase[Any]):
        pass

    class Items(MotorCollection[Any]):
        pass

    shop = Shop(MotorClient(), "shop")
    items = Items(shop, "items")
    assert type(shop.with_options()) is Shop
    assert type(items.with_options()) is Items
    assert items.with_options().database is shop
    assert type(items["sub"]) is MotorCollection
    for part in (shop.items, items.sub):
        assert isinstance(part, MotorCollection)
        assert not isinstance(part, Items)


@pytest.mark.parametrize("cls", [MotorClient, AsyncIOMotorClient])
def test_clients_databases_and_collections_cannot_be_iterated(cls: Callable[..., Any]) -> None:
    # Their items are asked for by name: a loop over them would have no end.
    for each in (cls(), cls().db, cls().db.items):
        with pytest.raises(TypeError, match="not iterable"):
            iter(each)
        with pytest.raises(TypeError, match="not iterable"):
            assert "name" not in each


# -- loops ----------------------------------------------------------------


def test_io_loop_is_the_running_one_unless_another_was_given() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert AsyncIOMotorClient().io_loop is loop
        assert AsyncIOMotorClient().db.items.find().get_io_loop() is loop
        assert MotorClient().io_loop is IOLoop.current()
        assert MotorClient().db.items.get_io_loop() is IOLoop.current()

    run(main())
    loop = asyncio.new_event_loop()
    assert AsyncIOMotorClient(io_loop=loop).get_io_loop() is loop
    loop.close()


@pytest.mark.parametrize("cls", [MotorClient, AsyncIOMotorClient])
def test_io_loop_must_be_a_loop_of_the_family(cls: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="io_loop"):
        cls(io_loop="loop")


def test_tornado_client_takes_no_asyncio_loop() -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(TypeError, match="IOLoop"):
        MotorClient(io_loop=loop)
    loop.close()


def test_operation_called_before_its_loop_runs_starts_when_it_does(mongod_uri: str) -> None:
    loop = asyncio.new_event_loop()
    client: Any = AsyncIOMotorClient(mongod_uri, io_loop=loop)
    operation = client.server_info()
    assert isinstance(operation, asyncio.Future)
    assert loop.run_until_complete(operation)["ok"] == 1
    # From now on the client belongs to that loop.
    assert loop.run_until_complete(client.db.items.find_one({"_id": "none"})) is None
    assert loop.run_until_complete(client.db.items.find({"_id": 0}).to_list()) == []
    loop.run_until_complete(client.close())
    loop.close()
    gc.collect(1)


def test_operation_starts_on_the_loop_that_is_set(mongod_uri: str) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        client: Any = AsyncIOMotorClient(mongod_uri)
        assert loop.run_until_complete(client.admin.command("ping"))["ok"] == 1
        loop.run_until_complete(client.close())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_tornados_loop_is_given_and_run(mongod_uri: str) -> None:
    loop = IOLoop(make_current=False)
    client: Any = MotorClient(mongod_uri, io_loop=loop)
    assert client.io_loop is client.db.get_io_loop() is loop
    assert loop.run_sync(client.server_info)["ok"] == 1
    loop.run_sync(client.close)
    loop.close()


def test_without_any_loop_an_operation_says_so() -> None:
    client: Any = MotorClient()
    with pytest.raises(RuntimeError, match="no event loop is running"):
        client.server_info()


def test_close_is_called_or_awaited(mongod_uri: str) -> None:
    async def main() -> None:
        client: Any = MotorClient(mongod_uri)
        await client.server_info()
        future = client.close()
        assert asyncio.isfuture(future)
        await future
        other: Any = MotorClient(mongod_uri)
        other.close()
        await other.close()
        with pytest.raises(InvalidOperation):
            await other.server_info()

    run(main())


# -- sessions -------------------------------------------------------------


def test_session_is_entered_awaited_or_not(mongod_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            async with await client.start_session() as session:
                assert type(session) is MotorClientSession
            assert session.has_ended
            started = client.start_session(causal_consistency=True)
            assert isinstance(started, EnteringFuture) and asyncio.isfuture(started)
            async with started as session:
                assert session.options.causal_consistency
                await client.db.items.find_one(session=session)
                assert not session.has_ended
            assert session.has_ended
            (done,), _ = await asyncio.wait([client.start_session()])
            await done.result().end_session()

    run(main())


def test_start_session_that_fails_raises_where_it_is_entered(mongod_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            with pytest.raises(TypeError):
                async with client.start_session(default_transaction_options=1):  # type: ignore[arg-type]  # the error
                    raise AssertionError("never entered")
            future = client.start_session()
            assert future.done()
            await (await future).end_session()
            waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            entering = EnteringFuture(waiting)
            assert entering.cancel()
            assert waiting.cancelled()
            with pytest.raises(asyncio.CancelledError):
                await entering

    run(main())


# -- cursors --------------------------------------------------------------


def with_items(mongod_uri: str, database_name: str, story: Callable[[Any], Any]) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name].items
            await items.insert_many([{"_id": i} for i in range(10)])
            await story(items)

    run(main())


def test_each_calls_back_for_every_document_and_once_more(
    mongod_uri: str, database_name: str
) -> None:
    async def story(items: Any) -> None:
        for cursor in (
            items.find().sort("_id").batch_size(3),
            items.aggregate([{"$sort": {"_id": 1}}], batchSize=3),
        ):
            calls: list[Any] = []
            ended = asyncio.Event()

            def callback(document: Any, error: Any, calls: Any = calls, ended: Any = ended) -> None:
                calls.append((document and document["_id"], error))
                if document is None:
                    ended.set()

            assert cursor.each(callback) is None
            assert calls == []
            await ended.wait()
            assert calls == [*((i, None) for i in range(10)), (None, None)]

    with_items(mongod_uri, database_name, story)


def test_each_stops_at_false_and_can_go_on(mongod_uri: str, database_name: str) -> None:
    async def story(items: Any) -> None:
        seen: list[int] = []
        stopped = asyncio.Event()

        def first_three(document: Any, error: Any) -> bool | None:
            seen.append(document["_id"])
            if len(seen) == 3:
                stopped.set()
                return False
            return None

        cursor = items.find().sort("_id").batch_size(2)
        cursor.each(first_three)
        await stopped.wait()
        assert seen == [0, 1, 2]
        assert [item["_id"] async for item in cursor] == [3, 4, 5, 6, 7, 8, 9]

    with_items(mongod_uri, database_name, story)


def test_each_hands_over_errors(mongod_uri: str, database_name: str) -> None:
    async def story(items: Any) -> None:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        items.find({"$bad": 1}).each(lambda *args: future.set_result(args))
        document, error = await future
        assert document is None
        assert isinstance(error, OperationFailure)
        with pytest.raises(TypeError):
            items.find().each("callback")

    with_items(mongod_uri, database_name, story)


def test_fetch_next_and_next_object_work_and_warn(mongod_uri: str, database_name: str) -> None:
    async def story(items: Any) -> None:
        cursor = items.find().sort("_id").batch_size(4)
        seen = []
        while True:
            with pytest.warns(DeprecationWarning, match="fetch_next"):
                future = cursor.fetch_next
            assert asyncio.isfuture(future)
            if not await future:
                break
            with pytest.warns(DeprecationWarning, match="next_object"):
                seen.append(cursor.next_object()["_id"])
        assert seen == list(range(10))
        with pytest.warns(DeprecationWarning, match="next_object"):
            assert cursor.next_object() is None

    with_items(mongod_uri, database_name, story)


def test_slices_lists_and_coroutines_of_tornado(mongod_uri: str, database_name: str) -> None:
    async def story(items: Any) -> None:
        assert [i["_id"] for i in await items.find().sort("_id")[2:6].to_list(None)] == [2, 3, 4, 5]
        assert [i["_id"] for i in await items.find().sort("_id")[7].to_list(5)] == [7]
        assert len(await items.aggregate([]).to_list()) == 10

        @gen.coroutine
        def old_style() -> Any:
            found = yield items.find_one({"_id": 3})
            both = yield [items.find_one({"_id": 1}), items.find_one({"_id": 2})]
            return [found, *both]

        assert [each["_id"] for each in await old_style()] == [3, 1, 2]

    with_items(mongod_uri, database_name, story)


# -- wrappers as arguments, and back --------------------------------------


def test_wrappers_stand_where_pymongo_takes_its_own(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            database = client[database_name]
            await database.items.insert_one({"_id": 1, "n": 5})
            assert (await database.validate_collection(database.items))["valid"]
            async with client.start_session() as session:
                found = await database.dereference(DBRef("items", 1), session=session)
                assert found["n"] == 5
                names = await database.list_collection_names(session=session)
                assert names == ["items"]
                cursor = await database.cursor_command("find", "items", session=session)
                assert type(cursor) is MotorCommandCursor
                assert await cursor.to_list() == [{"_id": 1, "n": 5}]
            await database.drop_collection(database.items)
            assert await database.list_collection_names() == []
            await client.drop_database(database)

    run(main())


def test_objects_of_the_green_driver_are_wrapped_by_class() -> None:
    client: Any = MotorClient()
    database = client.wrap(client.db.delegate)
    assert type(database) is MotorDatabase and database == client.db
    assert type(database.wrap(client.db.items.delegate)) is MotorCollection
    assert client.db.items.wrap(client.db.items.delegate) == client.db.items
    assert client.wrap(17) == client.db.wrap(17) == client.db.items.wrap(17) == 17


def test_collections_and_databases_are_made_from_wrappers_only() -> None:
    client: Any = MotorClient()
    assert MotorDatabase(client, "db") == client.db
    assert MotorCollection(client.db, "items") == client.db.items
    with pytest.raises(TypeError, match="MotorDatabase"):
        MotorCollection(client, "items")
    with pytest.raises(TypeError, match="MotorClient"):
        MotorDatabase(client.db, "db2")
