"""What the tests of the request map share: things to hold, and tasks to hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from motorlike.request_map import Request, RequestMap


class Thing:
    """Something to hold, which counts how often it was released."""

    def __init__(self) -> None:
        self.releases = 0

    def release(self) -> None:
        self.releases += 1


def bind(request: Request | None) -> Thing:
    assert request is not None
    thing = request.holdings.held["server"] = Thing()
    return thing


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


async def in_task(function: Callable[[], Any]) -> Any:
    async def call() -> Any:
        return function()

    return await asyncio.create_task(call())


def is_empty(requests: RequestMap) -> bool:
    return not requests._by_owner
