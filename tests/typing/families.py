"""Everything that is reached from an `AsyncIOMotorClient` is of its family.

Read by mypy and pyright, never run. A `type: ignore` marks a mistake that both
must find; where one of them stops finding it, it reports the comment.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from asyncio import Future
from typing import Any, TypedDict, assert_type

from motorlike import MotorClient
from motorlike.declare import EnteringFuture
from motorlike.motor_asyncio import (
    AsyncIOMotorChangeStream,
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorCommandCursor,
    AsyncIOMotorCursor,
    AsyncIOMotorDatabase,
    AsyncIOMotorLatentCommandCursor,
    AsyncIOMotorRawBatchCursor,
)


class Movie(TypedDict):
    name: str
    year: int


async def the_family(client: AsyncIOMotorClient[Movie]) -> None:
    assert_type(client.cinema, AsyncIOMotorDatabase[Movie])
    assert_type(client["cinema"].movies, AsyncIOMotorCollection[Movie])
    assert_type(client.start_session(), EnteringFuture[AsyncIOMotorClientSession])
    assert_type(await client.list_databases(), AsyncIOMotorCommandCursor[dict[str, Any]])
    movies = client.cinema.movies
    assert_type(movies.find_one(), Future[Movie | None])
    assert_type(movies.find().sort("year")[2:6], AsyncIOMotorCursor[Movie])
    assert_type(await movies.find().to_list(), list[Movie])
    assert_type(movies.find_raw_batches(), AsyncIOMotorRawBatchCursor)
    assert_type(movies.aggregate([]), AsyncIOMotorLatentCommandCursor[Movie])
    assert_type(movies.database.client, AsyncIOMotorClient[Movie])
    async with movies.watch() as stream:
        async for change in stream:
            assert_type(change, Movie)
    assert_type(client.watch(), AsyncIOMotorChangeStream[Movie])


async def the_families_do_not_mix(
    client: AsyncIOMotorClient[Movie], other: MotorClient[Movie]
) -> None:
    async with client.start_session() as session:
        other.db.movies.find_one({}, session=session)
        await other.db.movies.insert_one({"name": "Jaws", "year": 1}, session=session)  # type: ignore[arg-type]
