"""Messages that the kernel's buffers do not take at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from motorlike import MotorClient
from motorlike.testing.mongod import Deployment
from tests.integration.proxy import Proxy
from tests.integration.support import assert_pool_is_at_rest, run

# Forty documents make one message of nearly 48 MB, the most that there is.
TEXT = "x" * 1_190_000
IDS = list(range(40))


def documents() -> list[dict[str, Any]]:
    return [{"_id": i, "text": TEXT} for i in IDS]


def test_48_megabytes_go_out_and_come_in_while_others_are_served(
    mongod_uri: str, database_name: str
) -> None:
    """Pitfall 11: a send that never yields stalls the loop."""

    async def ping_until(client: MotorClient, done: asyncio.Future[Any]) -> int:
        count = 0
        while not done.done():
            await client.admin.command("ping")
            count += 1
        return count

    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name].items
            await asyncio.gather(*(client.admin.command("ping") for _ in range(3)))
            inserted = items.insert_many(documents())
            assert await ping_until(client, inserted) > 3
            await inserted
            found = items.find(batch_size=1000).to_list()
            assert await ping_until(client, found) > 3
            assert [document["_id"] for document in await found] == IDS
            assert all(document["text"] == TEXT for document in await found)

    run(main())


def test_a_large_insert_whose_connection_breaks_is_an_error(mongod: Deployment) -> None:
    """Pitfall 11: a send that skips the wait hides write errors."""

    async def main() -> None:
        async with (
            Proxy(mongod.address) as proxy,
            MotorClient(proxy.uri, retryWrites=False) as client,
        ):
            await client.aconnect()
            proxy.is_silent = True
            inserting = client.large_broken.items.insert_many(documents())
            await asyncio.sleep(0.1)
            assert not inserting.done()
            proxy.cut()
            with pytest.raises(AutoReconnect):
                await inserting
            proxy.is_silent = False
            assert (await client.admin.command("ping"))["ok"] == 1
            assert_pool_is_at_rest(client)

    run(main())


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_large_insert_can_be_cancelled_while_it_is_sent(
    is_silent: bool, mongod: Deployment
) -> None:
    async def main() -> None:
        async with Proxy(mongod.address) as proxy, MotorClient(proxy.uri) as client:
            await client.aconnect()
            proxy.is_silent = is_silent
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.large_cancelled.items.insert_many(documents())
            assert time.monotonic() - started < 2
            proxy.is_silent = False
            assert (await client.admin.command("ping"))["ok"] == 1
            assert_pool_is_at_rest(client)
            await client.drop_database("large_cancelled")

    run(main())
