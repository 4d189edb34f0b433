"""What the tests of socket requests share: whose socket it is, and that all is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from motorlike import MotorClient
from tests.integration.support import pool_of, run


def ask(client: MotorClient) -> asyncio.Future[dict[str, Any]]:
    """Ask the server from which address, ``"you"``, it sees an operation come."""
    return client.admin.command("whatsmyuri")


async def socket_of(client: MotorClient) -> str:
    """Return the address from which an operation of the running task comes."""
    return str((await ask(client))["you"])


async def in_task(client: MotorClient) -> str:
    """Return the address from which one of a child task comes."""
    return await asyncio.create_task(socket_of(client))


def assert_nothing_is_held(client: MotorClient) -> None:
    pool = pool_of(client)
    assert (pool.requests, pool.active_sockets, pool._pending) == (0, 0, 0)
    assert (pool.held, pool.replacing) == (set(), set())
    if hasattr(pool, "_restore_counters"):
        # PyMongo 4.18 does not count a failed check-out off.
        assert pool.operation_count == 0
    assert len(client.delegate.requests._by_owner) == 0


@asynccontextmanager
async def client_of(uri: str, **options: Any) -> AsyncIterator[MotorClient]:
    """A client with several connections, whose pool must be at rest in the end."""
    client = MotorClient(uri, **options)
    await asyncio.gather(*(client.admin.command("ping") for _ in range(3)))
    yield client
    assert_nothing_is_held(client)
    await client.close()


Story = Callable[[MotorClient], Coroutine[Any, Any, None]]


def tell(story: Story, uri: str, **options: Any) -> None:
    """Run *story* with a client; nothing may be held or left after it."""

    async def main() -> None:
        async with client_of(uri, **options) as client:
            await story(client)
            # A request ends in the turn after its task did.
            await asyncio.sleep(0)

    run(main())
