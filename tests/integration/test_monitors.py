"""The monitors of servers: one each, beside the pool, and back when the server is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pymongo import monitoring
from pymongo.errors import AutoReconnect, PyMongoError, ServerSelectionTimeoutError

from motorlike import MotorClient
from motorlike.green import threading as green_threading
from motorlike.green.hub import current_hub
from motorlike.testing.mongod import Deployment
from tests.integration.proxy import Proxy
from tests.integration.support import assert_pool_is_at_rest, eventually, fail_point, run

APP = "test_monitors"


def test_a_server_that_was_away_is_found_again(mongod: Deployment) -> None:
    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            MotorClient(
                proxy.uri, serverSelectionTimeoutMS=300, heartbeatFrequencyMS=500
            ) as client,
        ):
            await client.aconnect()
            proxy.is_refusing = True
            proxy.cut()
            with pytest.raises((AutoReconnect, ServerSelectionTimeoutError)):
                for _ in range(5):
                    await client.db.items.find_one()
            proxy.is_refusing = False
            deadline = time.monotonic() + 5
            while True:
                try:
                    assert await client.db.items.find_one() is None
                    break
                except PyMongoError:
                    assert time.monotonic() < deadline
            assert_pool_is_at_rest(client)

    run(main())


class HeartbeatLog(monitoring.ServerHeartbeatListener):
    def __init__(self) -> None:
        self.started_count = 0

    def started(self, event: Any) -> None:
        self.started_count += 1

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


def test_a_monitor_does_not_wait_for_a_slot_of_the_pool(mongod: Deployment) -> None:
    """Pitfall 13: a busy pool must not look like a dead server."""

    async def main() -> None:
        log = HeartbeatLog()
        async with MotorClient(
            mongod.uri,
            appName=APP,
            maxPoolSize=1,
            heartbeatFrequencyMS=500,
            serverMonitoringMode="poll",
            event_listeners=[log],
        ) as client:
            await client.aconnect()
            async with fail_point(
                mongod.address, ["ping"], mode={"times": 1}, appName=APP, blockTimeMS=1400
            ):
                busy = client.admin.command("ping")
                await asyncio.sleep(0.05)
                before = log.started_count
                line = [client.admin.command("ping") for _ in range(20)]
                assert (await busy)["ok"] == 1
                assert log.started_count >= before + 2
                await asyncio.gather(*line)

    run(main())


def test_one_server_has_one_monitor_however_many_operations_open_the_client(
    mongod: Deployment,
) -> None:
    """Pitfall 13: of many operations at once each might start one."""

    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            MotorClient(proxy.uri, maxPoolSize=1) as client,
        ):
            await asyncio.gather(*(client.admin.command("ping") for _ in range(100)))
            await eventually(lambda: proxy.accepted == 3)
            await asyncio.sleep(0.05)
            # The pool's connection, the monitor's, and its round-trip timer's.
            assert proxy.accepted == 3
            names = sorted(thread.name for thread in green_threading.enumerate())
            assert names == [
                "pymongo_kill_cursors_thread",
                "pymongo_server_monitor_thread",
                "pymongo_server_rtt_thread",
            ]
            assert current_hub().suspended == 3

    run(main())


def test_a_replica_sets_members_have_one_monitor_each(replica_set: Deployment) -> None:
    """Pitfall 13, with three servers."""

    async def main() -> None:
        async with MotorClient(replica_set.uri) as client:
            await asyncio.gather(*(client.admin.command("ping") for _ in range(20)))
            await eventually(lambda: len(client.nodes) == 3)
            names = [thread.name for thread in green_threading.enumerate()]
            assert names.count("pymongo_server_monitor_thread") == 3

    run(main())
