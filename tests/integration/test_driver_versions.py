"""The loaded driver against a replica set: the same on every PyMongo and Tornado."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pymongo
import pytest
import tornado
from pymongo.errors import DuplicateKeyError, OperationFailure

from motorlike import green
from motorlike.driver import MongoClient
from motorlike.testing.mongod import Deployment


@pytest.fixture
def run(replica_set: Deployment) -> Callable[[Callable[[Any], Any]], Any]:
    """Run a synchronous function on an empty database, in a child greenlet."""

    def run(function: Callable[[Any], Any]) -> Any:
        def body(client: Any) -> Any:
            database = client["driver_versions"]
            try:
                database.create_collection("things")
                return function(database)
            finally:
                client.drop_database(database)
                client.close()

        async def main() -> Any:
            client = MongoClient(replica_set.uri, **replica_set.client_options)
            return await green.spawn(body, client)

        return asyncio.run(main())

    return run


def test_documents_are_written_and_read(run: Callable[..., Any]) -> None:
    def body(database: Any) -> None:
        things = database.things
        result = things.insert_many([{"_id": n, "even": n % 2 == 0} for n in range(10)])
        assert type(result) is pymongo.results.InsertManyResult
        assert things.find_one({"_id": 3}) == {"_id": 3, "even": False}
        assert things.count_documents({"even": True}) == 5
        assert things.update_many({"even": True}, {"$set": {"x": 1}}).modified_count == 5
        assert things.delete_one({"_id": 0}).deleted_count == 1
        assert sorted(things.distinct("even")) == [False, True]
        requests = [pymongo.InsertOne({"_id": 20}), pymongo.DeleteOne({"_id": 9})]
        assert things.bulk_write(requests).inserted_count == 1
        with pytest.raises(DuplicateKeyError):
            things.insert_one({"_id": 20})

    run(body)


def test_cursors_fetch_batch_after_batch(run: Callable[..., Any]) -> None:
    def body(database: Any) -> None:
        database.things.insert_many([{"_id": n} for n in range(50)])
        found = database.things.find(batch_size=7).sort("_id")
        assert [each["_id"] for each in found] == list(range(50))
        grouped = database.things.aggregate(
            [{"$group": {"_id": {"$mod": ["$_id", 20]}, "n": {"$sum": 1}}}], batchSize=3
        )
        assert sum(each["n"] for each in grouped) == 50

    run(body)


def test_a_cursor_left_open_is_killed_without_a_wait(run: Callable[..., Any]) -> None:
    def body(database: Any) -> int:
        database.things.insert_many([{"_id": n} for n in range(50)])
        cursor = database.things.find(batch_size=2)
        next(cursor)
        del cursor
        MongoClient._process_kill_cursors(database.client)
        # Of this collection: other tests leave cursors that end when they will.
        idle = {"type": "idleCursor", "ns": f"{database.name}.things"}
        current = {"$currentOp": {"allUsers": True, "idleCursors": True}}
        return len(list(database.client.admin.aggregate([current, {"$match": idle}])))

    assert run(body) == 0


def test_transactions_commit_and_abort(run: Callable[..., Any]) -> None:
    def body(database: Any) -> None:
        things = database.things
        with database.client.start_session() as session:
            assert session.with_transaction(
                lambda s: things.insert_one({"_id": 1}, session=s).inserted_id
            )
            with pytest.raises(OperationFailure), session.start_transaction():
                things.insert_one({"_id": 2}, session=session)
                things.insert_one({"_id": 1}, session=session)
        assert [each["_id"] for each in things.find()] == [1]

    run(body)


def test_changes_are_watched(run: Callable[..., Any]) -> None:
    def body(database: Any) -> None:
        with database.things.watch() as stream:
            assert stream.try_next() is None
            database.things.insert_one({"_id": 1})
            assert next(stream)["fullDocument"] == {"_id": 1}

    run(body)


def test_pymongo_timeout_reaches_the_server(run: Callable[..., Any]) -> None:
    def body(database: Any) -> None:
        database.things.insert_one({})
        with pymongo.timeout(0.2), pytest.raises(pymongo.errors.PyMongoError) as caught:
            database.things.find_one({"$where": "sleep(5000) || true"})
        assert caught.value.timeout

    run(body)


def test_no_thread_is_started(run: Callable[..., Any]) -> None:
    before = set(threading.enumerate())

    def body(database: Any) -> set[threading.Thread]:
        database.things.insert_one({})
        return set(threading.enumerate()) - before

    assert run(body) == set(), (pymongo.version, tornado.version)
