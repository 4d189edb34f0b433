"""GridFS files over HTTP, from Tornado: `GridFSHandler`.

Rule: one chunk is on its way at a time; the next is fetched when it was sent.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any

import tornado.web
from gridfs.errors import NoFile
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError

from motorlike import conditional
from motorlike.wrappers import MotorDatabase, MotorGridFSBucket, MotorGridOut

__all__ = ["GridFSHandler"]


class GridFSHandler(tornado.web.RequestHandler):
    """Serves the files of a GridFS bucket, as `tornado.web.StaticFileHandler` those on disk.

    The URL pattern has one group, the file's name::

        (r"/files/(.*)", GridFSHandler, {"database": client.website})

    It answers GET and HEAD, conditional requests and requests for one range
    of bytes. Override `get_gridfs_file`, `get_cache_time` and
    `set_extra_headers` to change what is sent.
    """

    def initialize(self, database: MotorDatabase[Any], root_collection: str = "fs") -> None:
        """Take the database, and the name of the bucket in it, from the URL pattern."""
        self.database = database
        self.root_collection = root_collection

    def get_gridfs_file(
        self, bucket: MotorGridFSBucket, filename: str, request: HTTPServerRequest
    ) -> Awaitable[MotorGridOut]:
        """Return a Future of the file to send: by default, the newest of this name.

        Args:
            filename: What the group of the URL pattern matched.

        Raises:
            gridfs.errors.NoFile: There is none; the answer is 404. So it is
                where the Future raises it.
        """
        return bucket.open_download_stream_by_name(filename)

    def get_cache_time(self, path: str, modified: datetime, mime_type: str | None) -> int:
        """Return for how many seconds browsers need not ask again; 0, the default, for none."""
        return 0

    def set_extra_headers(self, path: str, gridout: MotorGridOut) -> None:
        """Set further headers. All others but those of the length are set by then."""

    async def head(self, path: str) -> None:
        """Answer with the headers alone."""
        await self.get(path, include_body=False)

    async def get(self, path: str, include_body: bool = True) -> None:
        """Answer with the file."""
        grid_out = await self._find(path)
        try:
            answer = self._set_headers(path, grid_out)
            if include_body:
                # The reader went away: nobody is left to answer.
                with suppress(StreamClosedError):
                    await self._send(grid_out, answer)
        finally:
            grid_out.close()

    def compute_etag(self) -> str | None:
        """Return ``None``: the entity tag comes from the file, not from what was written."""
        return None

    async def _send(self, grid_out: MotorGridOut, answer: conditional.Answer) -> None:
        async with aclosing(grid_out.iter_range(answer.start, answer.stop)) as chunks:
            async for chunk in chunks:
                self.write(chunk)
                await self.flush()

    async def _find(self, path: str) -> MotorGridOut:
        bucket_class = self.database.__wrappers__[MotorGridFSBucket.__delegate_class__]
        bucket = bucket_class(self.database, self.root_collection)  # type: ignore[call-arg]  # a family's bucket
        try:
            grid_out = await self.get_gridfs_file(bucket, path, self.request)  # type: ignore[arg-type]  # the same
            return await grid_out.open()
        except NoFile:
            raise tornado.web.HTTPError(404) from None

    def _set_headers(self, path: str, grid_out: MotorGridOut) -> conditional.Answer:
        uploaded, tag = grid_out.upload_date, conditional.etag(grid_out)
        mime_type = conditional.content_type(grid_out, path)
        modified = uploaded.replace(microsecond=0)
        cache_time = self.get_cache_time(path, modified, mime_type)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": mime_type or "application/octet-stream",
            "Etag": tag,
            "Last-Modified": conditional.http_date(modified),
            **conditional.cache_headers(cache_time),
        }
        for name, value in headers.items():
            self.set_header(name, value)
        self.set_extra_headers(path, grid_out)
        request = self.request
        answer = conditional.answer(
            request.method or "GET", request.headers, tag, uploaded, grid_out.length
        )
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        if answer.status not in (200, 206):
            self.clear_header("Content-Type")
        return answer
