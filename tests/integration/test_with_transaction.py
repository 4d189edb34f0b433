"""`with_transaction`: a coroutine function in a transaction, tried again as PyMongo does."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pymongo
import pytest
from pymongo.errors import InvalidOperation, OperationFailure
from pymongo.read_concern import ReadConcern

from motorlike import MotorClient, MotorClientSession
from motorlike.testing.mongod import Deployment
from tests.integration.support import CommandLog, eventually, fail_point, run

APP = "test_with_transaction"
COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")

Story = Callable[[MotorClient[dict[str, Any]], Any, MotorClientSession], Coroutine[Any, Any, None]]


@pytest.fixture
def uri(replica_set: Deployment) -> Iterator[str]:
    with pymongo.MongoClient(replica_set.uri, w="majority") as client:
        client.drop_database("with_transaction")
        client.with_transaction.create_collection("items")
        yield replica_set.uri
        client.drop_database("with_transaction")


def tell(uri: str, story: Story, **options: Any) -> None:
    async def main() -> None:
        async with (
            MotorClient(uri, appname=APP, **options) as client,
            client.start_session() as session,
        ):
            await story(client, client.with_transaction.items, session)

    run(main())


def test_callback_awaits_operations_and_its_result_comes_back(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        async def callback(given: Any) -> int:
            assert given is session
            assert session.in_transaction
            await items.insert_one({"_id": 1}, session=session)
            assert await items.find_one({"_id": 1}) is None
            return int(await items.count_documents({}, session=session))

        assert await session.with_transaction(callback, ReadConcern("snapshot")) == 1
        assert not session.in_transaction
        assert await items.count_documents({}) == 1

    tell(uri, story)


def test_callback_runs_in_the_callers_task_and_context(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        task = asyncio.current_task()

        async def callback(session: Any) -> None:
            assert asyncio.current_task() is task
            COLOUR.set("blue")
            await items.insert_one({}, session=session)

        await session.with_transaction(callback)
        assert COLOUR.get() == "blue"

    tell(uri, story)


def test_an_exception_aborts_and_is_raised_as_it_is(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        error = LookupError("mine")

        async def callback(session: Any) -> None:
            await items.insert_one({"_id": 1}, session=session)
            raise error

        with pytest.raises(LookupError) as caught:
            await session.with_transaction(callback)
        assert caught.value is error
        assert not session.in_transaction
        assert await items.count_documents({}) == 0

    tell(uri, story)


def test_callback_may_end_the_transaction_itself(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        async def callback(session: Any) -> str:
            await items.insert_one({"_id": 1}, session=session)
            await session.abort_transaction()
            return "aborted"

        assert await session.with_transaction(callback) == "aborted"
        assert await items.count_documents({}) == 0

    tell(uri, story)


def test_transient_errors_run_the_callback_again(uri: str, replica_set: Deployment) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        await client.admin.command("ping")
        runs = []

        async def callback(session: Any) -> int:
            runs.append(session)
            await items.insert_one({"_id": len(runs)}, session=session)
            return len(runs)

        async with fail_point(
            client.primary,
            ["insert"],
            mode={"times": 2},
            appName=APP,
            errorCode=251,
            errorLabels=["TransientTransactionError"],
        ):
            assert await session.with_transaction(callback) == 3
        assert [item["_id"] async for item in items.find()] == [3]

    tell(uri, story)


def test_a_commit_of_unknown_result_is_tried_again_alone(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any, session: Any) -> None:
        await client.admin.command("ping")
        runs = []

        async def callback(session: Any) -> None:
            runs.append(session)
            await items.insert_one({"_id": 1}, session=session)

        async with fail_point(
            client.primary,
            ["commitTransaction"],
            mode={"times": 3},
            appName=APP,
            errorCode=64,
            errorLabels=["UnknownTransactionCommitResult"],
        ):
            await session.with_transaction(callback)
        assert len(runs) == 1
        assert log.names.count("commitTransaction") == 4
        assert await items.count_documents({}) == 1

    tell(uri, story, event_listeners=[log])


def test_other_errors_are_not_tried_again(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        runs = []

        async def callback(session: Any) -> None:
            runs.append(session)
            await client.with_transaction.command("noSuchCommand", session=session)

        with pytest.raises(OperationFailure):
            await session.with_transaction(callback)
        assert len(runs) == 1

    tell(uri, story)


def test_two_transactions_that_collide_both_happen(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        await items.insert_one({"_id": "counter", "n": 0})

        async def increment(session: Any) -> None:
            found = await items.find_one({"_id": "counter"}, session=session)
            await items.update_one(
                {"_id": "counter"}, {"$set": {"n": found["n"] + 1}}, session=session
            )

        async def one() -> None:
            async with client.start_session() as own:
                await own.with_transaction(increment)

        await asyncio.gather(*(one() for _ in range(5)))
        assert (await items.find_one({"_id": "counter"}))["n"] == 5

    tell(uri, story)


def test_cancelling_aborts_before_the_caller_goes_on(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any, session: Any) -> None:
        inserted = asyncio.Event()

        async def callback(session: Any) -> None:
            await items.insert_one({"_id": 1}, session=session)
            inserted.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(session.with_transaction(callback))
        await inserted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not session.in_transaction
        await eventually(lambda: "abortTransaction" in log.names)
        assert await items.count_documents({}) == 0

    tell(uri, story, event_listeners=[log])


def test_it_refuses_to_start_in_a_transaction(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        async def callback(session: Any) -> None:
            raise AssertionError("never called")

        async with session.start_transaction():
            with pytest.raises(InvalidOperation):
                await session.with_transaction(callback)

    tell(uri, story)


def test_start_transaction_may_be_awaited(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        async with await session.start_transaction():
            await items.insert_one({"_id": 1}, session=session)
        await session.start_transaction()
        await items.insert_one({"_id": 2}, session=session)
        await session.abort_transaction()
        assert await items.count_documents({}) == 1

    tell(uri, story)


def test_bound_session_is_used_where_none_is_named(uri: str) -> None:
    log = CommandLog()

    async def story(client: Any, items: Any, session: Any) -> None:
        async with session.bind(end_session=False) as bound:
            assert bound is session
            await items.insert_one({"_id": 1})
        assert not session.has_ended
        await items.insert_one({"_id": 2})
        used = [e.command["lsid"] for e in log.started_events if e.command_name == "insert"]
        assert used[0] == session.session_id != used[1]
        async with session.bind():
            pass
        assert session.has_ended

    tell(uri, story, event_listeners=[log])


def test_callback_that_is_not_awaitable_aborts_with_a_type_error(uri: str) -> None:
    async def story(client: Any, items: Any, session: Any) -> None:
        with pytest.raises(TypeError):
            await session.with_transaction(lambda session: None)
        assert not session.in_transaction

    tell(uri, story)
