"""GridFS files over HTTP, from aiohttp.

What a request is answered with is decided in `motorlike.conditional`, as for
Tornado: `test_web_gridfs` has the cases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import pytest
from gridfs.errors import NoFile

from motorlike import MotorClient
from motorlike.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorGridFSBucket,
    AsyncIOMotorGridOut,
)
from tests.integration.gridfs_support import (
    end_of_background_work,
    growth_while_a_reader_is_slow,
    read_slowly,
)
from tests.integration.support import eventually, run

pytest.importorskip("aiohttp")

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from motorlike.aiohttp import AIOHTTPGridFS

MB = 1 << 20
DATA = bytes(range(256)) * 40

Body = Callable[[AsyncIOMotorGridFSBucket, Any], Coroutine[Any, Any, None]]
Serve = Callable[..., None]


class Site:
    """A server, and a client for it."""

    def __init__(self, server: TestServer, session: ClientSession) -> None:
        self.port = server.port or 0
        self.session = session
        self.root = str(server.make_url("/files/"))

    async def fetch(self, path: str, method: str = "GET", **headers: str) -> Any:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with self.session.request(method, self.root + path, headers=named) as response:
            return response, await response.read()


@pytest.fixture
def serve(mongod_uri: str, database_name: str) -> Serve:
    """Run a coroutine function with a bucket and a site that serves its files."""

    def start(body: Body, pattern: str = "/files/{filename:.*}", **options: Any) -> None:
        async def main() -> None:
            async with AsyncIOMotorClient(mongod_uri) as client:
                database = client[database_name]
                application = web.Application()
                application.router.add_route("*", pattern, AIOHTTPGridFS(database, **options))
                async with TestServer(application) as server, ClientSession() as session:
                    root = options.get("root_collection", "fs")
                    await body(AsyncIOMotorGridFSBucket(database, root), Site(server, session))
                await end_of_background_work(client)

        run(main(), timeout=60)

    return start


@pytest.mark.parametrize("size", [0, 1, 255 * 1024 - 1, 255 * 1024, 255 * 1024 + 1])
def test_file_is_sent(size: int, serve: Serve) -> None:
    data = (DATA * (size // len(DATA) + 1))[:size]

    async def body(bucket: AsyncIOMotorGridFSBucket, site: Site) -> None:
        await bucket.upload_from_stream("a/file.png", data)
        response, received = await site.fetch("a/file.png")
        assert (response.status, received) == (200, data)
        assert response.headers["Content-Length"] == str(size)
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["Cache-Control"] == "public"
        head, received = await site.fetch("a/file.png", "HEAD")
        assert (head.status, received) == (200, b"")
        for name in ("Content-Length", "Content-Type", "Etag", "Last-Modified", "Accept-Ranges"):
            assert head.headers[name] == response.headers[name]

    serve(body)


def test_what_is_not_there_or_not_allowed(serve: Serve) -> None:
    async def body(bucket: AsyncIOMotorGridFSBucket, site: Site) -> None:
        assert (await site.fetch("nobody"))[0].status == 404
        assert (await site.fetch("nobody", "HEAD"))[0].status == 404
        response, _ = await site.fetch("nobody", "POST")
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")

    serve(body)


def test_route_without_a_file_name_is_reported(serve: Serve) -> None:
    async def body(bucket: AsyncIOMotorGridFSBucket, site: Site) -> None:
        await bucket.upload_from_stream("f", DATA)
        response, text = await site.fetch("f")
        assert response.status == 500
        assert b"{filename}" in text

    serve(body, "/files/{name}")


def test_conditions_and_ranges(serve: Serve) -> None:
    async def body(bucket: AsyncIOMotorGridFSBucket, site: Site) -> None:
        await bucket.upload_from_stream("f", DATA, chunk_size_bytes=1000)
        full, _ = await site.fetch("f")
        tag, modified = full.headers["Etag"], full.headers["Last-Modified"]
        for headers, status, expected in (
            ({"If_None_Match": tag}, 304, b""),
            ({"If_Modified_Since": modified}, 304, b""),
            ({"If_None_Match": '"other"', "If_Modified_Since": modified}, 200, DATA),
            ({"If_Match": '"other"'}, 412, b""),
            ({"Range": "bytes=999-2000"}, 206, DATA[999:2001]),
            ({"Range": "bytes=-5"}, 206, DATA[-5:]),
            ({"Range": "bytes=20000-"}, 416, b""),
            ({"Range": "bytes=0-1,3-4"}, 200, DATA),
            ({"Range": "bytes=0-1", "If_Range": tag}, 206, DATA[:2]),
            ({"Range": "bytes=0-1", "If_Range": '"other"'}, 200, DATA),
        ):
            response, received = await site.fetch("f", **headers)
            assert (response.status, received) == (status, expected), headers
            assert response.headers["Etag"] == tag
        response, _ = await site.fetch("f", Range="bytes=1-2")
        assert response.headers["Content-Range"] == "bytes 1-2/10240"
        response, _ = await site.fetch("f", Range="bytes=20000-")
        assert response.headers["Content-Range"] == "bytes */10240"

    serve(body)


def test_hooks_are_asked(serve: Serve) -> None:
    asked: list[Any] = []

    def get_gridfs_file(bucket: Any, filename: str, request: web.Request) -> Any:
        asked.append((type(bucket), filename, request.method))
        if filename == "nobody":
            raise NoFile
        return asyncio.sleep(0, AsyncIOMotorGridOut(bucket.collection, filename))

    def get_cache_time(filename: str, modified: datetime, mime_type: str | None) -> int:
        asked.append((filename, type(modified), mime_type))
        return 100

    def set_extra_headers(response: web.StreamResponse, gridout: AsyncIOMotorGridOut) -> None:
        response.headers["X-Name"] = gridout.filename

    async def body(bucket: AsyncIOMotorGridFSBucket, site: Site) -> None:
        await bucket.upload_from_stream_with_id("id.png", "name", DATA)
        response, received = await site.fetch("id.png")
        assert (response.status, received) == (200, DATA)
        assert response.headers["X-Name"] == "name"
        assert response.headers["Cache-Control"] == "max-age=100"
        assert "Expires" in response.headers
        assert asked == [
            (AsyncIOMotorGridFSBucket, "id.png", "GET"),
            ("/files/id.png", datetime, "image/png"),
        ]
        assert (await site.fetch("nobody"))[0].status == 404
        assert (await site.fetch("else"))[0].status == 404

    serve(
        body,
        root_collection="other",
        get_gridfs_file=get_gridfs_file,
        get_cache_time=get_cache_time,
        set_extra_headers=set_extra_headers,
    )


def test_it_is_made_from_a_database(mongod_uri: str) -> None:
    client: MotorClient = MotorClient(mongod_uri)
    for wrong in (client, client.db.fs, client.delegate.db, None):
        with pytest.raises(TypeError, match="database"):
            AIOHTTPGridFS(wrong)  # type: ignore[arg-type]  # what is tested
    client.close()


def test_slow_reader_of_a_large_file_costs_a_few_chunks_of_memory(serve: Serve) -> None:
    async def body(bucket: AsyncIOMotorGridFSBucket, site: Site) -> None:
        await bucket.upload_from_stream("f", bytes(64 * MB))
        size, growth = await growth_while_a_reader_is_slow(site.port)
        assert size == 64 * MB
        assert growth < 6 * MB

    serve(body)


def test_reader_that_goes_away_ends_the_download(serve: Serve) -> None:
    closed = asyncio.Event()

    class Gone(Exception):
        pass

    def watch(response: web.StreamResponse, gridout: AsyncIOMotorGridOut) -> None:
        close = gridout.close

        def closing() -> None:
            close()
            closed.set()

        gridout.close = closing  # type: ignore[method-assign]  # for this file only

    async def leave() -> None:
        raise Gone

    async def body(bucket: AsyncIOMotorGridFSBucket, site: Site) -> None:
        await bucket.upload_from_stream("f", bytes(16 * MB))
        with pytest.raises(Gone):
            await read_slowly(site.port, "/files/f", MB, leave)
        await eventually(closed.is_set)

    serve(body, set_extra_headers=watch)


def test_file_with_a_lost_chunk_ends_the_connection(serve: Serve) -> None:
    async def nothing() -> None:
        pass

    async def body(bucket: AsyncIOMotorGridFSBucket, site: Site) -> None:
        file_id = await bucket.upload_from_stream("f", bytes(5 * MB))
        await bucket.collection.chunks.delete_one({"files_id": file_id, "n": 9})
        size = await read_slowly(site.port, "/files/f", MB, nothing)
        assert size == 9 * 255 * 1024

    serve(body)
