"""GridFS files over HTTP, from aiohttp: `AIOHTTPGridFS`.

It needs the extra ``motorlike[aiohttp]``.

Rule: one chunk is on its way at a time; the next is fetched when it was sent.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any

from aiohttp import web
from gridfs.errors import NoFile

from motorlike import conditional
from motorlike.wrappers import MotorDatabase, MotorGridFSBucket, MotorGridOut

__all__ = ["AIOHTTPGridFS", "get_cache_time", "get_gridfs_file", "set_extra_headers"]


def get_gridfs_file(
    bucket: MotorGridFSBucket, filename: str, request: web.Request
) -> Awaitable[MotorGridOut]:
    """Return a Future of the file to send: the newest of this name."""
    return bucket.open_download_stream_by_name(filename)


def get_cache_time(filename: str, modified: datetime, mime_type: str | None) -> int:
    """Return for how many seconds browsers need not ask again: 0, for none."""
    return 0


def set_extra_headers(response: web.StreamResponse, gridout: MotorGridOut) -> None:
    """Set no further headers."""


class AIOHTTPGridFS:
    """An aiohttp request handler that serves the files of a GridFS bucket.

    The route has a variable ``filename``::

        files = AIOHTTPGridFS(client.website)
        app.router.add_get("/files/{filename:.*}", files)

    It answers GET and HEAD, conditional requests and requests for one range
    of bytes.

    Args:
        database: The database that has the files.
        root_collection: The name of the bucket in it.
        get_gridfs_file: Called with the bucket, the name and the request in
            place of this module's function of the same name. `NoFile`, raised
            there or by the Future, is answered with 404.
        get_cache_time: The same; called with the request's path, the time of
            upload and the file's type.
        set_extra_headers: The same; called with the response and the file.
    """

    def __init__(
        self,
        database: MotorDatabase[Any],
        root_collection: str = "fs",
        get_gridfs_file: Callable[..., Awaitable[MotorGridOut]] = get_gridfs_file,
        get_cache_time: Callable[[str, datetime, str | None], int] = get_cache_time,
        set_extra_headers: Callable[[web.StreamResponse, MotorGridOut], None] = set_extra_headers,
    ) -> None:
        if not isinstance(database, MotorDatabase):
            raise TypeError(f"AIOHTTPGridFS is made from a database, not {database!r}")
        bucket_class = database.__wrappers__[MotorGridFSBucket.__delegate_class__]
        self._bucket = bucket_class(database, root_collection)  # type: ignore[call-arg]  # a family's bucket
        self._get_gridfs_file = get_gridfs_file
        self._get_cache_time = get_cache_time
        self._set_extra_headers = set_extra_headers
        _mark_as_coroutine_function(self)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
        grid_out = await self._find(request)
        try:
            response, answer = self._respond(request, grid_out)
            await response.prepare(request)
            if request.method == "GET":
                async with aclosing(grid_out.iter_range(answer.start, answer.stop)) as chunks:
                    async for chunk in chunks:
                        await response.write(chunk)
            return response
        finally:
            grid_out.close()

    async def _find(self, request: web.Request) -> MotorGridOut:
        try:
            filename = request.match_info["filename"]
        except KeyError:
            raise web.HTTPInternalServerError(
                text="The route of an AIOHTTPGridFS needs a {filename} variable."
            ) from None
        try:
            grid_out = await self._get_gridfs_file(self._bucket, filename, request)
            return await grid_out.open()
        except NoFile as exc:
            raise web.HTTPNotFound(text=request.path) from exc

    def _respond(
        self, request: web.Request, grid_out: MotorGridOut
    ) -> tuple[web.StreamResponse, conditional.Answer]:
        uploaded, tag = grid_out.upload_date, conditional.etag(grid_out)
        mime_type = conditional.content_type(grid_out, request.path)
        cache_time = self._get_cache_time(request.path, uploaded, mime_type)
        response = web.StreamResponse()
        response.headers.update(
            {
                "Accept-Ranges": "bytes",
                "Content-Type": mime_type or "application/octet-stream",
                "Etag": tag,
                "Last-Modified": conditional.http_date(uploaded),
                **conditional.cache_headers(cache_time),
            }
        )
        self._set_extra_headers(response, grid_out)
        method, headers, length = request.method, request.headers, grid_out.length
        answer = conditional.answer(method, headers, tag, uploaded, length)
        response.set_status(answer.status)
        response.headers.update(answer.headers)
        return response, answer


def _mark_as_coroutine_function(handler: object) -> None:
    # aiohttp deprecates handlers that are not.
    if hasattr(inspect, "markcoroutinefunction"):
        inspect.markcoroutinefunction(handler)
    else:
        handler._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # Python 3.11's mark
