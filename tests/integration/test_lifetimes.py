"""One client over the lives of several event loops, and its end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop
from pymongo.errors import InvalidOperation, PyMongoError
from tornado.ioloop import IOLoop

from motorlike import LoopMismatch, MotorClient
from motorlike.green.hub import Hub, current_hub
from tests.integration.support import eventually, nothing_left, open_descriptors, run


def threads() -> set[threading.Thread]:
    """Return the threads that are not the loop's own executor's."""
    return {t for t in threading.enumerate() if not t.name.startswith("asyncio_")}


def test_making_a_client_touches_no_loop_no_thread_and_no_descriptor(
    mongod_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a loop was asked for")

    for name in ("get_event_loop", "new_event_loop", "set_event_loop"):
        monkeypatch.setattr(asyncio, name, refuse)
    monkeypatch.setattr(IOLoop, "current", refuse)
    descriptors, before = open_descriptors(), threads()
    for connect in (None, True, False):
        client = MotorClient(mongod_uri, connect=connect)
        assert client.db.items.find().limit(3) is not None
        # Fewer is possible: what an earlier test gave up closes in its own time.
        assert open_descriptors() <= descriptors
        assert threads() <= before


def test_an_operation_without_a_running_loop_says_what_to_do(mongod_uri: str) -> None:
    client = MotorClient(mongod_uri)
    with pytest.raises(RuntimeError, match="no event loop is running: call and await"):
        client.db.items.find_one()


def test_a_client_works_under_one_asyncio_run_after_the_other(mongod_uri: str) -> None:
    client = MotorClient(mongod_uri)
    before = open_descriptors()
    for _ in range(4):
        assert asyncio.run(_ping(client)) == 1.0
        # Without close(): the loop took everything with it.
        assert open_descriptors() <= before
    run(_closed(client))


async def _ping(client: MotorClient) -> float:
    # Two at once, so that the pool has more than one connection.
    answers = await asyncio.gather(*(client.admin.command("ping") for _ in range(2)))
    return float(answers[0]["ok"])


async def _closed(client: MotorClient) -> None:
    await client.close()


def test_a_client_works_after_an_operation_was_abandoned_with_its_loop(mongod_uri: str) -> None:
    client = MotorClient(mongod_uri, maxPoolSize=2)

    async def abandon() -> None:
        await client.admin.command("ping")
        for _ in range(5):
            client.db.items.find_one({"$where": "sleep(1000)"})
        await asyncio.sleep(0)

    for _ in range(2):
        asyncio.run(abandon())
        assert asyncio.run(_ping(client)) == 1.0
    run(_closed(client))


def test_a_client_works_on_a_tornado_loop_that_stops_starts_and_is_replaced(
    mongod_uri: str,
) -> None:
    client = MotorClient(mongod_uri)
    for _ in range(2):
        loop = IOLoop(make_current=False)
        for _ in range(2):
            assert loop.run_sync(lambda: _ping(client)) == 1.0
        answers: list[Any] = []
        loop.add_callback(_append_ping, client, answers, loop)
        loop.start()
        assert answers == [1.0]
        loop.close()
    run(_closed(client))


async def _append_ping(client: MotorClient, answers: list[Any], loop: IOLoop) -> None:
    answers.append(await _ping(client))
    loop.stop()


_shared: list[MotorClient] = []


@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.gen_test
async def test_a_client_works_in_the_next_test_on_the_next_loop(turn: int, mongod_uri: str) -> None:
    if turn == 1:
        _shared.append(MotorClient(mongod_uri))
    assert await _ping(_shared[0]) == 1.0
    if turn == 3:
        await _shared.pop().close()


@pytest.mark.gen_test
async def test_a_client_works_on_the_loop_of_pytest_tornado(
    mongod_uri: str, io_loop: IOLoop, database_name: str
) -> None:
    client = MotorClient(mongod_uri)
    async with nothing_left():
        await client[database_name].items.insert_many([{"_id": i} for i in range(3)])
        assert [d["_id"] async for d in client[database_name].items.find()] == [0, 1, 2]
        await client.close()


def test_a_client_works_on_uvloop(mongod_uri: str, database_name: str) -> None:
    client = MotorClient(mongod_uri)

    async def main() -> None:
        async with nothing_left():
            items = client[database_name].items
            await asyncio.gather(*(items.insert_one({"_id": i}) for i in range(200)))
            found = await asyncio.gather(*(items.find_one({"_id": i}) for i in range(200)))
            assert [document["_id"] for document in found] == list(range(200))
            slow = asyncio.create_task(_slow(client))
            await asyncio.sleep(0.1)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert await items.count_documents({}) == 200
            await client.close()

    uvloop.run(main())


async def _slow(client: MotorClient) -> None:
    await client.admin.command("sleep", 1, millis=1000)


def test_one_client_moves_between_asyncio_tornado_and_uvloop(mongod_uri: str) -> None:
    client = MotorClient(mongod_uri)
    runs: list[Callable[[Coroutine[Any, Any, Any]], Any]] = [asyncio.run, uvloop.run]
    for start in runs * 2:
        assert start(_ping(client)) == 1.0
    loop = IOLoop(make_current=False)
    assert loop.run_sync(lambda: _ping(client)) == 1.0
    loop.close()
    asyncio.run(_closed(client))


def test_a_client_that_moves_between_two_open_loops_leaves_nothing_on_the_first(
    mongod_uri: str,
) -> None:
    client = MotorClient(mongod_uri)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def start_and_leave() -> Any:
        await _ping(client)
        return current_hub(), client.admin.command("sleep", 1, millis=50)

    async def go_on(hub: Hub, operation: asyncio.Future[Any]) -> None:
        # What was under way when the client moved ends where it began.
        assert (await operation)["ok"] == 1
        await eventually(lambda: not hub.suspended and not hub.streams)

    try:
        hub, operation = first.run_until_complete(start_and_leave())
        assert second.run_until_complete(_ping(client)) == 1.0
        first.run_until_complete(go_on(hub, operation))
        # And back.
        assert first.run_until_complete(_ping(client)) == 1.0
        first.run_until_complete(_closed(client))
    finally:
        for loop in (first, second):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def test_use_from_two_running_loops_is_an_error_and_the_first_goes_on(mongod_uri: str) -> None:
    client = MotorClient(mongod_uri)
    errors: list[BaseException] = []

    def second() -> None:
        try:
            asyncio.run(_ping(client))
        except LoopMismatch as exc:
            errors.append(exc)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await _ping(client) == 1.0
        with ThreadPoolExecutor(1) as executor:
            await loop.run_in_executor(executor, second)
        assert str(errors[0]).startswith(f"this client runs on {loop!r}, which is running")
        assert "Make one client for each event loop." in str(errors[0])
        assert await _ping(client) == 1.0
        await client.close()

    run(main())


def test_two_clients_on_two_loops_in_two_threads_do_not_disturb_each_other(
    mongod_uri: str, database_name: str
) -> None:
    async def main(base: int) -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name].items
            for start in range(base, base + 100, 20):
                ids = range(start, start + 20)
                await asyncio.gather(*(items.insert_one({"_id": i}) for i in ids))
                found = await asyncio.gather(*(items.find_one({"_id": i}) for i in ids))
                assert [document["_id"] for document in found] == list(ids)

    with ThreadPoolExecutor(2) as executor:
        list(executor.map(lambda base: asyncio.run(main(base)), (0, 1000)))


def test_close_ends_every_greenlet_and_every_socket(mongod_uri: str) -> None:
    async def main() -> None:
        async with nothing_left():
            client = MotorClient(mongod_uri)
            await _ping(client)
            assert current_hub().suspended > 0
            assert current_hub().streams
            started = time.monotonic()
            await client.close()
            # PyMongo's threads sleep half a second at a time: they are woken.
            assert time.monotonic() - started < 0.3

    asyncio.run(main())


def test_close_can_be_called_again(mongod_uri: str) -> None:
    async def main() -> None:
        client = MotorClient(mongod_uri)
        await _ping(client)
        await client.close()
        await client.close()
        await asyncio.gather(client.close(), client.close())

    run(main())
    client = MotorClient(mongod_uri)
    client.close()
    client.close()
    run(_closed(client))


def test_close_needs_no_loop_and_no_await(mongod_uri: str) -> None:
    client = MotorClient(mongod_uri)
    before = open_descriptors()
    asyncio.run(_ping(client))
    client.close()
    assert open_descriptors() <= before

    async def close_only() -> None:
        used = MotorClient(mongod_uri)
        await _ping(used)
        used.close()

    asyncio.run(close_only())
    assert open_descriptors() <= before


def test_close_lets_running_operations_end_and_refuses_those_that_wait(mongod_uri: str) -> None:
    async def main() -> None:
        client = MotorClient(mongod_uri, maxPoolSize=1, retryReads=False)
        await _ping(client)
        operations = [client.admin.command("sleep", 1, millis=200) for _ in range(3)]
        await asyncio.sleep(0.02)
        await client.close()
        first, *others = await asyncio.gather(*operations, return_exceptions=True)
        assert first["ok"] == 1
        assert [isinstance(result, PyMongoError) for result in others] == [True, True]

    run(main())


@pytest.mark.parametrize("was_used", [True, False])
def test_an_operation_after_close_is_an_invalid_operation(mongod_uri: str, was_used: bool) -> None:
    async def main() -> None:
        client = MotorClient(mongod_uri)
        if was_used:
            await _ping(client)
        await client.close()
        for operation in (
            lambda: client.db.items.find_one(),
            lambda: client.db.items.insert_one({}),
            lambda: client.db.items.find().to_list(),
        ):
            with pytest.raises(InvalidOperation, match="after close"):
                await operation()

    run(main())


def test_close_ends_operations_that_wait_for_a_server() -> None:
    async def main() -> None:
        # Nothing listens on the discard port.
        client = MotorClient("mongodb://127.0.0.1:9")
        operations = [client.db.items.find_one() for _ in range(3)]
        await asyncio.sleep(0.05)
        await client.close()
        async with asyncio.timeout(5):
            for operation in operations:
                with pytest.raises(InvalidOperation, match="after close"):
                    await operation

    run(main())


def test_no_thread_is_started_for_clients_monitors_or_operations(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        before = threads()
        clients = [MotorClient(mongod_uri) for _ in range(3)]
        for client in clients:
            items = client[database_name].items
            await asyncio.gather(*(items.insert_one({}) for _ in range(20)))
            await items.find(batch_size=2).to_list()
            assert threads() <= before
        await asyncio.gather(*(client.close() for client in clients))
        assert threads() <= before

    run(main())


def test_an_open_client_that_is_collected_leaves_nothing(mongod_uri: str) -> None:
    async def main() -> None:
        async with nothing_left():
            client = MotorClient(mongod_uri, heartbeatFrequencyMS=500)
            await _ping(client)
            del client
            gc.collect()
            await eventually(lambda: not current_hub().suspended and not current_hub().streams)

    asyncio.run(main())


def test_a_hundred_clients_made_and_closed_leave_nothing(mongod_uri: str) -> None:
    async def main() -> None:
        async with nothing_left():
            for _ in range(20):
                clients = [MotorClient(mongod_uri) for _ in range(5)]
                await asyncio.gather(*map(_ping, clients))
                await asyncio.gather(*(client.close() for client in clients))

    asyncio.run(main())
