"""What may happen to a request's socket: cursors that take it, and its death."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from pymongo.cursor import CursorType
from pymongo.errors import AutoReconnect
from pymongo.write_concern import WriteConcern

from motorlike import MotorClient
from motorlike.testing.mongod import Deployment
from tests.integration.in_requests import (
    ask,
    assert_nothing_is_held,
    client_of,
    socket_of,
    tell,
)
from tests.integration.proxy import Proxy
from tests.integration.support import (
    fail_point,
    pool_of,
    run,
)


def test_cursors_fetch_their_batches_in_turn_on_the_requests_socket(
    mongod_uri: str, database_name: str
) -> None:
    async def story(client: MotorClient) -> None:
        items = client[database_name].items
        with client.start_request():
            await items.insert_many([{"_id": n} for n in range(20)])
            found = await asyncio.gather(*(items.find(batch_size=3).to_list() for _ in range(3)))
            assert [len(each) for each in found] == [20, 20, 20]
            async for document in items.find(batch_size=3):
                assert await items.find_one(document) == document
            assert len(pool_of(client).conns) + 1 <= 4
            assert pool_of(client).requests == 1

    tell(story, mongod_uri)


def test_an_exhaust_cursor_takes_the_socket_and_the_request_goes_on_with_another(
    mongod_uri: str, database_name: str
) -> None:
    async def story(client: MotorClient) -> None:
        items = client[database_name].items
        unacknowledged = items.with_options(write_concern=WriteConcern(w=0))
        await items.insert_many([{"_id": n} for n in range(20)])
        with client.start_request():
            await unacknowledged.insert_one({"_id": -1})
            cursor = items.find(sort=[("_id", 1)], cursor_type=CursorType.EXHAUST, batch_size=3)
            sockets = set()
            seen = []
            async for document in cursor:
                seen.append(document["_id"])
                sockets.add(await socket_of(client))
                assert pool_of(client).requests <= 2
            assert seen == list(range(-1, 20))
            assert len(sockets) == 1
            # One that is given up takes its connection with it.
            abandoned = items.find(cursor_type=CursorType.EXHAUST, batch_size=3)
            await abandoned.next()
            first, _, last = await asyncio.gather(ask(client), abandoned.close(), ask(client))
            assert first["you"] == last["you"]
            assert pool_of(client).requests == 1

    tell(story, mongod_uri, maxPoolSize=3)


@pytest.mark.parametrize("how", ["known", "unknown", "reset"])
def test_a_dead_connection_is_replaced_on_its_slot(how: str, mongod: Deployment) -> None:
    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            client_of(proxy.uri + "?directConnection=true", maxPoolSize=1) as client,
        ):
            with client.start_request():
                first = await socket_of(client)
                pool = pool_of(client)
                if how == "reset":
                    pool.reset_without_pause()
                else:
                    if how == "known":
                        # PyMongo looks at a connection before it uses it again.
                        pool._check_interval_seconds = 0
                    proxy.cut()
                    await asyncio.sleep(0.01)
                second = await eventual_socket(client)
                assert second != first
                assert await socket_of(client) == second
                assert pool.requests == 1
                assert len(pool.held) == 1

    run(main())


async def eventual_socket(client: MotorClient) -> str:
    """Read as an application would that expects the connection to break."""
    for _ in range(100):
        with contextlib.suppress(AutoReconnect):
            found = await client.t.t.aggregate([{"$limit": 1}]).to_list()
            assert found == []
            return await socket_of(client)
        await asyncio.sleep(0.02)
    raise AssertionError("no connection in time")


def test_a_connection_the_server_closes_in_the_middle_is_replaced(
    mongod: Deployment, mongod_uri: str
) -> None:
    async def story(client: MotorClient) -> None:
        with client.start_request():
            first = await socket_of(client)
            async with fail_point(
                mongod.address, ["find"], mode={"times": 1}, closeConnection=True
            ):
                # Retried by PyMongo, on the new one.
                await client.t.t.find_one()
            assert await socket_of(client) != first
            assert pool_of(client).requests == 1
            async with fail_point(mongod.address, ["insert"], closeConnection=True):
                with pytest.raises(AutoReconnect):
                    await client.t.t.insert_one({})
            await eventual_socket(client)

    tell(story, mongod_uri, maxPoolSize=1, retryWrites=False)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dead_connection_in_the_pool_does_not_disturb_a_request(
    when: str, mongod_uri: str
) -> None:
    async def story(client: MotorClient) -> None:
        pool = pool_of(client)
        pool._check_interval_seconds = 0
        if when == "after":
            with client.start_request():
                await socket_of(client)
        for connection in pool.conns:
            connection.conn.sock.shutdown(2)
        with client.start_request():
            assert await socket_of(client) == await socket_of(client)

    tell(story, mongod_uri)


def test_a_server_that_does_not_come_back_costs_no_slot(mongod: Deployment) -> None:
    async def main() -> None:
        async with Proxy(mongod.address) as proxy:
            uri = proxy.uri + "?directConnection=true&serverSelectionTimeoutMS=200"
            client = MotorClient(uri, maxPoolSize=1, retryReads=False)
            with client.start_request():
                await socket_of(client)
                proxy.is_refusing = True
                proxy.cut()
                for _ in range(3):
                    with pytest.raises(AutoReconnect):
                        await client.t.t.find_one()
                proxy.is_refusing = False
                await eventual_socket(client)
                assert pool_of(client).requests == 1
            assert_nothing_is_held(client)
            await client.close()

    run(main())
