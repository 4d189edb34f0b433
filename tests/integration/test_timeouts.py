"""Time that runs out: PyMongo's own options and exceptions, each in time.

What becomes of the connection and its slot is in `test_cancelling`.
"""

from __future__ import annotations

import asyncio
import time

import pymongo
import pytest
from pymongo.errors import (
    ExecutionTimeout,
    NetworkTimeout,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from motorlike import MotorClient
from motorlike.testing.mongod import Deployment
from tests.integration.proxy import Proxy
from tests.integration.support import assert_pool_is_at_rest, fail_point, run

APP = "test_timeouts"
# Late by no more than this: the machine may be busy.
PROMPT_SECONDS = 0.6


def test_an_operation_with_a_deadline_says_that_it_timed_out(mongod: Deployment) -> None:
    """Pitfall 12: PyMongo's own exceptions, each with its reason."""

    async def main() -> None:
        async with MotorClient(mongod.uri, appName=APP) as client:
            await client.aconnect()
            async with fail_point(mongod.address, ["find"], appName=APP, blockTimeMS=400):
                with pymongo.timeout(0.1), pytest.raises(PyMongoError) as caught:
                    await client.db.items.find_one()
                assert caught.value.timeout
                assert isinstance(caught.value, NetworkTimeout)
                assert isinstance(caught.value.__cause__, OSError)
            async with fail_point(
                mongod.address, ["find"], mode={"times": 1}, appName=APP, errorCode=50
            ):
                with pytest.raises(ExecutionTimeout) as killed:
                    await client.db.items.find_one(max_time_ms=50)
                assert killed.value.timeout

    run(main())


def test_each_operation_that_fails_has_an_exception_of_its_own(mongod: Deployment) -> None:
    """Pitfall 12: a shared instance would grow a traceback with every raise."""

    async def main() -> None:
        async with MotorClient(
            mongod.uri, appName=APP, maxPoolSize=1, waitQueueTimeoutMS=50
        ) as client:
            await client.aconnect()
            async with fail_point(mongod.address, ["ping"], appName=APP, blockTimeMS=300):
                operations = [client.admin.command("ping") for _ in range(9)]
                results = await asyncio.gather(*operations, return_exceptions=True)
            errors = [result for result in results if isinstance(result, Exception)]
            assert [type(error) for error in errors] == [WaitQueueTimeoutError] * 8
            assert len(set(map(id, errors))) == 8
            # The first in line waits in PyMongo, the others in motorlike.
            assert len({_depth(error) for error in errors[1:]}) == 1

    run(main())


def _depth(error: BaseException) -> int:
    depth, traceback = 0, error.__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    return depth


def test_a_wait_in_the_queue_ends_after_wait_queue_timeout_ms(mongod: Deployment) -> None:
    async def main() -> None:
        async with MotorClient(
            mongod.uri, appName=APP, maxPoolSize=1, waitQueueTimeoutMS=100
        ) as client:
            await client.aconnect()
            async with fail_point(
                mongod.address, ["ping"], mode={"times": 1}, appName=APP, blockTimeMS=500
            ):
                first = client.admin.command("ping")
                started = time.monotonic()
                with pytest.raises(WaitQueueTimeoutError, match="maxPoolSize: 1"):
                    await client.admin.command("ping")
                assert 0.09 < time.monotonic() - started < 0.4
                assert (await first)["ok"] == 1
            assert_pool_is_at_rest(client)
            assert (await client.admin.command("ping"))["ok"] == 1

    run(main())


def test_server_selection_ends_after_server_selection_timeout_ms() -> None:
    async def main() -> None:
        # Nothing listens on the discard port.
        async with MotorClient("mongodb://127.0.0.1:9", serverSelectionTimeoutMS=150) as client:
            started = time.monotonic()
            with pytest.raises(ServerSelectionTimeoutError, match=r"127\.0\.0\.1:9"):
                await client.db.items.find_one()
            assert 0.14 < time.monotonic() - started < PROMPT_SECONDS

    run(main())


def test_a_server_that_never_answers_is_given_up_after_connect_timeout_ms(
    mongod: Deployment,
) -> None:
    async def main() -> None:
        async with Proxy(mongod.address) as proxy:
            proxy.is_silent = True
            async with MotorClient(
                proxy.uri, connectTimeoutMS=100, serverSelectionTimeoutMS=400
            ) as client:
                started = time.monotonic()
                with pytest.raises(ServerSelectionTimeoutError, match="timed out"):
                    await client.db.items.find_one()
                assert time.monotonic() - started < 1.5

    run(main())


@pytest.mark.parametrize("jump_seconds", [-3600, 3600])
def test_a_wall_clock_that_jumps_ends_nothing_and_holds_nothing_up(
    jump_seconds: int, mongod: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 14: timers are the monotonic clock's."""
    true_time = time.time

    async def main() -> None:
        async with MotorClient(
            mongod.uri, appName=APP, maxPoolSize=1, waitQueueTimeoutMS=400, socketTimeoutMS=2000
        ) as client:
            await client.aconnect()
            async with fail_point(
                mongod.address, ["ping"], mode={"times": 1}, appName=APP, blockTimeMS=600
            ):
                busy = client.admin.command("ping")
                waiting = client.admin.command("ping")
                await asyncio.sleep(0.02)
                monkeypatch.setattr(time, "time", lambda: true_time() + jump_seconds)
                started = time.monotonic()
                with pytest.raises(WaitQueueTimeoutError):
                    await waiting
                assert 0.3 < time.monotonic() - started < PROMPT_SECONDS
                assert (await busy)["ok"] == 1

    run(main())


def test_a_name_of_two_addresses_is_tried_at_both(mongod: Deployment) -> None:
    async def main() -> None:
        # The server listens at 127.0.0.1 alone; localhost may be ::1 first.
        async with MotorClient("localhost", mongod.port) as client:
            assert (await client.admin.command("ping"))["ok"] == 1

    run(main())


def test_a_name_that_is_nobodys_is_given_up_with_its_reason() -> None:
    async def main() -> None:
        async with MotorClient("no-such-host.invalid", serverSelectionTimeoutMS=1500) as client:
            with pytest.raises(ServerSelectionTimeoutError, match=r"no-such-host\.invalid.*rrno"):
                await client.admin.command("ping")

    run(main())
