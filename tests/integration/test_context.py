"""What surrounds an operation: its context, its errors, and who listens."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import traceback
import weakref
from typing import Any

import bson
import pymongo
import pytest
from pymongo import monitoring
from pymongo.errors import BulkWriteError, DuplicateKeyError, NetworkTimeout, OperationFailure
from pymongo.results import InsertOneResult
from tornado import gen

from motorlike import MotorClient
from motorlike.testing.mongod import Deployment
from tests.integration.support import CommandLog, fail_point, run

APP = "test_context"

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class ContextLog(monitoring.CommandListener):
    """Remembers in which context each command started, and on which task."""

    def __init__(self) -> None:
        self.users: list[str] = []

    def started(self, event: Any) -> None:
        self.users.append(user.get())

    def succeeded(self, event: Any) -> None:
        pass

    failed = succeeded


def test_an_operation_runs_in_a_copy_of_its_callers_context(mongod_uri: str) -> None:
    async def as_user(client: MotorClient, name: str) -> None:
        user.set(name)
        await client.admin.command("ping")
        await client.db.items.aggregate([]).to_list()
        assert user.get() == name

    async def main() -> None:
        log = ContextLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            await asyncio.gather(*(as_user(client, name) for name in "abc"))
            assert sorted(log.users) == ["a", "a", "b", "b", "c", "c"]
            assert user.get() == "nobody"

    run(main())


def test_the_deadline_of_pymongo_timeout_reaches_each_operation_of_its_block_alone(
    mongod: Deployment,
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod.uri, appName=APP, event_listeners=[log]) as client:
            await client.aconnect()
            async with fail_point(mongod.address, ["find"], appName=APP, blockTimeMS=250):
                patient = client.db.items.find_one()
                with pymongo.timeout(0.1):
                    hasty = client.db.items.find_one()
                    with pytest.raises(NetworkTimeout):
                        await hasty
                assert await patient is None
            sent = [e.command for e in log.started_events if e.command_name == "find"]
            assert [0 < command.get("maxTimeMS", 0) <= 100 for command in sent] == [False, True]

    run(main())


def test_the_driver_finds_no_task_of_the_callers_inside_its_greenlets(mongod_uri: str) -> None:
    """Pitfall 15: after a wait it runs inside a reader callback, where no task is current."""
    tasks: list[Any] = []

    class TaskLog(ContextLog):
        def succeeded(self, event: Any) -> None:
            tasks.append(asyncio.current_task())

    async def main() -> None:
        async with MotorClient(mongod_uri, event_listeners=[TaskLog()]) as client:
            # Also where nobody but a callback of the loop starts operations.
            done = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(
                lambda: client.admin.command("ping").add_done_callback(done.set_result)
            )
            assert (await done).result()["ok"] == 1
            assert tasks == [None]

    run(main())


async def _insert_twice(client: MotorClient, name: str) -> None:
    await client[name].items.insert_one({"_id": 1})
    await client[name].items.insert_one({"_id": 1})  # the line that fails


def test_a_traceback_shows_the_users_await_and_the_drivers_frames(
    mongod_uri: str, database_name: str
) -> None:
    """Pitfall 16."""

    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            with pytest.raises(DuplicateKeyError) as caught:
                await _insert_twice(client, database_name)
            frames = traceback.extract_tb(caught.value.__traceback__)
            lines = [frame.line for frame in frames]
            assert "await _insert_twice(client, database_name)" in lines
            assert any("# the line that fails" in (line or "") for line in lines)
            files = [frame.filename for frame in frames]
            assert any(file.endswith("pymongo/synchronous/collection.py") for file in files)
            # Down, never up again: the user's frames come before the driver's.
            assert files.index(__file__) < next(
                i for i, file in enumerate(files) if "pymongo" in file
            )

    run(main())


@pytest.mark.gen_test
async def test_a_traceback_shows_the_yield_of_a_tornado_coroutine(
    mongod_uri: str, database_name: str
) -> None:
    """Pitfall 16, in the older style."""

    @gen.coroutine
    def insert_twice() -> Any:
        yield client[database_name].items.insert_one({"_id": 1})
        yield client[database_name].items.insert_one({"_id": 1})  # fails

    async with MotorClient(mongod_uri) as client:
        with pytest.raises(DuplicateKeyError) as caught:
            await insert_twice()
        lines = [frame.line for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert 'yield client[database_name].items.insert_one({"_id": 1})  # fails' in lines
        assert any("_insert_one" in (line or "") for line in lines)


def test_a_profiler_sees_the_frames_inside_greenlets(mongod_uri: str) -> None:
    """Pitfall 16: `sys.setprofile` works, and is still set afterwards."""
    names: set[str] = set()

    def profile(frame: Any, event: str, argument: object) -> None:
        names.add(frame.f_code.co_name)

    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            await client.aconnect()
            before = sys.getprofile()
            sys.setprofile(profile)
            try:
                await client.db.items.find_one()
                assert sys.getprofile() is profile
            finally:
                sys.setprofile(before)
            assert {"find_one", "receive_message"} <= names

    run(main())


def test_an_exception_that_is_raised_again_does_not_grow(mongod_uri: str) -> None:
    """Pitfall 12: each operation raises an instance of its own."""

    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            errors = []
            for _ in range(3):
                with pytest.raises(OperationFailure) as caught:
                    await client.admin.command("noSuchCommand")
                errors.append(caught.value)
            assert len(set(map(id, errors))) == 3
            depths = [len(traceback.extract_tb(error.__traceback__)) for error in errors]
            assert len(set(depths)) == 1

    run(main())


def test_the_future_of_a_failed_operation_is_freed_without_the_garbage_collector(
    mongod_uri: str,
) -> None:
    """Pitfall 12: the exception, which PyMongo keeps in a cycle, does not reach its future."""

    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            futures = [client.admin.command("noSuchCommand") for _ in range(10)]
            await asyncio.wait(futures)
            assert all(isinstance(future.exception(), OperationFailure) for future in futures)
            references = [weakref.ref(future) for future in futures]
            futures.clear()
            await asyncio.sleep(0)
            assert [reference() for reference in references] == [None] * 10

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_errors_and_results_are_the_applications_own_classes(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name].items
            result = await items.insert_one({"_id": 1})
            assert type(result) is InsertOneResult
            try:
                await items.insert_one({"_id": 1})
            except pymongo.errors.DuplicateKeyError as exc:
                assert type(exc) is DuplicateKeyError
                assert exc.code == 11000
            with pytest.raises(BulkWriteError) as caught:
                await items.insert_many([{"_id": 2}, {"_id": 1}])
            assert caught.value.details["nInserted"] == 1
            with pytest.raises(bson.errors.InvalidDocument):
                await items.insert_one({"_id": object()})
            with pytest.raises(TypeError, match="must be an instance of dict"):
                await items.insert_one("no document")

    run(main())


def test_command_listeners_see_what_happens(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            items = client[database_name].items
            await items.insert_one({"_id": 1})
            with pytest.raises(DuplicateKeyError):
                await items.insert_one({"_id": 1})
            with pytest.raises(OperationFailure):
                await client.admin.command("noSuchCommand")
            assert await items.find_one() == {"_id": 1}
            assert log.names == ["insert", "insert", "noSuchCommand", "find"]
            assert [event.command_name for event in log.failed_events] == ["noSuchCommand"]
            assert [event.command_name for event in log.succeeded_events] == [
                *("insert", "insert", "find")
            ]
            assert all(event.duration_micros > 0 for event in log.succeeded_events)
            ids = [event.operation_id for event in log.started_events]
            assert len(set(ids)) == 4
            # PyMongo's own classes, as the application imports them.
            assert type(log.started_events[0]) is monitoring.CommandStartedEvent

    run(main())


def test_an_error_in_a_listener_does_not_end_the_operation(
    mongod_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(ContextLog):
        def started(self, event: Any) -> None:
            raise LookupError("a listener's own fault")

    async def main() -> None:
        async with MotorClient(mongod_uri, event_listeners=[Broken()]) as client:
            assert (await client.admin.command("ping"))["ok"] == 1

    run(main())
    # PyMongo prints such errors.
    assert "a listener's own fault" in capsys.readouterr().err


def test_a_listener_may_start_an_operation_of_its_own(mongod_uri: str, database_name: str) -> None:
    """One greenlet that starts another is not resumed by it: every child's parent is the hub."""
    started: list[asyncio.Future[Any]] = []

    class Audit(ContextLog):
        def started(self, event: Any) -> None:
            if event.command_name == "find":
                started.append(audits.insert_one({"_id": event.request_id}))

    async def main() -> None:
        nonlocal audits
        async with (
            MotorClient(mongod_uri) as other,
            MotorClient(mongod_uri, event_listeners=[Audit()]) as client,
        ):
            audits = other[database_name].audits
            for _ in range(5):
                assert await client[database_name].items.find_one() is None
            await asyncio.gather(*started)
            assert await audits.count_documents({}) == 5

    audits: Any = None
    run(main())


def test_the_driver_names_itself_to_the_server(mongod: Deployment, synchronous: Any) -> None:
    async def main() -> None:
        async with MotorClient(mongod.uri, appName=APP) as client:
            await client.aconnect()
            operations = synchronous.admin.aggregate(
                [
                    {"$currentOp": {"allUsers": True, "idleConnections": True}},
                    {"$match": {"appName": APP}},
                ]
            )
            names = {op["clientMetadata"]["driver"]["name"] for op in operations}
            assert len(names) == 1
            assert "motorlike" in names.pop()

    run(main())
