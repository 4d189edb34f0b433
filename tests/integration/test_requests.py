"""Socket requests against a real server: whose they are, and one socket for each.

What the synchronous PyMongo 2.x promised of its requests, for tasks and green
callables in place of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from pymongo import monitoring
from pymongo.errors import WaitQueueTimeoutError
from pymongo.write_concern import WriteConcern

from motorlike import MotorClient, green
from tests.integration.in_requests import (
    ask,
    assert_nothing_is_held,
    client_of,
    in_task,
    socket_of,
    tell,
)
from tests.integration.support import (
    assert_pool_is_at_rest,
    pool_of,
    run,
)


def test_operations_in_a_request_come_from_one_socket(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        assert not client.in_request()
        async with client.start_request():
            assert client.in_request()
            busy = [client.admin.command("ping") for _ in range(3)]
            sockets = {await socket_of(client) for _ in range(5)}
            answers = await asyncio.gather(*(ask(client) for _ in range(5)))
            sockets |= {answer["you"] for answer in answers}
            await asyncio.gather(*busy)
            assert len(sockets) == 1
            assert pool_of(client).requests == 1
        assert not client.in_request()

    tell(story, mongod_uri)


def test_a_request_costs_nothing_before_its_first_operation(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        with client.start_request():
            assert_pool_is_at_rest(client)

    tell(story, mongod_uri)


def test_start_and_end_nest_and_ending_twice_is_harmless(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        client.end_request()
        client.start_request()
        first = await socket_of(client)
        with client.start_request():
            assert await socket_of(client) == first
        assert client.in_request()
        assert pool_of(client).requests == 1
        client.end_request()
        assert not client.in_request()
        assert_nothing_is_held(client)
        client.end_request()
        client.end_request()
        with client.start_request():
            assert client.in_request()

    tell(story, mongod_uri)


def test_two_tasks_requests_have_two_sockets_and_children_inherit_none(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        both_hold = asyncio.Barrier(2)

        async def hold() -> str:
            async with client.start_request():
                mine = await socket_of(client)
                await both_hold.wait()
                assert await in_task(client) != mine
                assert await socket_of(client) == mine
                return mine

        assert len(set(await asyncio.gather(hold(), hold()))) == 2

    tell(story, mongod_uri)


def test_requests_of_two_clients_are_independent(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        async with client_of(mongod_uri) as other:
            with client.start_request():
                assert not other.in_request()
                mine = await socket_of(client)
                with other.start_request():
                    theirs = await socket_of(other)
                    assert theirs != mine
                    client.end_request()
                    assert not client.in_request()
                    assert other.in_request()
                    assert await socket_of(other) == theirs

    tell(story, mongod_uri)


def test_synchronous_code_has_a_request_for_each_green_callable(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        def synchronous() -> str:
            database = client.delegate.admin
            with client.delegate.start_request():
                sockets = {database.command("whatsmyuri")["you"] for _ in range(3)}
                green.sleep(0.01)
                sockets.add(database.command("whatsmyuri")["you"])
                # The wrappers' operations are on its behalf too.
                sockets.add(green.wait(client.admin.command("whatsmyuri"))["you"])
            assert not client.delegate.in_request()
            (socket,) = sockets
            return str(socket)

        with client.start_request():
            mine = await socket_of(client)
            others = await asyncio.gather(green.spawn(synchronous), green.spawn(synchronous))
            assert len({mine, *others}) == 3

    tell(story, mongod_uri)


def test_auto_start_request_gives_each_task_its_own_at_its_first_operation(
    mongod_uri: str,
) -> None:
    async def main() -> None:
        client = MotorClient(mongod_uri, auto_start_request=True)
        assert not client.in_request()
        mine = await socket_of(client)
        assert client.in_request()
        both_hold = asyncio.Barrier(2)

        async def hold() -> str:
            theirs = await socket_of(client)
            await both_hold.wait()
            with client.start_request():
                assert await socket_of(client) == theirs
            assert await socket_of(client) == theirs
            return theirs

        tasks = [asyncio.create_task(hold()) for _ in range(2)]
        assert len({mine, *await asyncio.gather(*tasks)}) == 3
        await asyncio.sleep(0)
        assert pool_of(client).requests == 1
        client.end_request()
        assert_nothing_is_held(client)
        await client.close()

    run(main())


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_auto_start_request_is_true_or_false(value: Any) -> None:
    with pytest.raises(TypeError, match="auto_start_request must be True or False"):
        MotorClient(auto_start_request=value)


# -- shared ---------------------------------------------------------------


def test_tasks_in_a_shared_request_take_turns_on_one_connection(
    mongod_uri: str, database_name: str
) -> None:
    async def story(client: MotorClient) -> None:
        items = client[database_name].items
        unacknowledged = items.with_options(write_concern=WriteConcern(w=0))

        async def child(number: int) -> str:
            for turn in range(20):
                _id = number * 100 + turn
                await unacknowledged.insert_one({"_id": _id})
                assert await items.find_one({"_id": _id}) is not None
            return await socket_of(client)

        async with client.start_request(shared=True):
            sockets = await asyncio.gather(*(child(number) for number in range(20)))
            assert len(set(sockets)) == 1
            assert pool_of(client).requests == 1

    tell(story, mongod_uri, maxPoolSize=2)


def test_a_shared_request_keeps_nobody_else_from_the_pool(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        outside = asyncio.Event()

        async def outsider() -> None:
            await outside.wait()
            await socket_of(client)

        task = asyncio.create_task(outsider())
        with client.start_request(shared=True):
            slow = [client.admin.command("sleep", 1, millis=100) for _ in range(3)]
            outside.set()
            await task
            assert not slow[0].done()
            await asyncio.gather(*slow)

    tell(story, mongod_uri, maxPoolSize=2)


def test_operations_of_a_shared_request_are_sent_in_the_order_they_were_made(
    mongod_uri: str, database_name: str
) -> None:
    async def story(client: MotorClient) -> None:
        items = client[database_name].items

        async def push(number: int) -> None:
            await items.update_one({"_id": 0}, {"$push": {"numbers": number}}, upsert=True)

        async with client.start_request(shared=True):
            await asyncio.gather(*(asyncio.create_task(push(n)) for n in range(50)))
            document = await items.find_one()
        assert document is not None
        assert document["numbers"] == list(range(50))

    tell(story, mongod_uri)


# -- the pool's limits ----------------------------------------------------


def test_when_requests_hold_every_slot_the_error_says_so(mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        with client.start_request():
            await socket_of(client)
            with pytest.raises(WaitQueueTimeoutError, match="Socket requests hold 1 of the pool"):
                await in_task(client)
        await in_task(client)

    tell(story, mongod_uri, maxPoolSize=1, waitQueueTimeoutMS=50)


@pytest.mark.parametrize("in_requests", [True, False])
def test_tasks_in_any_number_share_a_small_pool(in_requests: bool, mongod_uri: str) -> None:
    async def story(client: MotorClient) -> None:
        async def work() -> None:
            with client.start_request() if in_requests else contextlib.nullcontext():
                for _ in range(3):
                    await client.admin.command("ping")

        await asyncio.gather(*(work() for _ in range(100)))
        assert len(pool_of(client).conns) <= 4

    tell(story, mongod_uri, maxPoolSize=4)


def test_pool_events_come_in_pairs(mongod_uri: str) -> None:
    class Listener(monitoring.ConnectionPoolListener):
        """Counts connections that are checked out, at every event."""

        def __init__(self) -> None:
            self.out = self.most = self.started = 0

        def connection_check_out_started(self, event: Any) -> None:
            self.started += 1

        def connection_checked_out(self, event: Any) -> None:
            self.out += 1
            self.most = max(self.out, self.most)

        def connection_checked_in(self, event: Any) -> None:
            self.out -= 1

        def ignore(self, event: Any) -> None:
            pass

        connection_check_out_failed = connection_closed = connection_created = ignore
        connection_ready = pool_cleared = pool_closed = pool_created = pool_ready = ignore

    listener = Listener()

    async def story(client: MotorClient) -> None:
        assert listener.out == 0
        listener.most = listener.started = 0
        with client.start_request():
            for _ in range(3):
                await socket_of(client)
            (held,) = pool_of(client).held
            held.connection.close_conn(None)
            await socket_of(client)
            assert listener.out == 1
        assert (listener.out, listener.most, listener.started) == (0, 1, 2)

    tell(story, mongod_uri, event_listeners=[listener])
