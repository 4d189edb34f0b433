"""Every declared operation does on motorlike what it does on PyMongo."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import bson
import pymongo
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo.errors import PyMongoError
from pymongo.synchronous.client_session import ClientSession
from pymongo.synchronous.collection import Collection
from pymongo.synchronous.command_cursor import CommandCursor
from pymongo.synchronous.cursor import Cursor
from pymongo.synchronous.database import Database
from tornado import gen

from motorlike import (
    MotorChangeStream,
    MotorClient,
    MotorClientSession,
    MotorCollection,
    MotorCommandCursor,
    MotorCursor,
    MotorDatabase,
)
from motorlike.declare import Async, Wrapper
from motorlike.green.hub import current_hub
from tests.integration import operation_table as table
from tests.integration.support import run

TABLES: dict[type[Wrapper], dict[str, table.Call]] = {
    MotorClient: table.CLIENT,
    MotorClientSession: table.SESSION,
    MotorDatabase: table.DATABASE,
    MotorCollection: table.COLLECTION,
    MotorCursor: table.CURSOR,
    MotorCommandCursor: table.COMMAND_CURSOR,
}

# Not PyMongo's: test_requests has their tests.
OWN_OPERATIONS = {"start_request", "end_request", "in_request"}

CALLS: list[Any] = [
    pytest.param(cls, name, id=f"{cls.__name__}.{name}")
    for cls, calls in TABLES.items()
    for name in calls
    if name in cls.__declarations__
]
ASYNC_CALLS = [
    case for case in CALLS if isinstance(case.values[0].__declarations__[case.values[1]], Async)
]

# What differs between two runs of one command, or tells of the client itself.
_VOLATILE = {"executionStats", "serverInfo", "serverParameters", "command", "queryHash", "lsid"}


def targets(client: Any, name: str) -> dict[type[Wrapper], Callable[[], Any]]:
    """Return how to make the object that a call is made on, for each wrapper class."""
    collection = client[name]["items"]
    return {
        MotorClient: lambda: client,
        MotorClientSession: lambda: client.start_session(),
        MotorDatabase: lambda: client[name],
        MotorCollection: lambda: collection,
        MotorCursor: lambda: collection.find({}).sort("_id"),
        MotorCommandCursor: lambda: collection.aggregate([{"$sort": {"_id": 1}}], batchSize=4),
    }


def plain(value: Any) -> Any:
    """Reduce what a call returned to what can be compared."""
    if isinstance(value, PyMongoError | TypeError | ValueError):
        return type(value), getattr(value, "code", None), str(value).split(",")[0]
    if isinstance(value, Collection | MotorCollection):
        return value.full_name, value.read_preference, value.write_concern
    if isinstance(value, Database | MotorDatabase):
        return value.name, value.read_preference, value.write_concern
    if isinstance(value, ClientSession | MotorClientSession):
        return value.has_ended, value.options.causal_consistency
    if type(value).__module__ == "pymongo.results":
        return type(value), {
            name: plain_property(value, name)
            for name in dir(type(value))
            if isinstance(getattr(type(value), name), property)
        }
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return bson.decode_all(value)
    return value


def plain_property(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except PyMongoError as exc:
        return type(exc)


def synchronous_result(make: Callable[[], Any], call: table.Call) -> Any:
    target = make()
    try:
        result = call(target)
        if isinstance(result, Cursor | CommandCursor):
            result = list(result)
    except (PyMongoError, TypeError, ValueError) as exc:
        result = exc
    reduced = plain(result)
    for session in (target, result):
        if isinstance(session, ClientSession):
            session.end_session()
    return reduced


async def motor_result(make: Callable[[], Any], call: table.Call) -> Any:
    target = make()
    if inspect.isawaitable(target):
        target = await target
    try:
        result = call(target)
        if isinstance(result, asyncio.Future):
            result = await result
        if isinstance(result, MotorCursor | MotorCommandCursor):
            result = await result.to_list()
        if isinstance(result, MotorChangeStream):
            result = await result.try_next()
    except (PyMongoError, TypeError, ValueError) as exc:
        result = exc
    reduced = plain(result)
    if isinstance(target, MotorCommandCursor):
        await target.close()
    for session in (target, result):
        if isinstance(session, MotorClientSession):
            await session.end_session()
    return reduced


def contents(database: Any) -> Any:
    return {
        name: (list(database[name].find(sort=[("_id", 1)])), database[name].index_information())
        for name in sorted(database.list_collection_names())
    }


@pytest.mark.parametrize("cls", TABLES)
def test_every_declaration_has_a_call_in_the_table(cls: type[Wrapper]) -> None:
    installed = {name for name in cls.__declarations__ if hasattr(cls, name)}
    assert installed - OWN_OPERATIONS == set(TABLES[cls])


@pytest.mark.parametrize(("cls", "name"), CALLS)
def test_operation_does_the_same_as_in_synchronous_pymongo(
    cls: type[Wrapper], name: str, mongod_uri: str, synchronous: Any, database_name: str
) -> None:
    database = synchronous[database_name]
    call = TABLES[cls][name]

    async def main() -> Any:
        async with MotorClient(mongod_uri) as client:
            await client.aconnect()
            return await motor_result(targets(client, database_name)[cls], call)

    with pymongo.MongoClient(mongod_uri) as client:
        client.admin.command("ping")
        table.seed(database)
        expected = synchronous_result(targets(client, database_name)[cls], call)
        expected_contents = contents(database)
    table.seed(database)
    assert run(main()) == expected
    assert contents(database) == expected_contents


def test_declared_operations_take_the_parameters_of_pymongo() -> None:
    for cls in TABLES:
        for name, declaration in cls.__declarations__.items():
            resolved = inspect.getattr_static(cls, name)
            if not isinstance(resolved, property):
                original = getattr(cls.__delegate_class__, declaration.attribute or name)
                parameters = inspect.signature(original).parameters
                assert inspect.signature(resolved).parameters == parameters, (cls, name)


@pytest.mark.parametrize(("cls", "name"), ASYNC_CALLS)
def test_declared_operation_starts_at_once_and_returns_a_future(
    cls: type[Wrapper], name: str, mongod_uri: str, synchronous: Any, database_name: str
) -> None:
    table.seed(synchronous[database_name])

    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            target = targets(client, database_name)[cls]()
            if inspect.isawaitable(target):
                target = await target
            hub = current_hub()
            before = hub.suspended
            future = TABLES[cls][name](target)
            assert isinstance(future, asyncio.Future)
            # Refused before anything was sent, or on its way to the server.
            assert future.done() or hub.suspended == before + 1
            (result,) = await asyncio.gather(future, return_exceptions=True)
            for session in (target, result):
                if isinstance(session, MotorClientSession):
                    await session.end_session()

    run(main())


def test_operations_can_be_waited_for_gathered_and_called_back(
    mongod_uri: str, synchronous: Any, database_name: str
) -> None:
    table.seed(synchronous[database_name])

    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name]["items"]
            done, pending = await asyncio.wait([items.find_one({"_id": i}) for i in range(5)])
            assert not pending
            assert sorted(future.result()["_id"] for future in done) == [0, 1, 2, 3, 4]
            gathered = await asyncio.gather(*(items.find_one({"_id": i}) for i in range(5)))
            assert [document["_id"] for document in gathered] == [0, 1, 2, 3, 4]
            called: list[asyncio.Future[Any]] = []
            future = items.find_one({"_id": 3})
            future.add_done_callback(called.append)
            await future
            await asyncio.sleep(0)
            assert called == [future]
            ends = [await end for end in asyncio.as_completed([items.count_documents({})])]
            assert ends == [10]

    run(main())


@pytest.mark.gen_test
def test_operations_can_be_yielded_in_a_tornado_coroutine(
    mongod_uri: str, synchronous: Any, database_name: str
) -> Any:
    table.seed(synchronous[database_name])
    # pytest-tornado runs a generator up to here before it starts the loop.
    yield gen.moment
    client = MotorClient(mongod_uri)
    items = client[database_name]["items"]
    document = yield items.find_one({"_id": 1})
    assert document["n"] == 1
    documents = yield [items.find_one({"_id": i}) for i in range(3)]
    assert [document["_id"] for document in documents] == [0, 1, 2]
    named = yield {"a": items.find_one({"_id": 4}), "b": items.count_documents({})}
    assert (named["a"]["_id"], named["b"]) == (4, 10)
    results = yield gen.multi([items.find({}).to_list(3), items.distinct("n")])
    assert (len(results[0]), results[1]) == (3, [0, 1, 2])
    yield client.close()


def test_wrappers_among_the_arguments_are_unwrapped(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name]["items"]
            await items.insert_one({"_id": 1})
            async with await client.start_session() as session:
                assert await items.find_one({"_id": 1}, session=session) == {"_id": 1}
                assert await items.find({}, session=session).to_list() == [{"_id": 1}]
                cursor = items.aggregate([{"$match": {}}], session=session)
                assert await cursor.to_list() == [{"_id": 1}]
            await client[database_name].drop_collection(items)
            assert await client[database_name].list_collection_names() == []

    run(main())


def test_a_document_class_of_the_application_is_used(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri, document_class=RawBSONDocument) as client:
            await client[database_name]["items"].insert_one({"_id": 1})
            document = await client[database_name]["items"].find_one()
            assert isinstance(document, RawBSONDocument)

    run(main())


def test_databases_and_collections_are_reached_by_name_and_know_their_parents(
    mongod_uri: str,
) -> None:
    client = MotorClient(mongod_uri)
    assert (
        client.db.items
        == client["db"]["items"]
        == client.get_database("db").get_collection("items")
    )
    assert client.db.items.sub.full_name == "db.items.sub"
    assert client.db.items.sub.database.client is client
    assert client.db.items.find().collection == client.db.items
    assert len({client.db, client["db"]}) == 1
    for wrapper in (client, client.db, client.db.items):
        with pytest.raises(AttributeError, match=r"\['?_private|\[.*_private"):
            _ = wrapper._private
