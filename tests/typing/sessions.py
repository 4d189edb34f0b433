"""Sessions and other objects of motorlike stand where PyMongo's signatures have its own.

Read by mypy and pyright, never run. A `type: ignore` marks a mistake that both
must find; where one of them stops finding it, it reports the comment.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Mapping
from typing import Any, assert_type

import pymongo
from bson.timestamp import Timestamp
from pymongo.client_session import ClientSession
from pymongo.read_concern import ReadConcern
from pymongo.topology_description import TopologyDescription

from motorlike import MotorClient, MotorClientSession, MotorCollection, MotorDatabase
from motorlike.declare import EnteringFuture

Document = dict[str, Any]


async def transactions(client: MotorClient[Document]) -> None:
    assert_type(client.start_session(causal_consistency=True), EnteringFuture[MotorClientSession])
    async with await client.start_session() as session:
        assert_type(session, MotorClientSession)
        async with session.start_transaction(ReadConcern("snapshot"), max_commit_time_ms=50):
            await client.bank.accounts.insert_one({}, session=session)
        assert_type(session.commit_transaction(), Future[None])
        assert_type(session.client, MotorClient[Any])
        assert_type(session.in_transaction, bool)
        assert_type(session.operation_time, Timestamp | None)
        assert_type(session.session_id, Mapping[str, Any])
        session.start_transaction("snapshot")  # type: ignore[arg-type]


def sessions_of_pymongo_are_not_taken(
    collection: MotorCollection[Document], session: MotorClientSession, theirs: ClientSession
) -> None:
    collection.insert_one({}, session=session)
    collection.aggregate([], session)
    collection.insert_one({}, session=theirs)  # type: ignore[arg-type]
    collection.aggregate([], theirs)  # type: ignore[arg-type]


def wrappers_are_taken_where_pymongo_takes_its_own(
    client: MotorClient[Document],
    database: MotorDatabase[Document],
    collection: MotorCollection[Document],
    theirs: pymongo.MongoClient[Document],
) -> None:
    client.drop_database(database)
    database.drop_collection(collection)
    database.validate_collection(collection, full=True)
    client.drop_database(theirs.test)  # type: ignore[arg-type]
    assert_type(collection.find().session, MotorClientSession | None)


def properties(client: MotorClient[Document]) -> None:
    assert_type(client.HOST, str)
    assert_type(client.PORT, int)
    assert_type(client.address, tuple[str, int] | None)
    assert_type(client.topology_description, TopologyDescription)
    client.address = ("localhost", 27017)  # type: ignore[misc]


async def lifetimes(client: MotorClient[Document]) -> None:
    async with client as entered:
        assert_type(entered, MotorClient[Document])
    assert_type(client.close(), "asyncio.Future[None]")  # type: ignore[assert-type]
    await client.close()


async def operations_go_where_futures_go(collection: MotorCollection[Document]) -> None:
    both = await asyncio.gather(collection.find_one(), collection.count_documents({}))
    assert_type(both, tuple[Document | None, int])
    done, _ = await asyncio.wait([collection.find_one(), collection.find_one({"_id": 1})])
    assert_type(done.pop().result(), Document | None)
    operation = collection.find_one()
    operation.add_done_callback(lambda future: assert_type(future.result(), Document | None))
    assert_type(operation.cancel(), bool)
    assert_type(await asyncio.wait_for(collection.find_one(), 1), Document | None)


async def sessions_are_entered_awaited_or_not(client: MotorClient[Document]) -> None:
    async with client.start_session() as session:
        assert_type(session, MotorClientSession)
        assert_type(await session.with_transaction(count), int)
        async with await session.start_transaction():
            pass
        async with session.bind() as bound:
            assert_type(bound, MotorClientSession)


async def count(session: MotorClientSession) -> int:
    return await session.client.db.items.count_documents({}, session=session)
