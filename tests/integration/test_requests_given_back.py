"""A request's connection is given back, however its task, client or loop ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

import pytest
from pymongo.errors import InvalidOperation

from motorlike import MotorClient, green
from motorlike.green.hub import Hub, current_hub
from motorlike.testing.mongod import Deployment
from tests.integration.in_requests import (
    Story,
    assert_nothing_is_held,
    in_task,
    socket_of,
    tell,
)
from tests.integration.support import (
    eventually,
    fail_point,
    open_descriptors,
    pool_of,
    run,
    run_script,
)


async def _leave_open(client: MotorClient) -> None:
    client.start_request()
    client.start_request()
    await socket_of(client)


async def _raise(client: MotorClient) -> None:
    with client.start_request():
        await socket_of(client)
        raise ZeroDivisionError


async def _be_cancelled(client: MotorClient) -> None:
    async with asyncio.timeout(0.05), client.start_request():
        await socket_of(client)
        await asyncio.sleep(60)


async def _be_cancelled_in_an_operation(client: MotorClient) -> None:
    async with asyncio.timeout(0.05), client.start_request():
        await socket_of(client)
        await client.admin.command("sleep", 1, millis=2000)


async def _abandon_an_operation(client: MotorClient) -> None:
    client.start_request()
    await socket_of(client)
    client.admin.command("sleep", 1, millis=50)


@pytest.mark.parametrize(
    "end",
    [_leave_open, _raise, _be_cancelled, _be_cancelled_in_an_operation, _abandon_an_operation],
)
def test_the_connection_is_given_back_however_a_task_ends(end: Story, mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        for _ in range(3):
            with contextlib.suppress(ZeroDivisionError, TimeoutError):
                await asyncio.create_task(end(client))
            await eventually(lambda: not pool_of(client).held)
            assert_nothing_is_held(client)
        await in_task(client)

    tell(story, mongod_uri, maxPoolSize=1)


def test_the_connection_is_given_back_however_a_green_callable_ends(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        def leave_open(millis: int) -> None:
            client.delegate.start_request()
            client.delegate.admin.command("sleep", 1, millis=millis)

        await green.spawn(leave_open, 1)
        await asyncio.sleep(0)
        assert_nothing_is_held(client)
        operation = green.spawn(leave_open, 2000)
        await asyncio.sleep(0.05)
        operation.cancel()
        await asyncio.wait([operation])
        await asyncio.sleep(0)

    tell(story, mongod_uri, maxPoolSize=1)


def test_a_task_collected_while_it_is_pending_gives_its_connection_back(
    mongod_uri: str, no_error_goes_unseen: list[logging.LogRecord]
) -> None:
    async def story(client: MotorClient) -> None:
        async def hang() -> None:
            client.start_request()
            await socket_of(client)
            await asyncio.Future()

        task = asyncio.create_task(hang())
        await eventually(lambda: pool_of(client).held)
        del task
        gc.collect()
        await asyncio.sleep(0)
        assert_nothing_is_held(client)
        await socket_of(client)

    tell(story, mongod_uri, maxPoolSize=1)
    assert "destroyed but it is pending" in no_error_goes_unseen.pop().getMessage()


def test_cancelling_in_line_on_the_way_in_and_on_the_way_out_loses_no_slot(
    mongod_uri: str,
) -> None:
    async def story(client: MotorClient) -> None:
        async def work(number: int) -> None:
            with client.start_request(shared=bool(number % 3)):
                operations = [client.admin.command("ping") for _ in range(3)]
                await asyncio.gather(*operations)
                await client.admin.command("ping")

        for delay in range(25):
            tasks = [asyncio.create_task(work(number)) for number in range(12)]
            await asyncio.sleep(delay / 2000)
            for task in tasks[delay % 2 :: 2]:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(0)
            await eventually(lambda: not pool_of(client).requests)
            assert_nothing_is_held(client)

    tell(story, mongod_uri, maxPoolSize=3)


def test_close_takes_the_connections_of_open_requests_with_it(mongod_uri: str) -> None:
    async def main() -> None:
        client = MotorClient(mongod_uri, maxPoolSize=2)
        held = asyncio.Barrier(3)

        async def hold() -> None:
            with client.start_request():
                await socket_of(client)
                await held.wait()
                await held.wait()
                with pytest.raises(InvalidOperation):
                    await socket_of(client)
                assert not client.in_request()

        tasks = [asyncio.create_task(hold()) for _ in range(2)]
        await held.wait()
        await client.close()
        await held.wait()
        await asyncio.gather(*tasks)

    run(main())


def test_a_request_that_starts_while_the_client_closes_holds_nothing_then(
    mongod: Deployment,
) -> None:
    async def main() -> None:
        client = MotorClient(mongod.uri)
        await socket_of(client)
        pool = pool_of(client)
        done = asyncio.Event()

        async def late() -> None:
            with client.start_request():
                await socket_of(client)
                await done.wait()

        async with fail_point(mongod.address, ["endSessions"], blockTimeMS=200):
            closing = asyncio.ensure_future(client.close())
            await asyncio.sleep(0.05)
            task = asyncio.create_task(late())
            await asyncio.sleep(0.05)
            assert not closing.done()
            assert len(pool.held) == 1
            await closing
        assert pool.held == set()
        assert pool.requests == 0
        done.set()
        await task

    run(main())


def test_requests_left_open_by_one_loop_do_not_live_on_in_the_next(mongod_uri: str) -> None:
    client = MotorClient(mongod_uri, maxPoolSize=1)
    descriptors = open_descriptors()
    tasks: list[asyncio.Task[None]] = []

    async def leave_open() -> None:
        client.start_request(shared=True)
        await socket_of(client)
        tasks.append(asyncio.create_task(_leave_open(client)))
        await asyncio.sleep(0)

    async def begin_with_a_request() -> None:
        assert not client.in_request()
        # Before the client knows of the new loop.
        with client.start_request():
            assert await socket_of(client) == await socket_of(client)
            assert client.in_request()
            assert pool_of(client).requests == 1
        assert_nothing_is_held(client)

    for _ in range(3):
        asyncio.run(leave_open())
        assert open_descriptors() <= descriptors
        asyncio.run(begin_with_a_request())
        assert open_descriptors() <= descriptors
    client.close()


@pytest.mark.parametrize("how", ["close", "another loop"])
def test_requests_on_a_stopped_loop_are_given_back_by(how: str, mongod_uri: str) -> None:
    client = MotorClient(mongod_uri)
    stopped = asyncio.new_event_loop()

    async def hold() -> None:
        with client.start_request():
            await socket_of(client)
            stopped.stop()
            await asyncio.sleep(60)

    async def current() -> Hub:
        return current_hub()

    hub = stopped.run_until_complete(current())
    task = stopped.create_task(hold())
    stopped.run_forever()
    (held,) = pool_of(client).held
    connection = held.connection
    assert hub.streams
    if how == "close":
        client.close()
    else:
        asyncio.run(socket_of(client))
    assert connection.closed
    assert not client.delegate.requests._by_owner
    task.cancel()
    stopped.run_until_complete(asyncio.wait([task]))
    stopped.close()
    client.close()


def test_a_forked_child_has_a_request_of_its_own_and_leaves_the_parents_alone(
    mongod_uri: str,
) -> None:
    script = """
import asyncio, os, sys
from motorlike import MotorClient

client = MotorClient(sys.argv[1], maxPoolSize=1)

async def socket():
    return (await client.admin.command("whatsmyuri"))["you"]

async def in_child(parents):
    with client.start_request():
        mine = await socket()
        assert mine != parents
        assert await socket() == mine
    await client.close()

async def in_parent():
    async with client.start_request():
        mine = await socket()
        await client.motorlike_fork.items.drop()
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    asyncio._set_running_loop(None)
                    asyncio.run(in_child(mine))
                    code = 0
                finally:
                    os._exit(code)
            _, code = await asyncio.to_thread(os.waitpid, pid, 0)
            assert code == 0, code
            assert client.in_request()
            assert await socket() == mine
    await client.close()
    print("ok")

asyncio.run(in_parent())
"""
    assert run_script(script, mongod_uri) == "ok\n"
