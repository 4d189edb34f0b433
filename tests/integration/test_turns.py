"""Operations that stand in the line of a full pool before they begin, against a server.

The line's own rules are in `tests/unit/driver/test_turns.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from pymongo import ReadPreference
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    InvalidOperation,
    NetworkTimeout,
    PyMongoError,
    WaitQueueTimeoutError,
)

from motorlike import MotorClient
from motorlike.green.hub import current_hub
from motorlike.testing.mongod import Deployment
from tests.integration.proxy import Proxy
from tests.integration.support import (
    CommandLog,
    eventually,
    fail_point,
    fill,
    pool_of,
    run,
    run_script,
)
from tests.integration.turns_support import (
    APP,
    POOL,
    assert_at_rest,
    connected,
    has_begun,
    ids,
    sleep,
)

SEED = 20_260_402

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


@pytest.fixture
def turns_uri(replica_set: Deployment) -> Iterator[str]:
    """The replica set, with one document everywhere in `turns.items`."""
    with pymongo.MongoClient(replica_set.uri, w=3) as client:
        client.drop_database("turns")
        client.turns.items.insert_one({"_id": 0})
        yield replica_set.uri
        client.drop_database("turns")


# -- order and memory -------------------------------------------------------


def test_a_thousand_operations_have_hardly_more_greenlets_than_connections(mongod_uri: str) -> None:
    async def main() -> None:
        log, hub, most = CommandLog(), current_hub(), 0

        def look(_: object) -> None:
            nonlocal most
            most = max(most, hub.suspended)

        async with connected(mongod_uri, maxPoolSize=POOL, event_listeners=[log]) as client:
            await fill(client)
            resting = hub.suspended
            operations = [client.db.items.find_one(comment=i) for i in range(1, 1001)]
            assert hub.suspended <= resting + POOL
            for operation in operations:
                operation.add_done_callback(look)
            assert await asyncio.gather(*operations) == [None] * 1000
            assert most <= resting + POOL + 1
            assert len(hub.workers) <= resting + POOL + 2
            assert ids(log) == list(range(1, 1001))

    run(main())


def test_the_memory_of_five_thousand_in_flight_is_bounded(mongod_uri: str) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_debug(False)  # it keeps a stack for each future
        async with connected(mongod_uri, maxPoolSize=POOL) as client:
            await fill(client)
            resting = current_hub().suspended
            tracemalloc.start()
            try:
                operations = [client.db.items.find_one() for _ in range(5000)]
                assert current_hub().suspended == resting + POOL
                each = tracemalloc.get_traced_memory()[1] / 5000
            finally:
                tracemalloc.stop()
            # A greenlet that waits in PyMongo's frames is 20 KB.
            assert each < 2000
            await asyncio.gather(*operations)
            assert len(current_hub().workers) <= resting + POOL + 2

    run(main())


def test_a_pool_that_grows_under_a_line_begins_no_more_than_it_has_connections_for(
    mongod: Deployment,
) -> None:
    async def main() -> None:
        hub = current_hub()
        async with connected(mongod.uri, maxPoolSize=12) as client:
            resting, limit = hub.suspended, pool_of(client).growth.limit
            async with fail_point(
                mongod.address, ["find"], mode={"times": 24}, appName=APP, blockTimeMS=100
            ):
                operations = [client.db.items.find_one() for _ in range(300)]
                await eventually(lambda: pool_of(client).growth.limit > limit)
                await asyncio.wait(operations, return_when=asyncio.FIRST_COMPLETED)
                assert hub.suspended <= resting + 13
                await asyncio.gather(*operations)

    run(main())


def test_all_kinds_of_operations_are_served_in_the_order_of_their_calls(
    turns_uri: str,
) -> None:
    """Some queue; those with a session, a deadline, a preference or a cursor begin at once."""

    async def main() -> None:
        log = CommandLog()
        async with MotorClient(
            turns_uri, maxPoolSize=1, appName=APP, event_listeners=[log]
        ) as client:
            items = client.turns.items
            pool = await _primary_pool(client)
            async with await client.start_session() as session:

                def with_deadline(number: int) -> Any:
                    with pymongo.timeout(20):
                        return items.find_one(comment=number)

                nearby = items.with_options(read_preference=ReadPreference.PRIMARY_PREFERRED)
                kinds = [
                    lambda n: items.find_one(comment=n),
                    lambda n: items.find_one(comment=n, session=session),
                    with_deadline,
                    lambda n: items.insert_one({"n": n}, comment=n),
                    lambda n: nearby.find_one(comment=n),
                    lambda n: items.find(comment=n).to_list(),
                    lambda n: client.turns.command("ping", comment=n),
                    lambda n: items.update_one({"_id": 0}, {"$set": {"n": n}}, comment=n),
                    lambda n: items.aggregate([], comment=n).to_list(),
                ]
                busy = client.admin.command("ping")
                assert pool.has_line
                operations = [kinds[n % len(kinds)](n) for n in range(1, 91)]
                begun = [has_begun(each) for each in operations if hasattr(each, "_worker")]
                assert 0 < begun.count(False) < 90
                await asyncio.gather(busy, *operations)
            assert ids(log) == list(range(1, 91))

    run(main())


async def _primary_pool(client: MotorClient) -> Any:
    await client.aconnect()
    assert client.primary is not None
    return client.delegate._topology._servers[client.primary].pool


def test_a_transaction_gets_through_a_crowd_and_so_does_the_crowd(turns_uri: str) -> None:
    async def main() -> None:
        async with MotorClient(turns_uri, maxPoolSize=1, appName=APP) as client:
            items = client.turns.items
            await client.aconnect()
            is_over = asyncio.Event()
            served = 0

            async def crowd() -> None:
                nonlocal served
                while not is_over.is_set():
                    await items.find_one()
                    served += 1

            async def transact() -> None:
                async with await client.start_session() as session:
                    for _ in range(5):
                        async with session.start_transaction():
                            await items.find_one({"_id": 0}, session=session)
                            await items.update_one({"_id": 0}, {"$inc": {"n": 1}}, session=session)

            crowded = [asyncio.create_task(crowd()) for _ in range(30)]
            await transact()
            is_over.set()
            await asyncio.gather(*crowded)
            # Fifteen commands, each after a whole line of thirty.
            assert served > 15 * 20
            assert await items.find_one() == {"_id": 0, "n": 5}

    run(main())


def test_an_operation_that_names_its_session_begins_at_once(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client, await client.start_session() as session:
            items, busy = client[database_name].items, sleep(client)
            operations = [
                items.find_one(session=session),
                items.insert_one({}, False, session),
                items.count_documents({}, session=session),
            ]
            assert all(map(has_begun, operations))
            without = items.find_one()
            assert not has_begun(without)
            await asyncio.gather(busy, without, *operations)

    run(main())


def test_an_operation_on_a_bound_session_begins_at_once(mongod_uri: str) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client:
            session = await client.start_session()
            if not hasattr(session.delegate, "bind"):
                pytest.skip("this PyMongo binds no sessions")
            busy = sleep(client)
            async with session.bind():
                bound = client.db.items.find_one()
                assert has_begun(bound)
                await asyncio.gather(busy, bound)

    run(main())


# -- cancelling -------------------------------------------------------------


def test_a_cancelled_operation_that_had_not_begun_sends_and_changes_nothing(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        log = CommandLog()
        async with connected(mongod_uri, event_listeners=[log]) as client:
            items = client[database_name].items
            busy = sleep(client)
            document: dict[str, Any] = {"n": 1}
            doomed = items.insert_one(document)
            after = items.insert_one({"_id": 2})
            assert not has_begun(doomed)
            assert doomed.cancel()
            await asyncio.gather(busy, after)
            assert document == {"n": 1}, "PyMongo would have given it an _id"
            assert log.names.count("insert") == 1
            assert await items.distinct("_id") == [2]

    run(main())


def test_a_crowd_cancelled_while_the_pool_is_full_leaves_it_working(mongod_uri: str) -> None:
    async def main() -> None:
        log = CommandLog()
        async with connected(mongod_uri, maxPoolSize=2, event_listeners=[log]) as client:
            busy = [sleep(client), sleep(client)]
            crowd = [client.db.items.find_one() for _ in range(500)]
            for each in crowd:
                each.cancel()
            await asyncio.gather(*busy)
            assert_at_rest(client)
            assert await client.db.items.find_one() is None
            assert log.names.count("find") == 1

    run(main())


def test_wait_for_ends_one_in_line_at_its_time(mongod_uri: str) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client:
            busy = sleep(client, 500)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.db.items.find_one(), 0.02)
            assert not busy.done()
            await busy

    run(main())


# -- time limits ------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"waitQueueTimeoutMS": 100}, WaitQueueTimeoutError),
        ({"timeoutMS": 100}, (WaitQueueTimeoutError, NetworkTimeout)),
        ({}, (WaitQueueTimeoutError, NetworkTimeout)),
    ],
    ids=["waitQueueTimeoutMS", "timeoutMS", "pymongo.timeout"],
)
def test_the_late_ones_time_out_in_line_in_time(
    mongod: Deployment, options: dict[str, int], error: Any
) -> None:
    async def main() -> None:
        async with (
            connected(mongod.uri, retryReads=False, **options) as client,
            fail_point(mongod.address, ["ping"], mode={"times": 1}, appName=APP, blockTimeMS=700),
        ):
            with pymongo.timeout(5):
                busy = client.admin.command("ping")
            started = time.monotonic()
            with pymongo.timeout(None if options else 0.1):
                late = [client.db.items.find_one() for _ in range(50)]
            results = await asyncio.gather(*late, return_exceptions=True)
            assert time.monotonic() - started < 0.6
            assert not busy.done()
            assert all(isinstance(each, error) for each in results)
            assert all(each.timeout for each in results if isinstance(each, PyMongoError))
            await busy

    run(main())


# -- what surrounds an operation --------------------------------------------


def test_an_operation_that_queued_runs_in_the_context_of_its_call(mongod_uri: str) -> None:
    users: list[str] = []

    class UserLog(CommandLog):
        def started(self, event: Any) -> None:
            if event.command_name == "find":
                users.append(user.get())

    async def main() -> None:
        async with connected(mongod_uri, event_listeners=[UserLog()]) as client:
            busy, queued = sleep(client, 50), []
            for name in "abc":
                user.set(name)
                queued.append(client.db.items.find_one())
            user.set("d")
            assert not any(map(has_begun, queued))
            await asyncio.gather(busy, *queued)
            assert users == ["a", "b", "c"]

    run(main())


def test_the_traceback_of_one_that_queued_shows_the_users_await_and_the_drivers_frames(
    mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        async with connected(mongod_uri) as client:
            items = client[database_name].items
            await items.insert_one({"_id": 1})
            busy = sleep(client, 50)
            queued = items.insert_one({"_id": 1})
            assert not has_begun(queued)
            with pytest.raises(DuplicateKeyError) as caught:
                await queued  # the user's line
            frames = traceback.extract_tb(caught.value.__traceback__)
            assert "await queued  # the user's line" in [frame.line for frame in frames]
            assert any(frame.name == "_insert_one" for frame in frames)
            await busy

    run(main())


def test_an_operation_made_in_a_listener_while_the_pool_is_full_ends_too(mongod_uri: str) -> None:
    made: list[asyncio.Future[Any]] = []

    class Maker(CommandLog):
        def succeeded(self, event: Any) -> None:
            if event.command_name == "sleep":
                made.append(client.db.items.find_one())

    client = MotorClient(mongod_uri, maxPoolSize=1, event_listeners=[Maker()])

    async def main() -> None:
        async with client:
            await sleep(client, 20)
            assert await made[0] is None
            assert_at_rest(client)

    run(main())


def test_operations_in_socket_requests_never_queue(mongod_uri: str) -> None:
    async def main() -> None:
        async with connected(mongod_uri, maxPoolSize=2) as client, client.start_request():
            await client.db.items.find_one()
            busy = [sleep(client, 50), sleep(client, 50)]
            operations = [client.db.items.find_one() for _ in range(20)]
            assert all(map(has_begun, operations))
            assert pool_of(client).size_cond.line_length == 0
            await asyncio.gather(*busy, *operations)

    run(main())


def test_those_in_line_before_a_request_starts_keep_out_of_it(mongod_uri: str) -> None:
    async def main() -> None:
        async with connected(mongod_uri, maxPoolSize=2) as client:
            busy = [sleep(client, 50), sleep(client, 50)]
            before = [client.db.items.find_one() for _ in range(20)]
            async with client.start_request():
                during = [client.db.items.find_one() for _ in range(20)]
                assert not any(map(has_begun, before))
                assert all(map(has_begun, during))
                await asyncio.gather(*busy, *before, *during)
                assert pool_of(client).requests == 1

    run(main())


# -- ends -------------------------------------------------------------------


def test_close_ends_all_who_stand_in_line(mongod_uri: str) -> None:
    async def main() -> None:
        client = MotorClient(mongod_uri, maxPoolSize=1)
        await client.aconnect()
        busy = sleep(client)
        queued = [client.db.items.find_one() for _ in range(100)]
        queued += [client.db.items.insert_one({}) for _ in range(100)]
        assert not any(map(has_begun, queued))
        await client.close()
        results = await asyncio.gather(*queued, return_exceptions=True)
        assert all(isinstance(each, PyMongoError) for each in results)
        assert (await busy)["ok"] == 1
        with pytest.raises(InvalidOperation):
            await client.db.items.find_one()

    run(main())


def test_a_loop_may_end_while_operations_stand_in_line_and_the_client_goes_on_elsewhere(
    mongod_uri: str,
) -> None:
    assert run_script(
        """
        import asyncio, sys
        from motorlike import MotorClient

        async def leave(awaited):
            await client.aconnect()
            client.admin.command("sleep", 1, millis=500)
            queued = [client.db.items.find_one() for _ in range(100)]
            tasks = [asyncio.ensure_future(each) for each in queued]
            if awaited:
                async def wait(): await client.db.items.insert_one({})
                tasks.append(asyncio.create_task(wait()))
                await asyncio.sleep(0)

        async def use():
            await asyncio.gather(*(client.db.items.find_one() for _ in range(100)))
            print("used")

        client = MotorClient(sys.argv[1], maxPoolSize=1)
        for awaited in (False, True):
            asyncio.run(leave(awaited))
            asyncio.run(use())
        asyncio.run(leave(False))
        client.close()
        """,
        mongod_uri,
    ).split() == ["used", "used"]


def test_operations_left_in_line_on_one_loop_use_nothing_of_the_next_ones(mongod_uri: str) -> None:
    log = CommandLog()
    client = MotorClient(mongod_uri, maxPoolSize=1, event_listeners=[log])
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def start() -> list[Any]:
        await client.aconnect()
        return [sleep(client, 50), *(client.db.items.find_one() for _ in range(5))]

    async def use() -> None:
        assert await client.db.items.find_one() is None

    async def end(busy: Any, *left: Any) -> None:
        assert (await busy)["ok"] == 1
        results = await asyncio.gather(*left, return_exceptions=True)
        assert all(isinstance(each, PyMongoError) for each in results)

    async def close() -> None:
        await client.close()

    try:
        operations = first.run_until_complete(start())
        second.run_until_complete(use())
        first.run_until_complete(end(*operations))
        assert log.names.count("find") == 1
        second.run_until_complete(use())
        second.run_until_complete(close())
    finally:
        for loop in (first, second):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


# -- servers that fail ------------------------------------------------------


def test_a_network_error_under_a_long_line_ends_every_operation_and_reads_are_retried(
    mongod: Deployment,
) -> None:
    async def main() -> None:
        async with (
            connected(mongod.uri, maxPoolSize=4) as client,
            fail_point(
                mongod.address, ["find"], mode={"times": 1}, appName=APP, closeConnection=True
            ),
        ):
            reads = [client.db.items.find_one() for _ in range(500)]
            assert await asyncio.gather(*reads) == [None] * 500

    run(main())


def test_connections_cut_under_a_long_line_end_every_operation(mongod: Deployment) -> None:
    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            connected(proxy.uri, maxPoolSize=4, heartbeatFrequencyMS=500) as client,
        ):
            for _ in range(3):
                busy = [sleep(client, 700) for _ in range(4)]
                await eventually(lambda: _all_sent(client))
                items = client.db.items
                reads = [items.find_one() for _ in range(300)]
                writes = [items.delete_one({"_id": n}) for n in range(100)]
                proxy.cut()
                lost = await asyncio.gather(*busy, return_exceptions=True)
                assert all(isinstance(each, AutoReconnect) for each in lost)
                assert await asyncio.gather(*reads) == [None] * 300
                # None was sent before the cut.
                await asyncio.gather(*writes)

    run(main())


def _all_sent(client: MotorClient) -> bool:
    pool = pool_of(client)
    return bool(pool.active_sockets == 4 and not pool._pending)


def test_a_line_for_the_primary_delays_no_read_from_a_secondary(
    replica_set: Deployment, turns_uri: str
) -> None:
    address = replica_set.primary().address

    async def main() -> None:
        async with MotorClient(turns_uri, appName=APP, maxPoolSize=2) as client:
            items = client.turns.items
            nearby = items.with_options(read_preference=ReadPreference.SECONDARY)
            await asyncio.gather(items.find_one(), nearby.find_one())
            async with fail_point(
                address, ["find"], mode={"times": 2}, appName=APP, blockTimeMS=1500
            ):
                blocked = [items.find_one() for _ in range(100)]
                assert not has_begun(blocked[-1])
                found = await asyncio.gather(*(nearby.find_one() for _ in range(50)))
                assert found == [{"_id": 0}] * 50
                assert not any(each.done() for each in blocked)
                assert await asyncio.gather(*blocked) == [{"_id": 0}] * 100

    run(main())


@pytest.mark.slow
def test_a_step_down_under_a_long_line_of_inserts_loses_nothing_that_was_acknowledged(
    turns_uri: str,
) -> None:
    async def main() -> None:
        async with MotorClient(turns_uri, appName=APP, maxPoolSize=4, w="majority") as client:
            items = client.turns.items
            pool = await _primary_pool(client)
            inserts = [items.insert_one({"_id": n}) for n in range(1, 2001)]
            await asyncio.wait(inserts[:20])
            assert pool.size_cond.line_length > 1000
            await client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=4)
            results = await asyncio.gather(*inserts, return_exceptions=True)
            failed = [each for each in results if isinstance(each, BaseException)]
            # A write is tried twice, and both may meet the same election.
            assert all(isinstance(each, PyMongoError) for each in failed)
            assert len(failed) < 200
            acknowledged = {each.inserted_id for each in results if each not in failed}
            assert acknowledged <= set(await items.distinct("_id"))
            assert pool.size_cond.line_length == pool.operation_count == 0

    run(main(), timeout=90)


# -- all at once ------------------------------------------------------------


class Storm:
    """Operations of all kinds, each of which reads back what it alone has written."""

    def __init__(self, client: MotorClient, items: Any) -> None:
        self.client = client
        self.items = items
        self.random = random.Random(SEED)
        self.completed = 0

    async def operate(self, number: int) -> None:
        items, value = self.items, f"value {number}"
        document = {"_id": number, "value": value}
        kind = number % 5
        if kind == 0:
            await items.insert_one(document)
            assert await items.find_one({"_id": number}) == document
        elif kind == 1:
            async with await self.client.start_session() as session:
                await items.insert_one(document, session=session)
                assert await items.find_one({"_id": number}, session=session) == document
        elif kind == 2:
            parts = [{"n": number, "part": part} for part in range(7)]
            await items.insert_many(parts)
            found = await items.find({"n": number}, batch_size=2).sort("part").to_list()
            assert found == parts
        elif kind == 3:
            with pymongo.timeout(self.random.choice([0.005, 0.05, 20])):
                await items.insert_one(document)
                assert await items.find_one({"_id": number}) == document
        else:
            update = {"$set": {"value": value}}
            await items.update_one({"_id": number}, update, upsert=True)
            assert await items.distinct("value", {"_id": number}) == [value]
        self.completed += 1

    async def round(self, numbers: range) -> None:
        tasks = [asyncio.create_task(self.operate(number)) for number in numbers]
        while pending := [task for task in tasks if not task.done()]:
            if self.random.random() < 0.4:
                self.random.choice(pending).cancel()
            await asyncio.wait(pending, timeout=0.002, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            # An AssertionError is raised here.
            if not task.cancelled() and not isinstance(task.exception(), PyMongoError):
                task.result()


@pytest.mark.parametrize("size", [1, POOL, 25])
def test_a_storm_of_all_kinds_leaves_everything_at_rest(
    size: int, mongod_uri: str, database_name: str
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_debug(False)
        hub = current_hub()
        async with connected(mongod_uri, maxPoolSize=size) as client:
            items = client[database_name].items
            await items.create_index("n")
            resting = hub.suspended
            storm = Storm(client, items)
            for number in range(10):
                await storm.round(range(100 * number, 100 * number + 100))
                await eventually(lambda: hub.suspended == resting)
                assert_at_rest(client)
            assert storm.completed > 200
            assert await items.count_documents({"_id": -1}) == 0

    run(main(), timeout=120)
