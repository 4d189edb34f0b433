"""GridFS: what a bucket, its files and their cursor return.

Read by mypy and pyright, never run. A `type: ignore` marks a mistake that both
must find; where one of them stops finding it, it reports the comment.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import io
from asyncio import Future
from typing import Any, assert_type

from bson import ObjectId

from motorlike import (
    MotorClient,
    MotorDatabase,
    MotorGridFSBucket,
    MotorGridIn,
    MotorGridOut,
    MotorGridOutCursor,
)
from motorlike.aiohttp import AIOHTTPGridFS
from motorlike.web import GridFSHandler


async def storing(database: MotorDatabase[dict[str, Any]]) -> None:
    bucket = MotorGridFSBucket(database, "fs", chunk_size_bytes=1000)
    assert_type(bucket.upload_from_stream("f", io.BytesIO()), Future[ObjectId])
    async with bucket.open_upload_stream("f", metadata={"a": 1}) as grid_in:
        assert_type(grid_in, MotorGridIn)
        assert_type(await grid_in.write(b"data"), None)
    assert_type(grid_in.length, int)
    await bucket.upload_from_stream(5, b"data")  # type: ignore[arg-type]


async def fetching(bucket: MotorGridFSBucket, file_id: ObjectId) -> None:
    grid_out = await bucket.open_download_stream(file_id)
    assert_type(grid_out, MotorGridOut)
    assert_type(await grid_out.open(), MotorGridOut)
    assert_type(grid_out.read(), Future[bytes])
    assert_type([chunk async for chunk in grid_out], list[bytes])
    assert_type([part async for part in grid_out.iter_range(5)], list[bytes])
    assert_type(grid_out.seek(5), int)
    cursor = bucket.find({}).limit(5)
    assert_type(cursor, MotorGridOutCursor)
    assert_type(await cursor.to_list(), list[MotorGridOut])
    async for found in cursor:
        assert_type(found.filename, str)


def serving(client: MotorClient[dict[str, Any]]) -> None:
    AIOHTTPGridFS(client.website, get_cache_time=lambda path, modified, mime_type: 5)
    AIOHTTPGridFS(client)  # type: ignore[arg-type]


class Handler(GridFSHandler):
    def set_extra_headers(self, path: str, gridout: MotorGridOut) -> None:
        assert_type(gridout.length, int)
