"""All the ways in which the documents that a cursor has left can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Way = Callable[[Any], Awaitable[list[Any]]]


async def by_iterating(cursor: Any) -> list[Any]:
    return [document async for document in cursor]


async def by_next(cursor: Any) -> list[Any]:
    found = []
    try:
        while True:
            found.append(await cursor.next())
    except StopAsyncIteration:
        return found


async def by_fetch(cursor: Any) -> list[Any]:
    found = []
    while batch := await cursor.fetch():
        found += batch
    return found


async def by_to_list(cursor: Any) -> list[Any]:
    return [*await cursor.to_list(1), *await cursor.to_list(4), *await cursor.to_list()]


async def by_each(cursor: Any) -> list[Any]:
    found: list[Any] = []
    done = asyncio.get_running_loop().create_future()

    def take_one(document: Any, error: BaseException | None) -> None:
        if error is not None:
            done.set_exception(error)
        elif document is None:
            done.set_result(found)
        else:
            found.append(document)

    cursor.each(take_one)
    await done
    return found


async def by_fetch_next(cursor: Any) -> list[Any]:
    found = []
    with pytest.warns(DeprecationWarning):
        while await cursor.fetch_next:
            found.append(cursor.next_object())
    return found


async def by_try_next(cursor: Any) -> list[Any]:
    found = []
    while (document := await cursor.try_next()) is not None:
        found.append(document)
    return found
