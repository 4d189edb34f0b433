"""Cursors yield documents, raw ones bytes; their methods return the same kind of cursor.

Read by mypy and pyright, never run. A `type: ignore` marks a mistake that both
must find; where one of them stops finding it, it reports the comment.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from asyncio import Future
from collections.abc import Mapping, MutableMapping
from typing import Any, TypedDict, assert_type

from motorlike import (
    MotorClient,
    MotorCollection,
    MotorCommandCursor,
    MotorCursor,
    MotorDatabase,
    MotorLatentCommandCursor,
    MotorRawBatchCursor,
)


class Movie(TypedDict):
    name: str
    year: int


async def finding(collection: MotorCollection[Movie]) -> None:
    cursor = collection.find({"year": {"$gt": 1970}})
    assert_type(cursor, MotorCursor[Movie])
    async for movie in cursor:
        assert_type(movie, Movie)
    assert_type([movie["name"] async for movie in cursor], list[str])
    assert_type(await anext(cursor), Movie)
    assert_type(await cursor.next(), Movie)
    assert_type(await cursor.fetch(), list[Movie])
    assert_type(cursor.to_list(), Future[list[Movie]])
    assert_type(await cursor.to_list(10), list[Movie])
    assert_type(cursor.explain(), Future[Movie])
    assert_type(cursor.alive, bool)
    async with cursor as entered:
        assert_type(entered, MotorCursor[Movie])
    await cursor.close()


def chaining(collection: MotorCollection[Movie]) -> None:
    cursor = collection.find().sort("year", -1).skip(2).limit(5).hint("year").max_time_ms(100)
    assert_type(cursor, MotorCursor[Movie])
    assert_type(cursor[2:6], MotorCursor[Movie])
    assert_type(cursor[2], MotorCursor[Movie])
    assert_type(cursor.clone(), MotorCursor[Movie])
    assert_type(cursor.rewind().batch_size(3), MotorCursor[Movie])
    assert_type(cursor.collection, MotorCollection[Any])
    cursor.limit("five")  # type: ignore[arg-type]


def cursors_are_hashable(cursor: MotorCursor[Movie]) -> None:
    assert_type({cursor: 1}, dict[MotorCursor[Movie], int])


def a_cursor_is_not_for_synchronous_code(cursor: MotorCursor[Movie]) -> None:
    for _ in cursor:  # type: ignore[misc]
        pass
    with cursor:  # type: ignore[attr-defined]
        pass


async def a_cursor_is_not_awaited(cursor: MotorCursor[Movie]) -> None:
    await cursor  # type: ignore[misc]


async def raw_batches(collection: MotorCollection[Movie]) -> None:
    batches = collection.find_raw_batches({"year": 1975}).limit(3)
    assert_type(batches, MotorRawBatchCursor)
    async for batch in batches:
        assert_type(batch, bytes)
    assert_type(await batches.to_list(), list[bytes])
    aggregated = collection.aggregate_raw_batches([])
    assert_type(aggregated, MotorLatentCommandCursor[bytes])
    async for batch in aggregated:
        assert_type(batch, bytes)


async def aggregating(collection: MotorCollection[Movie]) -> None:
    cursor = collection.aggregate([{"$match": {}}], allowDiskUse=True)
    assert_type(cursor, MotorLatentCommandCursor[Movie])
    assert_type(await cursor, MotorLatentCommandCursor[Movie])
    assert_type(cursor.batch_size(10), MotorLatentCommandCursor[Movie])
    assert_type(await cursor.to_list(None), list[Movie])
    assert_type(await cursor.try_next(), Movie | None)
    async for movie in await collection.aggregate([]):
        assert_type(movie, Movie)
    async for index in collection.list_indexes():
        assert_type(index, MutableMapping[str, Any])
    async for search_index in collection.list_search_indexes():
        assert_type(search_index, Mapping[str, Any])
    takes_command_cursor(cursor)


def takes_command_cursor(cursor: MotorCommandCursor[Movie]) -> None:
    cursor.sort("year")  # type: ignore[attr-defined]


async def commands(client: MotorClient[Movie], database: MotorDatabase[Movie]) -> None:
    assert_type(client.list_databases(), Future[MotorCommandCursor[dict[str, Any]]])
    async for found in await client.list_databases():
        assert_type(found, dict[str, Any])
    assert_type(await database.cursor_command("find"), MotorCommandCursor[Movie])
    async for listed in await database.list_collections():
        assert_type(listed, MutableMapping[str, Any])
    assert_type(database.aggregate([]), MotorLatentCommandCursor[Movie])
    assert_type(database.command("ping"), Future[dict[str, Any]])
    async for _ in client.list_databases():  # type: ignore[attr-defined]
        pass
