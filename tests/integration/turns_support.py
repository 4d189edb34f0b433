"""Clients whose pools are full, and what tells whether their operations have begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from motorlike import MotorClient
from tests.integration.support import CommandLog, assert_pool_is_at_rest, eventually, pool_of

APP = "test_turns"
POOL = 10


def assert_at_rest(client: MotorClient) -> None:
    assert_pool_is_at_rest(client)
    pool = pool_of(client)
    assert pool.size_cond._woken == 0
    assert not pool.size_cond._waiting
    assert not pool.is_admitting


def has_begun(future: Any) -> bool:
    return future._worker is not None


def ids(log: CommandLog) -> list[int]:
    """The numbers that the commands carry in their comments, in the order in which they came."""
    return [e.command["comment"] for e in log.started_events if "comment" in e.command]


@asynccontextmanager
async def connected(uri: str, **options: Any) -> AsyncIterator[MotorClient]:
    options = {"maxPoolSize": 1, "appName": APP, **options}
    async with MotorClient(uri, **options) as client:
        await client.aconnect()
        yield client
        # Whoever was cancelled has its greenlet a little longer.
        await eventually(lambda: not pool_of(client).active_sockets)
        assert_at_rest(client)


def sleep(client: MotorClient, millis: int = 200) -> asyncio.Future[Any]:
    """Keep a connection busy."""
    return client.admin.command("sleep", 1, millis=millis)
