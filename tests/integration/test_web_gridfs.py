"""GridFS files over HTTP, from Tornado."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import pytest
import tornado.web
from gridfs.errors import CorruptGridFile, NoFile
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from motorlike import MotorClient, MotorGridFSBucket, MotorGridOut
from motorlike.web import GridFSHandler
from tests.integration.gridfs_support import (
    end_of_background_work,
    growth_while_a_reader_is_slow,
    read_slowly,
)
from tests.integration.support import eventually, run

MB = 1 << 20
DATA = bytes(range(256)) * 40

Fetch = Callable[..., Coroutine[Any, Any, HTTPResponse]]
Body = Callable[[MotorGridFSBucket, Fetch], Coroutine[Any, Any, None]]
Serve = Callable[..., None]


@asynccontextmanager
async def listening(application: tornado.web.Application) -> AsyncIterator[int]:
    server = HTTPServer(application)
    bound, port = bind_unused_port()
    server.add_sockets([bound])
    try:
        yield port
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.fixture
def serve(mongod_uri: str, database_name: str) -> Serve:
    """Run a coroutine function with a bucket, and a function that asks a server for its files."""

    def start(body: Body, handler: type[GridFSHandler] = GridFSHandler, **options: Any) -> None:
        async def main() -> None:
            tz_aware = options.pop("tz_aware", False)
            async with MotorClient(mongod_uri, tz_aware=tz_aware) as client:
                database = client[database_name]
                route = (r"/files/(.*)", handler, {"database": database, **options})
                async with listening(tornado.web.Application([route])) as port:
                    http = AsyncHTTPClient(force_instance=True)

                    async def fetch(path: str, method: str = "GET", **headers: str) -> HTTPResponse:
                        named = {key.replace("_", "-"): value for key, value in headers.items()}
                        url = f"http://127.0.0.1:{port}/files/{path}"
                        return await http.fetch(
                            url,
                            raise_error=False,
                            method=method,
                            headers=named,
                            decompress_response=False,
                        )

                    fetch.port = port  # type: ignore[attr-defined]  # for those that need the socket
                    root = options.get("root_collection", "fs")
                    await body(MotorGridFSBucket(database, root), fetch)
                    http.close()
                await end_of_background_work(client)

        run(main(), timeout=60)

    return start


@pytest.mark.parametrize("size", [0, 1, 255 * 1024 - 1, 255 * 1024, 255 * 1024 + 1])
def test_file_is_sent(size: int, serve: Serve) -> None:
    data = (DATA * (size // len(DATA) + 1))[:size]

    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        await bucket.upload_from_stream("a file.png", data)
        response = await fetch("a%20file.png")
        assert (response.code, response.body) == (200, data)
        assert response.headers["Content-Length"] == str(size)
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["Cache-Control"] == "public"
        assert response.headers["Accept-Ranges"] == "bytes"
        assert "Expires" not in response.headers
        head = await fetch("a%20file.png", "HEAD")
        assert (head.code, head.body) == (200, b"")
        for name in ("Content-Length", "Content-Type", "Etag", "Last-Modified"):
            assert head.headers[name] == response.headers[name]

    serve(body)


def test_missing_file_is_not_found(serve: Serve) -> None:
    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        for method in ("GET", "HEAD"):
            assert (await fetch("nobody", method)).code == 404

    serve(body)


@pytest.mark.parametrize(
    ("name", "metadata", "expected"),
    [
        ("a.html", {"contentType": "text/plain"}, "text/plain"),
        ("a.tar.gz", None, "application/gzip"),
        ("a.txt.br", None, "application/octet-stream"),
        ("a", None, "application/octet-stream"),
        ("a.css", {"contentType": 7}, "text/css"),
    ],
)
def test_content_type(name: str, metadata: Any, expected: str, serve: Serve) -> None:
    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        await bucket.upload_from_stream(name, b"data", metadata=metadata)
        assert (await fetch(name)).headers["Content-Type"] == expected

    serve(body)


@pytest.mark.parametrize("tz_aware", [False, True])
def test_conditional_requests(tz_aware: bool, serve: Serve) -> None:
    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        await bucket.upload_from_stream("f", DATA)
        full = await fetch("f")
        tag, modified = full.headers["Etag"], full.headers["Last-Modified"]
        moment = parsedate_to_datetime(modified)
        assert abs(moment - datetime.now(UTC)) < timedelta(minutes=1)
        before = format_datetime(moment - timedelta(seconds=1), usegmt=True)
        after = format_datetime(moment + timedelta(hours=1), usegmt=True)
        for code, headers in (
            (304, {"If_None_Match": tag}),
            (304, {"If_None_Match": f'"other", W/{tag}'}),
            (304, {"If_None_Match": "*"}),
            (200, {"If_None_Match": '"other"'}),
            (304, {"If_Modified_Since": modified}),
            (304, {"If_Modified_Since": after}),
            (200, {"If_Modified_Since": before}),
            (200, {"If_Modified_Since": "yesterday"}),
            # The tag decides where there is one.
            (200, {"If_None_Match": '"other"', "If_Modified_Since": after}),
            (412, {"If_Match": '"other"'}),
            (412, {"If_Match": f"W/{tag}"}),
            (200, {"If_Match": tag}),
            (200, {"If_Match": "*"}),
            (412, {"If_Unmodified_Since": before}),
            (200, {"If_Unmodified_Since": modified}),
        ):
            for method in ("GET", "HEAD"):
                response = await fetch("f", method, **headers)
                assert response.code == code, headers
                expected = DATA if (code, method) == (200, "GET") else b""
                assert response.body == expected
                assert response.headers["Etag"] == tag
        # A new file of that name is another one.
        await asyncio.sleep(0.002)
        await bucket.upload_from_stream("f", b"new")
        response = await fetch("f", If_None_Match=tag)
        assert (response.code, response.body) == (200, b"new")

    serve(body, tz_aware=tz_aware)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=5-9", (5, 10)),
        ("bytes=95-", (95, 10240)),
        ("bytes=-7", (10233, 10240)),
        ("bytes=-99999", (0, 10240)),
        ("bytes=10239-99999", (10239, 10240)),
        ("Bytes = 999-1001", (999, 1001 + 1)),
    ],
)
def test_range_is_sent(wanted: str, expected: tuple[int, int], serve: Serve) -> None:
    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        await bucket.upload_from_stream("f", DATA, chunk_size_bytes=1000)
        response = await fetch("f", Range=wanted)
        start, stop = expected
        assert (response.code, response.body) == (206, DATA[start:stop])
        assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
        assert response.headers["Content-Length"] == str(stop - start)
        # It is defined for GET only.
        assert (await fetch("f", "HEAD", Range=wanted)).code == 200

    serve(body)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("bytes=10240-", 416),
        ("bytes=99999-99999", 416),
        ("bytes=-0", 416),
        ("bytes=9-5", 200),
        ("bytes=0-1,5-6", 200),
        ("bytes=-", 200),
        ("bytes=a-b", 200),
        ("lines=1-2", 200),
        ("bytes=" + "9" * 5000 + "-", 200),
    ],
)
def test_other_ranges_are_refused_or_ignored(wanted: str, code: int, serve: Serve) -> None:
    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        await bucket.upload_from_stream("f", DATA)
        response = await fetch("f", Range=wanted)
        assert (response.code, response.body) == (code, DATA if code == 200 else b"")
        if code == 416:
            assert response.headers["Content-Range"] == "bytes */10240"

    serve(body)


def test_range_is_sent_only_of_the_file_that_was_meant(serve: Serve) -> None:
    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        await bucket.upload_from_stream("f", DATA)
        full = await fetch("f")
        tag, modified = full.headers["Etag"], full.headers["Last-Modified"]
        later = parsedate_to_datetime(modified) + timedelta(hours=1)
        for code, condition in (
            (206, tag),
            (206, modified),
            (200, '"other"'),
            (200, f"W/{tag}"),
            (200, format_datetime(later, usegmt=True)),
        ):
            assert (await fetch("f", Range="bytes=1-2", If_Range=condition)).code == code
        unchanged = await fetch("f", Range="bytes=1-2", If_None_Match=tag)
        assert unchanged.code == 304

    serve(body)


def test_hooks_are_asked(serve: Serve) -> None:
    asked: list[Any] = []

    class Handler(GridFSHandler):
        def get_gridfs_file(self, bucket: Any, filename: str, request: Any) -> Any:
            asked.append((type(bucket), filename, request.method))
            if filename == "nobody":
                raise NoFile
            # Not open yet.
            return asyncio.sleep(0, MotorGridOut(bucket.collection, filename))

        def get_cache_time(self, path: str, modified: datetime, mime_type: str | None) -> int:
            asked.append((path, modified.microsecond, mime_type))
            return 100

        def set_extra_headers(self, path: str, gridout: MotorGridOut) -> None:
            self.set_header("X-Name", f"{path} {gridout.filename}")
            self.set_header("Content-Type", "x/y")

    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        await bucket.upload_from_stream_with_id("id.png", "name", DATA)
        response = await fetch("id.png")
        assert (response.code, response.body) == (200, DATA)
        assert response.headers["X-Name"] == "id.png name"
        assert response.headers["Content-Type"] == "x/y"
        assert response.headers["Cache-Control"] == "max-age=100"
        expires = parsedate_to_datetime(response.headers["Expires"]) - datetime.now(UTC)
        assert timedelta(seconds=60) < expires <= timedelta(seconds=100)
        assert asked == [(MotorGridFSBucket, "id.png", "GET"), ("id.png", 0, "image/png")]
        assert (await fetch("nobody")).code == 404
        assert (await fetch("else")).code == 404

    serve(body, Handler, root_collection="other")


def test_file_streams_to_a_handler_of_ones_own(serve: Serve) -> None:
    class Handler(GridFSHandler):
        async def get(self, path: str, include_body: bool = True) -> None:
            bucket = MotorGridFSBucket(self.database)
            grid_out = await bucket.open_download_stream_by_name(path)
            grid_out.seek(40)
            self.set_header("Content-Length", grid_out.length - 40)
            await grid_out.stream_to_handler(self)
            grid_out.close()

    async def body(bucket: MotorGridFSBucket, fetch: Fetch) -> None:
        await bucket.upload_from_stream("f", DATA, chunk_size_bytes=100)
        assert (await fetch("f")).body == DATA[40:]

    serve(body, Handler)


def test_slow_reader_of_a_large_file_costs_a_few_chunks_of_memory(serve: Serve) -> None:
    async def body(bucket: MotorGridFSBucket, fetch: Any) -> None:
        await bucket.upload_from_stream("f", bytes(64 * MB))
        size, growth = await growth_while_a_reader_is_slow(fetch.port)
        assert size == 64 * MB
        assert growth < 6 * MB

    serve(body)


def test_reader_that_goes_away_ends_the_download(
    serve: Serve, no_error_goes_unseen: list[logging.LogRecord]
) -> None:
    class Gone(Exception):
        pass

    ended = asyncio.Event()

    class Handler(GridFSHandler):
        async def get(self, path: str, include_body: bool = True) -> None:
            await super().get(path, include_body)
            ended.set()

    async def leave() -> None:
        raise Gone

    async def body(bucket: MotorGridFSBucket, fetch: Any) -> None:
        await bucket.upload_from_stream("f", bytes(16 * MB))
        with contextlib.suppress(Gone):
            await read_slowly(fetch.port, "/files/f", MB, leave)
        await eventually(ended.is_set)

    serve(body, Handler)


def test_file_with_a_lost_chunk_ends_the_connection(
    serve: Serve, no_error_goes_unseen: list[logging.LogRecord]
) -> None:
    async def nothing() -> None:
        pass

    async def body(bucket: MotorGridFSBucket, fetch: Any) -> None:
        file_id = await bucket.upload_from_stream("f", bytes(5 * MB))
        await bucket.collection.chunks.delete_one({"files_id": file_id, "n": 9})
        size = await read_slowly(fetch.port, "/files/f", MB, nothing)
        assert size == 9 * 255 * 1024
        (record,) = no_error_goes_unseen
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], CorruptGridFile)
        no_error_goes_unseen.clear()

    serve(body)
