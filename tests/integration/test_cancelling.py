"""However an operation is ended early: it ends soon, and nothing else suffers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import pymongo
import pytest
from pymongo.errors import (
    ConnectionFailure,
    NetworkTimeout,
    PyMongoError,
)

from motorlike import MotorClient
from motorlike.green.hub import Waiter, current_hub
from motorlike.testing.mongod import Deployment
from tests.integration.proxy import Proxy
from tests.integration.support import assert_pool_is_at_rest, eventually, fail_point, pool_of, run

APP = "test_cancelling"
# How long the server holds a reply back, and how soon its caller must be free.
BLOCK_MS = 1500
PROMPT_SECONDS = 1.0
LIMIT = 0.1
# What a client's own limit is: it holds for each operation of the test, also
# for those that are to succeed, and on a busy machine.
OPTION_LIMIT_MS = 400


async def _task_cancel(items: Any) -> None:
    async def find() -> None:
        await items.find_one({"_id": 1})

    task = asyncio.create_task(find())
    await asyncio.sleep(LIMIT)
    task.cancel()
    await task


async def _future_cancel(items: Any) -> None:
    future = items.find_one({"_id": 1})
    await asyncio.sleep(LIMIT)
    assert future.cancel()
    assert future.cancelled()
    await future


async def _asyncio_timeout(items: Any) -> None:
    async with asyncio.timeout(LIMIT):
        await items.find_one({"_id": 1})


async def _wait_for(items: Any) -> None:
    await asyncio.wait_for(items.find_one({"_id": 1}), LIMIT)


async def _task_group(items: Any) -> None:
    async def fail() -> None:
        await asyncio.sleep(LIMIT)
        raise LookupError

    async def find() -> None:
        await items.find_one({"_id": 1})

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(find())
            group.create_task(fail())
    except* LookupError as group_error:
        raise LookupError from group_error


async def _pymongo_timeout(items: Any) -> None:
    with pymongo.timeout(LIMIT):
        await items.find_one({"_id": 1})


async def _plainly(items: Any) -> None:
    await items.find_one({"_id": 1})


async def _cursor(items: Any) -> None:
    async with asyncio.timeout(LIMIT):
        async for _ in items.find():
            pass


WAYS: dict[str, tuple[Callable[[Any], Awaitable[None]], type[BaseException], dict[str, Any]]] = {
    "Task.cancel": (_task_cancel, asyncio.CancelledError, {}),
    "Future.cancel": (_future_cancel, asyncio.CancelledError, {}),
    "asyncio.timeout": (_asyncio_timeout, TimeoutError, {}),
    "wait_for": (_wait_for, TimeoutError, {}),
    "TaskGroup": (_task_group, LookupError, {}),
    "asyncio.timeout around a cursor": (_cursor, TimeoutError, {}),
    "pymongo.timeout": (_pymongo_timeout, NetworkTimeout, {}),
    "timeoutMS": (_plainly, NetworkTimeout, {"timeoutMS": OPTION_LIMIT_MS}),
    "socketTimeoutMS": (_plainly, NetworkTimeout, {"socketTimeoutMS": OPTION_LIMIT_MS}),
}


@pytest.mark.parametrize(("way", "error", "options"), WAYS.values(), ids=WAYS)
def test_operation_ended_early_closes_its_connection_and_lets_the_next_one_in(
    way: Callable[[Any], Awaitable[None]],
    error: type[BaseException],
    options: dict[str, Any],
    mongod: Deployment,
    database_name: str,
) -> None:
    """Pitfalls 3, 4, 5 and 7: the slot is free, the line moves on, each gets its own reply."""

    async def main() -> None:
        options.setdefault("retryReads", False)
        # Making a collection may wait for the server's disk: not under a limit.
        async with MotorClient(mongod.uri) as client:
            await client[database_name].items.insert_many([{"_id": i} for i in range(5)])
        async with MotorClient(mongod.uri, appName=APP, maxPoolSize=1, **options) as client:
            items = client[database_name].items
            assert await items.find_one({"_id": 1}) == {"_id": 1}
            (connection,) = pool_of(client).conns
            async with fail_point(
                mongod.address, ["find"], mode={"times": 1}, appName=APP, blockTimeMS=BLOCK_MS
            ):
                started = time.monotonic()
                operation = asyncio.create_task(_outcome(way(items)))
                await asyncio.sleep(0.02)
                # It waits for the only connection; its time is its own.
                waiting = items.count_documents({})
                assert isinstance(await operation, error)
                assert time.monotonic() - started < PROMPT_SECONDS
                if "timeoutMS" in options:
                    assert isinstance(await _outcome(waiting), int | PyMongoError)
                else:
                    assert await waiting == 5
            assert connection.closed
            assert connection not in pool_of(client).conns
            for i in range(5):
                assert await items.find_one({"_id": i}) == {"_id": i}
            assert_pool_is_at_rest(client)

    run(main())


async def _outcome(awaitable: Awaitable[None]) -> Any:
    (result,) = await asyncio.gather(awaitable, return_exceptions=True)
    return result


@pytest.mark.parametrize("leave", ["cancel", "timeout"])
def test_who_leaves_the_queue_is_never_handed_a_connection(leave: str, mongod: Deployment) -> None:
    """Pitfall 3: nobody would return it."""

    async def main() -> None:
        async with MotorClient(mongod.uri, appName=APP, maxPoolSize=1) as client:
            await client.aconnect()
            async with fail_point(
                mongod.address, ["ping"], mode={"times": 1}, appName=APP, blockTimeMS=300
            ):
                first = client.admin.command("ping")
                leaving = [client.admin.command("ping", comment="left") for _ in range(5)]
                staying = [client.admin.command("ping") for _ in range(5)]
                await asyncio.sleep(0.02)
                assert pool_of(client).operation_count == 11
                if leave == "cancel":
                    for operation in leaving:
                        operation.cancel()
                else:
                    done = [asyncio.wait_for(operation, 0.02) for operation in leaving]
                    results = await asyncio.gather(*done, return_exceptions=True)
                    assert {type(result) for result in results} == {TimeoutError}
                assert pool_of(client).operation_count == 6
                assert [(await operation)["ok"] for operation in [first, *staying]] == [1.0] * 6
            assert_pool_is_at_rest(client)

    run(main())


def test_a_cancel_at_the_moment_of_the_wake_up_passes_the_slot_on(mongod_uri: str) -> None:
    """Pitfalls 3 and 5: the slot that it was woken for is not lost."""

    async def main() -> None:
        async with MotorClient(mongod_uri, maxPoolSize=1) as client:
            await client.aconnect()
            for _ in range(30):
                first = client.admin.command("ping")
                second = client.admin.command("ping")
                third = client.admin.command("ping")
                # Runs as soon as the first is done: its slot is just on its way.
                first.add_done_callback(lambda _, woken=second: woken.cancel())
                await asyncio.wait([first, second, third], timeout=5)
                assert second.done()
                assert (await third)["ok"] == 1
                assert_pool_is_at_rest(client)

    run(main())


def test_an_operation_can_be_cancelled_at_every_wait_of_its_life(
    mongod_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfalls 4 and 6: connect, handshake, check-out, send and receive give all back."""
    is_swept = ContextVar("is_swept", default=False)
    waits: list[str] = []
    cancel: list[Callable[[], object]] = []
    make = Waiter.__init__

    def counting(self: Waiter, operation: str) -> None:
        make(self, operation)
        if is_swept.get():
            waits.append(operation)
            if len(waits) == cancel_at:
                self.hub.loop.call_soon(lambda: cancel[0]())

    monkeypatch.setattr(Waiter, "__init__", counting)

    async def main() -> bool:
        async with MotorClient(mongod_uri, maxPoolSize=1) as client:
            waits.clear()
            context = copy_context()
            context.run(is_swept.set, True)
            operation = context.run(client.db.items.find_one)
            cancel[:] = [operation.cancel]
            with suppress(asyncio.CancelledError):
                await operation
            for i in range(2):
                assert await client.db.items.find_one({"_id": i}) is None
            await eventually(lambda: not pool_of(client).active_sockets)
            assert_pool_is_at_rest(client)
            return operation.cancelled()

    cancelled = set()
    for cancel_at in range(1, 100):
        if not run(main()) and len(waits) < cancel_at:
            break
        cancelled.add(waits[cancel_at - 1])
    # Server selection or its lock, connecting, and waiting for replies.
    assert {"connect()", "recv()"} < cancelled


def test_a_cancelled_insert_may_have_happened_and_its_reply_is_nobodys(
    mongod: Deployment, database_name: str
) -> None:
    """Pitfall 7: the connection was mid-reply; it does not go back to the pool."""

    async def main() -> None:
        async with MotorClient(mongod.uri, appName=APP, maxPoolSize=1) as client:
            items = client[database_name].items
            await items.insert_one({"_id": "first"})
            async with fail_point(
                mongod.address, ["insert"], mode={"times": 1}, appName=APP, blockTimeMS=100
            ):
                insert = items.insert_one({"_id": "second"})
                await asyncio.sleep(0.03)
                insert.cancel()
                answers = [await items.find_one({"_id": "first"}) for _ in range(3)]
            assert answers == [{"_id": "first"}] * 3

    run(main())


@pytest.mark.parametrize("is_silent", [True, False])
def test_server_selection_can_be_cancelled(is_silent: bool, mongod: Deployment) -> None:
    async def main() -> None:
        async with Proxy(mongod.address) as proxy:
            proxy.is_silent, proxy.is_refusing = is_silent, not is_silent
            async with MotorClient(proxy.uri) as client:
                for way in (_task_cancel, _asyncio_timeout, _wait_for):
                    started = time.monotonic()
                    with pytest.raises((asyncio.CancelledError, TimeoutError)):
                        await way(client.db.items)
                    assert time.monotonic() - started < PROMPT_SECONDS
                proxy.is_silent = proxy.is_refusing = False
                proxy.cut()
                # The monitor tries again.
                assert await client.db.items.find_one() is None

    run(main())


def test_a_handshake_that_hangs_is_cancelled_and_gives_its_slot_back(mongod: Deployment) -> None:
    """Pitfall 4: the slot of a connection that never came to be."""

    async def main() -> None:
        async with Proxy(mongod.address) as proxy, MotorClient(proxy.uri, maxPoolSize=2) as client:
            await client.aconnect()
            pool = pool_of(client)
            pool.reset_without_pause()
            proxy.is_silent = True
            operations = [client.db.items.find_one() for _ in range(6)]
            await eventually(lambda: pool.active_sockets == 2)
            for operation in operations:
                operation.cancel()
            await asyncio.gather(*operations, return_exceptions=True)
            await eventually(lambda: not pool.requests)
            assert_pool_is_at_rest(client)
            proxy.is_silent = False
            proxy.cut()
            assert await client.db.items.find_one() is None

    run(main())


def test_a_connection_that_breaks_mid_reply_fails_its_operation_only(mongod: Deployment) -> None:
    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            MotorClient(proxy.uri, appName=APP, retryReads=False) as client,
        ):
            await client.aconnect()
            async with fail_point(
                mongod.address, ["ping"], mode={"times": 3}, appName=APP, blockTimeMS=300
            ):
                operations = [client.admin.command("ping") for _ in range(3)]
                await asyncio.sleep(0.1)
                proxy.cut()
                results = await asyncio.gather(*operations, return_exceptions=True)
            assert all(isinstance(result, ConnectionFailure) for result in results)
            assert await client.db.items.find_one() is None
            assert_pool_is_at_rest(client)

    run(main())


def test_cancelling_what_is_done_changes_nothing(mongod_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            operation = client.db.items.find_one()
            await operation
            before = current_hub().suspended
            assert not operation.cancel()
            # Its greenlet may be another operation's by now.
            other = client.admin.command("ping")
            assert not operation.cancel()
            assert (await other)["ok"] == 1
            assert current_hub().suspended == before

    run(main())
