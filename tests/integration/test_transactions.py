"""Sessions and transactions on a replica set."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import InvalidOperation, OperationFailure
from pymongo.read_concern import ReadConcern

from motorlike import MotorClient, MotorClientSession
from motorlike.testing.mongod import Deployment
from tests.integration.support import CommandLog, fail_point, run

APP = "test_transactions"


@pytest.fixture
def uri(replica_set: Deployment) -> Iterator[str]:
    """The replica set, with an empty collection `transactions.items`."""
    with pymongo.MongoClient(replica_set.uri, w="majority") as client:
        client.drop_database("transactions")
        client.transactions.create_collection("items")
        yield replica_set.uri
        client.drop_database("transactions")


def test_a_committed_transaction_is_seen_and_not_before(uri: str) -> None:
    async def main() -> None:
        async with MotorClient(uri) as client:
            items = client.transactions.items
            async with await client.start_session() as session:
                assert isinstance(session, MotorClientSession)
                assert session.client is client
                async with session.start_transaction():
                    assert session.in_transaction
                    await items.insert_one({"_id": 1}, session=session)
                    await items.insert_one({"_id": 2}, session=session)
                    assert await items.count_documents({}, session=session) == 2
                    assert await items.find_one({"_id": 1}) is None
                assert not session.in_transaction
                assert await items.count_documents({}) == 2
            assert session.has_ended

    run(main())


def test_an_exception_in_the_block_aborts_its_transaction(uri: str) -> None:
    async def main() -> None:
        async with MotorClient(uri) as client, await client.start_session() as session:
            items = client.transactions.items
            with pytest.raises(LookupError):
                async with session.start_transaction():
                    await items.insert_one({"_id": 1}, session=session)
                    raise LookupError
            assert await items.count_documents({}) == 0

    run(main())


def test_a_transaction_can_be_committed_and_aborted_by_hand(uri: str) -> None:
    async def main() -> None:
        async with MotorClient(uri) as client, await client.start_session() as session:
            items = client.transactions.items
            session.start_transaction(
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
                max_commit_time_ms=5000,
            )
            await items.insert_one({"_id": 1}, session=session)
            await session.commit_transaction()
            # A second commit is the first one again.
            await session.commit_transaction()
            session.start_transaction()
            await items.insert_one({"_id": 2}, session=session)
            await session.abort_transaction()
            with pytest.raises(InvalidOperation, match="abortTransaction twice"):
                await session.abort_transaction()
            with pytest.raises(InvalidOperation, match="after calling abortTransaction"):
                await session.commit_transaction()
            assert await items.distinct("_id") == [1]

    run(main())


def test_two_transactions_on_one_document_conflict(uri: str) -> None:
    async def main() -> None:
        async with (
            MotorClient(uri) as client,
            await client.start_session() as first,
            await client.start_session() as second,
        ):
            items = client.transactions.items
            await items.insert_one({"_id": 1, "n": 0})
            async with first.start_transaction():
                await items.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=first)
                with pytest.raises(OperationFailure) as caught:
                    async with second.start_transaction():
                        await items.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=second)
                assert caught.value.has_error_label("TransientTransactionError")
            assert await items.find_one() == {"_id": 1, "n": 1}

    run(main())


def test_many_transactions_at_once_each_see_their_own_writes(uri: str) -> None:
    async def transact(client: MotorClient, number: int) -> None:
        items = client.transactions.items
        async with await client.start_session() as session, session.start_transaction():
            for part in range(3):
                await items.insert_one({"_id": f"{number}.{part}"}, session=session)
            mine = items.find({"_id": {"$regex": f"^{number}\\."}}, session=session)
            assert len(await mine.to_list()) == 3

    async def main() -> None:
        async with MotorClient(uri, maxPoolSize=5) as client:
            await asyncio.gather(*(transact(client, number) for number in range(30)))
            assert await client.transactions.items.count_documents({}) == 90

    run(main())


def test_a_commit_is_retried_after_a_network_error(uri: str, replica_set: Deployment) -> None:
    address = replica_set.primary().address

    async def main() -> None:
        log = CommandLog()
        async with (
            MotorClient(uri, appName=APP, event_listeners=[log]) as client,
            await client.start_session() as session,
        ):
            items = client.transactions.items
            session.start_transaction()
            await items.insert_one({"_id": 1}, session=session)
            async with fail_point(
                address,
                ["commitTransaction"],
                mode={"times": 1},
                appName=APP,
                closeConnection=True,
            ):
                await session.commit_transaction()
            assert log.names.count("commitTransaction") == 2
            assert await items.count_documents({}) == 1

    run(main())


def test_a_cancelled_operation_leaves_a_transaction_that_can_be_aborted(
    uri: str, replica_set: Deployment
) -> None:
    address = replica_set.primary().address

    async def main() -> None:
        async with MotorClient(uri, appName=APP) as client:
            items = client.transactions.items
            async with fail_point(
                address, ["insert"], mode={"times": 1}, appName=APP, blockTimeMS=300
            ):
                session = await client.start_session()
                with pytest.raises(TimeoutError):
                    async with session, session.start_transaction(), asyncio.timeout(0.1):
                        await items.insert_one({"_id": 1}, session=session)
                assert session.has_ended
            assert await items.count_documents({}) == 0
            await items.insert_one({"_id": 1})

    run(main())


def test_a_session_orders_reads_after_its_writes(uri: str) -> None:
    async def main() -> None:
        async with MotorClient(uri, readPreference="secondary") as client:
            items = client.transactions.get_collection(
                "items",
                write_concern=WriteConcern("majority"),
                read_concern=ReadConcern("majority"),
            )
            async with await client.start_session(causal_consistency=True) as session:
                for number in range(20):
                    await items.insert_one({"_id": number}, session=session)
                    found = await items.find_one({"_id": number}, session=session)
                    assert found == {"_id": number}
                assert session.operation_time is not None
                async with await client.start_session() as other:
                    other.advance_cluster_time(session.cluster_time)
                    other.advance_operation_time(session.operation_time)
                    assert await items.find({}, session=other).to_list(1)

    run(main())


def test_a_session_of_another_client_is_refused(uri: str) -> None:
    async def main() -> None:
        async with (
            MotorClient(uri) as one,
            MotorClient(uri) as other,
            await other.start_session() as session,
        ):
            with pytest.raises(InvalidOperation):
                await one.transactions.items.find_one(session=session)

    run(main())


def test_a_session_that_was_never_ended_leaves_nothing(uri: str) -> None:
    sessions: list[Any] = []

    async def main() -> None:
        async with MotorClient(uri) as client:
            sessions.append(await client.start_session())
            await client.transactions.items.insert_one({"_id": 1}, session=sessions[0])

    run(main())
