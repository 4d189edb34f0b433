"""Requests on a replica set: a connection to each member, and loyalty to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo import ReadPreference
from pymongo.errors import AutoReconnect
from pymongo.write_concern import WriteConcern

from motorlike import MotorClient
from motorlike.testing.mongod import Deployment
from tests.integration.support import CommandLog, eventually, run

READS = [ReadPreference.NEAREST, ReadPreference.SECONDARY_PREFERRED]


def pools_of(client: MotorClient) -> dict[Any, Any]:
    servers = client.delegate._topology._servers.values()
    return {server.description.address: server.pool for server in servers}


def held_by(client: MotorClient) -> set[Any]:
    """Return the members to which requests hold connections."""
    assert all(pool.requests == len(pool.held) for pool in pools_of(client).values())
    return {address for address, pool in pools_of(client).items() if pool.held}


@asynccontextmanager
async def client_of(
    replica_set: Deployment, log: CommandLog, **options: Any
) -> AsyncIterator[MotorClient]:
    """A client that knows all members and finds all of them near enough."""
    client = MotorClient(
        replica_set.uri,
        event_listeners=[log],
        localThresholdMS=60000,
        heartbeatFrequencyMS=500,
        **options,
    )
    await client.admin.command("ping")
    await eventually(lambda: len(client.secondaries) == 2)
    log.started_events.clear()
    yield client
    await asyncio.sleep(0)
    assert held_by(client) == set()
    for pool in pools_of(client).values():
        assert (pool.requests, pool.active_sockets, pool.operation_count) == (0, 0, 0)
    await client.close()


def addresses(log: CommandLog, name: str) -> list[Any]:
    return [e.connection_id for e in log.started_events if e.command_name == name]


async def read_often(items: Any, log: CommandLog) -> set[Any]:
    log.started_events.clear()
    for _ in range(30):
        await items.find_one()
    return set(addresses(log, "find"))


@pytest.mark.parametrize("preference", READS, ids=lambda each: each.name)
def test_reads_stay_with_the_member_that_they_began_on(
    preference: Any, replica_set: Deployment
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with client_of(replica_set, log) as client:
            items = client.members.items.with_options(read_preference=preference)
            assert len(await read_often(items, log)) > 1
            for _ in range(5):
                with client.start_request():
                    assert len(await read_often(items, log)) == 1
                    assert held_by(client) == set(addresses(log, "find"))

    run(main())


def test_reads_come_back_to_their_member_after_a_read_from_the_primary(
    replica_set: Deployment,
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with client_of(replica_set, log) as client:
            secondary = client.members.items.with_options(
                read_preference=ReadPreference.SECONDARY_PREFERRED
            )
            for _ in range(5):
                with client.start_request():
                    members = set()
                    for _ in range(5):
                        members |= await read_often(secondary, log)
                        assert await read_often(client.members.items, log) == {client.primary}
                    assert len(members) == 1

    run(main())


def test_writes_go_to_the_primary_on_one_connection_and_reads_on_another(
    replica_set: Deployment,
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with client_of(replica_set, log) as client:
            items = client.members.items
            secondary = items.with_options(read_preference=ReadPreference.SECONDARY)
            unacknowledged = items.with_options(write_concern=WriteConcern(w=0))
            with client.start_request():
                for _ in range(10):
                    await secondary.find_one()
                    await unacknowledged.insert_one({})
                    await items.find_one()
                primary = client.primary
                assert set(addresses(log, "insert")) == {primary}
                assert len(held_by(client) - {primary}) == 1
                assert all(pool.requests <= 1 for pool in pools_of(client).values())

    run(main())


def test_a_read_after_an_unacknowledged_write_goes_where_that_went_if_it_may(
    replica_set: Deployment,
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with client_of(replica_set, log) as client:
            nearest = client.members.items.with_options(
                read_preference=ReadPreference.NEAREST, write_concern=WriteConcern(w=0)
            )
            for number in range(200):
                with client.start_request():
                    await nearest.insert_one({"_id": f"nearest {number}"})
                    assert await nearest.find_one({"_id": f"nearest {number}"}) is not None

    run(main())


def test_transactions_and_causal_sessions_work_in_a_request(replica_set: Deployment) -> None:
    async def main() -> None:
        async with client_of(replica_set, CommandLog()) as client:
            items = client.members.transactions
            await items.drop()
            await client.members.create_collection("transactions")
            with client.start_request():
                async with await client.start_session() as session:
                    async with session.start_transaction():
                        await items.insert_one({"_id": 1}, session=session)
                        assert await items.find_one({"_id": 1}) is None
                        assert await items.find_one({"_id": 1}, session=session) is not None
                        assert len(held_by(client)) == 1
                    assert await items.find_one({"_id": 1}) is not None
                    cursor = items.find(batch_size=2, session=session)
                    assert len(await cursor.to_list()) == 1

    run(main())


def stop_it(replica_set: Deployment, address: Any) -> None:
    next(each for each in replica_set.members if each.address == address).kill()


def test_reads_move_once_when_their_member_goes_away(replica_set: Deployment) -> None:
    async def main() -> None:
        log = CommandLog()
        async with client_of(replica_set, log) as client:
            items = client.members.items.with_options(read_preference=ReadPreference.SECONDARY)
            with client.start_request():
                (first,) = await read_often(items, log)
                await asyncio.to_thread(stop_it, replica_set, first)
                await _until_it_answers(items.find_one)
                (second,) = await read_often(items, log)
                assert second != first
                member = next(each for each in replica_set.members if each.address == first)
                await asyncio.to_thread(member.restart)
                await eventually(lambda: first in pools_of_known_secondaries(client), 30)
                assert await read_often(items, log) == {second}

    run(main(), timeout=120)


def pools_of_known_secondaries(client: MotorClient) -> set[Any]:
    description = client.topology_description
    return {
        address
        for address, server in description.server_descriptions().items()
        if server.server_type_name == "RSSecondary"
    }


def test_a_request_outlives_a_failover(replica_set: Deployment) -> None:
    async def main() -> None:
        log = CommandLog()
        async with client_of(replica_set, log, maxPoolSize=2) as client:
            items = client.members.items.with_options(write_concern=WriteConcern("majority"))
            with client.start_request():
                await items.insert_one({})
                old = replica_set.primary().address
                await asyncio.to_thread(stop_it, replica_set, old)
                await _until_it_answers(lambda: items.insert_one({}))
                log.started_events.clear()
                await items.insert_one({})
                await items.find_one()
                (new,) = set(addresses(log, "insert"))
                assert new != old
                assert set(addresses(log, "find")) == {new}
                assert new in held_by(client)

    run(main(), timeout=120)


async def _until_it_answers(operation: Callable[[], Any]) -> None:
    for _ in range(300):
        try:
            await operation()
        except AutoReconnect:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("the replica set did not recover in time")
