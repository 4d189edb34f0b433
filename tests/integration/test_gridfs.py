"""GridFS: files of all sizes, file objects of all kinds, and how transfers end."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import gridfs
import pymongo
import pytest
from bson import ObjectId
from gridfs.errors import CorruptGridFile, FileExists, NoFile
from pymongo import WriteConcern
from pymongo.errors import ConfigurationError, InvalidOperation

from motorlike import (
    MotorClient,
    MotorGridFSBucket,
    MotorGridIn,
    MotorGridOut,
    MotorGridOutCursor,
)
from motorlike.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorGridFSBucket,
    AsyncIOMotorGridIn,
    AsyncIOMotorGridOut,
    AsyncIOMotorGridOutCursor,
)
from motorlike.testing.mongod import Deployment
from tests.integration.gridfs_support import end_of_background_work
from tests.integration.support import (
    CommandLog,
    assert_pool_is_at_rest,
    eventually,
    fail_point,
    open_cursors,
    run,
)
from tests.integration.ways_to_read import (
    by_each,
    by_fetch,
    by_fetch_next,
    by_iterating,
    by_next,
    by_to_list,
)

KIB = 1024
MB = 1 << 20
CHUNK = 255 * KIB
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 64 * MB]

Body = Callable[[MotorClient, MotorGridFSBucket], Coroutine[Any, Any, None]]
WithBucket = Callable[[Body], None]


def content(size: int) -> bytes:
    """Bytes of which no two chunks are equal."""
    seed = b"".join(n.to_bytes(4, "big") for n in range(4096))
    return b"".join(n.to_bytes(4, "big") + seed[4:] for n in range(size // len(seed) + 1))[:size]


@pytest.fixture
def with_bucket(mongod_uri: str, database_name: str) -> WithBucket:
    """Run a coroutine function with a client and a bucket; nothing may be left."""

    def start(body: Body) -> None:
        async def main() -> None:
            async with MotorClient(mongod_uri) as client:
                await body(client, MotorGridFSBucket(client[database_name]))
                await end_of_background_work(client)

        run(main(), timeout=60)

    return start


# -- round trips --------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_file_comes_back_as_it_went(
    size: int, with_bucket: WithBucket, synchronous: Any, database_name: str
) -> None:
    data = content(size)

    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        file_id = await bucket.upload_from_stream("file", io.BytesIO(data))
        assert isinstance(file_id, ObjectId)
        grid_out = await bucket.open_download_stream(file_id)
        assert (grid_out.length, grid_out._id, grid_out.name) == (size, file_id, "file")
        assert await grid_out.read() == data
        assert await grid_out.read() == b""
        grid_out.seek(0)
        chunks = [chunk async for chunk in grid_out]
        assert {len(chunk) for chunk in chunks[:-1]} <= {CHUNK}
        assert b"".join(chunks) == data
        copy = io.BytesIO()
        await bucket.download_to_stream(file_id, copy)
        assert copy.getvalue() == data

    with_bucket(body)
    # The application's own PyMongo sees the same.
    assert gridfs.GridFS(synchronous[database_name]).get_last_version("file").read() == data


def test_open_upload_stream_is_a_plain_call_and_its_writes_are_futures(
    with_bucket: WithBucket,
) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        grid_in = bucket.open_upload_stream("lines", chunk_size_bytes=7, metadata={"a": 1})
        assert isinstance(grid_in, MotorGridIn)
        assert (grid_in.filename, grid_in.chunk_size, grid_in.closed) == ("lines", 7, False)
        assert grid_in.metadata == {"a": 1}
        assert grid_in.writeable() and not grid_in.readable() and not grid_in.seekable()
        with pytest.raises(AttributeError, match="closed"):
            _ = grid_in.length
        write = grid_in.write(b"first\n")
        assert isinstance(write, asyncio.Future)
        await write
        await grid_in.writelines([b"second\n", io.BytesIO(b"third\n")])
        await grid_in.set("color", "red")
        await grid_in.close()
        assert (grid_in.closed, grid_in.length, grid_in.color) == (True, 19, "red")
        await grid_in.set("color", "green")
        with pytest.raises(ValueError, match="closed"):
            await grid_in.write(b"more")
        with pytest.raises(io.UnsupportedOperation):
            grid_in.read()

        grid_out = await bucket.open_download_stream_by_name("lines")
        assert (grid_out.color, grid_out.metadata) == ("green", {"a": 1})
        assert grid_out.upload_date.replace(microsecond=0) <= grid_in.upload_date.replace(
            tzinfo=None
        )
        assert await grid_out.readline() == b"first\n"
        assert await grid_out.readline(3) == b"sec"
        grid_out.seek(-6, os.SEEK_END)
        assert grid_out.tell() == 13
        assert await grid_out.read(2) == b"th"
        assert grid_out.seek(1, os.SEEK_CUR) == 16
        assert await grid_out.read() == b"rd\n"

    with_bucket(body)


def test_file_is_closed_at_the_end_of_its_block(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        file_id = await bucket.upload_from_stream("name", content(1000))
        async with await bucket.open_download_stream(file_id) as grid_out:
            assert await grid_out.read() == content(1000)
        assert grid_out.delegate.closed

    with_bucket(body)


def test_readchunk_gives_what_is_left_of_a_chunk(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        async with bucket.open_upload_stream("f", chunk_size_bytes=4) as grid_in:
            await grid_in.write(b"0123456789")
        grid_out = await bucket.open_download_stream(grid_in._id)
        assert await grid_out.read(1) == b"0"
        assert await grid_out.readchunk() == b"123"
        assert await grid_out.readchunk() == b"4567"
        assert await grid_out.readchunk() == b"89"
        assert await grid_out.readchunk() == b""
        assert [part async for part in grid_out.iter_range(3, 9)] == [b"3", b"4567", b"8"]
        assert [part async for part in grid_out.iter_range(8)] == [b"89"]
        assert [part async for part in grid_out.iter_range(10)] == []

    with_bucket(body)


def test_string_needs_an_encoding(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        grid_in = bucket.open_upload_stream("text")
        with pytest.raises(TypeError, match="encoding"):
            await grid_in.write("text")
        with pytest.raises(TypeError, match="file-like"):
            await grid_in.write(5)
        await grid_in.abort()
        async with MotorGridIn(bucket.collection, filename="text", encoding="utf-8") as grid_in:
            await grid_in.write("grün")
        assert await (await bucket.open_download_stream(grid_in._id)).read() == "grün".encode()

    with_bucket(body)


# -- the bucket ---------------------------------------------------------------


def test_names_and_revisions(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        for revision in range(3):
            await bucket.upload_from_stream("f", b"%d" % revision)
            await asyncio.sleep(0.002)
        for revision, expected in ((-1, b"2"), (0, b"0"), (1, b"1"), (-2, b"1")):
            grid_out = await bucket.open_download_stream_by_name("f", revision)
            assert await grid_out.read() == expected
            copy = io.BytesIO()
            await bucket.download_to_stream_by_name("f", copy, revision=revision)
            assert copy.getvalue() == expected
        await bucket.rename(grid_out._id, "g")
        await bucket.rename_by_name("f", "h")
        assert sorted([each.filename async for each in bucket.find()]) == ["g", "h", "h"]
        await bucket.delete_by_name("h")
        await bucket.delete(grid_out._id)
        assert await bucket.collection.files.count_documents({}) == 0
        assert await bucket.collection.chunks.count_documents({}) == 0

    with_bucket(body)


def test_missing_and_present_files_raise_what_the_applications_gridfs_knows(
    with_bucket: WithBucket,
) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        nobody = ObjectId()
        for operation in (
            bucket.open_download_stream(nobody),
            bucket.open_download_stream_by_name("nobody"),
            bucket.download_to_stream(nobody, io.BytesIO()),
            bucket.delete(nobody),
            bucket.rename(nobody, "x"),
            MotorGridOut(bucket.collection, nobody).open(),
            MotorGridOut(bucket.collection, nobody).read(),
        ):
            with pytest.raises(NoFile):
                await operation
        await bucket.upload_from_stream_with_id("mine", "f", b"data")
        with pytest.raises(FileExists):
            await bucket.upload_from_stream_with_id("mine", "f", source=b"data")
        await client[bucket.collection.database.name].fs.chunks.delete_many({})
        with pytest.raises(CorruptGridFile):
            await (await bucket.open_download_stream("mine")).read()

    with_bucket(body)


def test_bucket_takes_a_name_a_chunk_size_and_concerns(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        database = bucket.collection.database
        other = MotorGridFSBucket(
            database, "pictures", chunk_size_bytes=100, write_concern=WriteConcern(w=1)
        )
        await other.upload_from_stream("f", bytes(250))
        assert await database.pictures.chunks.count_documents({}) == 3
        with pytest.warns(DeprecationWarning, match="bucket_name"):
            named = MotorGridFSBucket(database, collection="pictures")
        assert named.collection.name == "pictures"
        with pytest.raises(ConfigurationError):
            MotorGridFSBucket(database, write_concern=WriteConcern(w=0))
        for wrong in (client, database.fs, database.delegate):
            with pytest.raises(TypeError, match="MotorDatabase"):
                MotorGridFSBucket(wrong)  # type: ignore[arg-type]  # what is tested
        for make in (MotorGridIn, MotorGridOut):
            with pytest.raises(TypeError, match="MotorCollection"):
                make(database)  # type: ignore[arg-type]  # what is tested

    with_bucket(body)


def test_cursor_gives_files_however_it_is_read(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        for n in range(5):
            await bucket.upload_from_stream(f"file {n}", b"%d" % n)

        def find() -> MotorGridOutCursor:
            return bucket.find({}, batch_size=2).sort("filename", -1)

        assert isinstance(find(), MotorGridOutCursor)
        names = [f"file {n}" for n in (4, 3, 2, 1, 0)]
        files = [each async for each in find()]
        assert all(isinstance(each, MotorGridOut) for each in files)
        assert [await each.read() for each in files] == [b"4", b"3", b"2", b"1", b"0"]
        assert [each.filename for each in await find().to_list()] == names
        cursor = find()
        assert [each.filename for each in await cursor.to_list(3)] == names[:3]
        assert [each.filename for each in await cursor.to_list(3)] == names[3:]
        assert [each.filename for each in await find().limit(1).clone().to_list(9)] == names[:1]
        assert (await find()[1:2].next()).filename == names[1]
        cursor = find()
        first = (await cursor.next()).filename
        assert first == (await cursor.rewind().next()).filename == names[0]
        await cursor.close()
        with pytest.raises(NotImplementedError):
            find().add_option(2)

    with_bucket(body)


def test_cursor_gives_files_in_motors_older_ways(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        for n in range(5):
            await bucket.upload_from_stream(f"file {n}", b"%d" % n)
        given: list[Any] = []
        ended = asyncio.Event()

        def callback(grid_out: MotorGridOut | None, error: BaseException | None) -> None:
            given.append(grid_out and grid_out.filename)
            if grid_out is None:
                ended.set()

        bucket.find({}, sort=[("filename", 1)], batch_size=2).each(callback)
        await ended.wait()
        assert given == [*(f"file {n}" for n in range(5)), None]
        cursor = bucket.find({"filename": "file 3"})
        with pytest.warns(DeprecationWarning):
            assert await cursor.fetch_next
            found = cursor.next_object()
        assert isinstance(found, MotorGridOut)
        assert await found.read() == b"3"

    with_bucket(body)


def test_what_a_list_leaves_of_a_batch_are_files_too(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        names = [f"file {n}" for n in range(5)]
        for name in names:
            await bucket.upload_from_stream(name, b"")
        for way in (by_iterating, by_next, by_fetch, by_to_list, by_each, by_fetch_next):
            cursor = bucket.find({}, sort=[("filename", 1)], batch_size=2)
            listed = await cursor.to_list(3)
            found = [*listed, *await way(cursor)]
            assert [type(each) for each in found] == [MotorGridOut] * 5
            assert [each.filename for each in found] == names

    with_bucket(body)


def test_asyncio_family_has_files_of_its_own(mongod_uri: str, database_name: str) -> None:
    async def main() -> None:
        async with AsyncIOMotorClient(mongod_uri) as client:
            database = client[database_name]
            bucket = AsyncIOMotorGridFSBucket(database)
            with pytest.raises(TypeError, match="AsyncIOMotorDatabase"):
                AsyncIOMotorGridFSBucket(MotorClient(mongod_uri).db)
            grid_in = bucket.open_upload_stream("f")
            assert type(grid_in) is AsyncIOMotorGridIn
            await grid_in.write(b"data")
            await grid_in.close()
            grid_out = await bucket.open_download_stream(grid_in._id)
            assert type(grid_out) is AsyncIOMotorGridOut
            assert type(bucket.find({})) is AsyncIOMotorGridOutCursor
            (found,) = await bucket.find({}).to_list()
            assert type(found) is AsyncIOMotorGridOut
            for each in (bucket, grid_in, grid_out, bucket.find({})):
                assert each.get_io_loop() is asyncio.get_running_loop()

    run(main())


def test_session_is_used_and_a_transaction_refused(
    replica_set: Deployment, database_name: str
) -> None:
    log = CommandLog()

    async def main() -> None:
        async with MotorClient(replica_set.uri, event_listeners=[log]) as client:
            bucket = MotorGridFSBucket(client[database_name])
            async with await client.start_session() as session:
                log.started_events.clear()
                file_id = await bucket.upload_from_stream("f", b"data", session=session)
                grid_out = await bucket.open_download_stream(file_id, session=session)
                assert await grid_out.read() == b"data"
                (found,) = await bucket.find({"_id": file_id}, session=session).to_list()
                assert await found.read() == b"data"
                used = {event.command["lsid"]["id"] for event in log.started_events}
                assert used == {session.session_id["id"]}
                async with session.start_transaction():
                    with pytest.raises(InvalidOperation):
                        await bucket.upload_from_stream("f", b"data", session=session)
                    with pytest.raises(InvalidOperation):
                        bucket.find({}, session=session)
            await client.drop_database(database_name)

    run(main())


# -- attributes ---------------------------------------------------------------


def test_attributes_need_the_files_document(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        file_id = await bucket.upload_from_stream("f", b"data", metadata={"a": 1})
        grid_out = MotorGridOut(bucket.collection, file_id)
        for name in ("_id", "length", "filename", "name", "chunk_size", "upload_date", "color"):
            with pytest.raises(InvalidOperation, match=r"open\(\)"):
                getattr(grid_out, name)
        with pytest.raises(InvalidOperation, match=r"open\(\)"):
            grid_out.seek(0, os.SEEK_END)
        assert await grid_out.open() is grid_out
        assert (grid_out.length, grid_out.metadata) == (4, {"a": 1})
        with pytest.raises(AttributeError, match="color"):
            _ = grid_out.color
        assert grid_out.readable() and grid_out.seekable()
        with pytest.raises(io.UnsupportedOperation):
            grid_out.write(b"data")
        lazy = MotorGridOut(bucket.collection, file_id)
        assert await lazy.read() == b"data"
        assert lazy.filename == "f"
        assert (
            await MotorGridOut(bucket.collection, file_document=lazy.delegate._file).read()
        ) == (b"data")

    with_bucket(body)


def test_deprecated_attribute_warns_at_the_line_that_reads_it(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        async with MotorGridIn(bucket.collection, content_type="image/png") as grid_in:
            await grid_in.write(b"data")
        grid_out = await bucket.open_download_stream(grid_in._id)
        with pytest.warns(DeprecationWarning, match="content_type") as warned:
            assert grid_out.content_type == "image/png"
        assert warned[0].filename == __file__

    with_bucket(body)


# -- file objects -------------------------------------------------------------


class BlockingFile:
    """A file object that blocks its thread in each call, until the loop has had a turn."""

    def __init__(self, data: bytes = b"") -> None:
        self.file = io.BytesIO(data)
        self.loop = asyncio.get_running_loop()

    def _wait_for_the_loop(self) -> None:
        had_a_turn = threading.Event()
        self.loop.call_soon_threadsafe(had_a_turn.set)
        assert had_a_turn.wait(5), "the loop was stopped"

    def read(self, size: int) -> bytes:
        self._wait_for_the_loop()
        return self.file.read(size)

    def write(self, data: bytes) -> int:
        self._wait_for_the_loop()
        return self.file.write(data)


class AsyncFile:
    """A file object whose methods are coroutine functions, and which reads little at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self.file = io.BytesIO(data)

    async def read(self, size: int) -> bytes:
        await asyncio.sleep(0)
        return self.file.read(min(size, 1000))

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.file.write(data)


def test_blocking_file_objects_do_not_stop_the_loop(with_bucket: WithBucket) -> None:
    data = content(4 * 5000)

    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        bucket = MotorGridFSBucket(bucket.collection.database, chunk_size_bytes=5000)
        await bucket.upload_from_stream("f", BlockingFile(data))
        copy = BlockingFile()
        await bucket.download_to_stream_by_name("f", copy)
        assert copy.file.getvalue() == data

    with_bucket(body)


@pytest.mark.parametrize("size", [0, 999, 1000, 5000, 12_345])
def test_asynchronous_file_objects_are_awaited(size: int, with_bucket: WithBucket) -> None:
    data = content(size)

    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        bucket = MotorGridFSBucket(bucket.collection.database, chunk_size_bytes=5000)
        await bucket.upload_from_stream("f", AsyncFile(data))
        copy = AsyncFile()
        await bucket.download_to_stream_by_name("f", copy)
        assert copy.file.getvalue() == data
        reader = asyncio.StreamReader()
        async with bucket.open_upload_stream("g") as grid_in:
            write = grid_in.write(reader)
            for start in range(0, size, 1234):
                reader.feed_data(data[start : start + 1234])
                await asyncio.sleep(0)
            reader.feed_eof()
            await write
        assert await (await bucket.open_download_stream(grid_in._id)).read() == data

    with_bucket(body)


def test_pipe_and_file_on_disk(with_bucket: WithBucket, tmp_path: Path) -> None:
    data = content(600_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    def fill(descriptor: int) -> None:
        with os.fdopen(descriptor, "wb") as pipe:
            pipe.write(data)

    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        reading, writing = os.pipe()
        filled = asyncio.get_running_loop().run_in_executor(None, fill, writing)
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            file_id = await bucket.upload_from_stream("pipe", pipe)
        await filled
        with path.open("rb") as file:
            other_id = await bucket.upload_from_stream("disk", file)
        for each in (file_id, other_id):
            assert await (await bucket.open_download_stream(each)).read() == data
        with (tmp_path / "copy").open("wb") as file:
            await bucket.download_to_stream(file_id, file)
        assert (tmp_path / "copy").read_bytes() == data

    with_bucket(body)


def test_file_of_gridfs_is_copied_within_it(with_bucket: WithBucket) -> None:
    data = content(12_345)

    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        original = await bucket.upload_from_stream("f", data, chunk_size_bytes=5000)
        first = await bucket.upload_from_stream("g", await bucket.open_download_stream(original))
        async with bucket.open_upload_stream("h") as grid_in:
            await grid_in.write(await bucket.open_download_stream(original))
        async with bucket.open_upload_stream("i") as lines:
            await lines.writelines(await bucket.open_download_stream(original))
        for file_id in (first, grid_in._id, lines._id):
            assert await (await bucket.open_download_stream(file_id)).read() == data
        # A coroutine from a function that is none, and keyword arguments.
        copy = AsyncFile()
        copy.write = functools.partial(copy.write)  # type: ignore[method-assign]  # what is tested
        await bucket.download_to_stream(file_id=first, destination=copy)
        assert copy.file.getvalue() == data

    with_bucket(body)


# -- endings ------------------------------------------------------------------


def test_abort_leaves_nothing(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        grid_in = bucket.open_upload_stream("f")
        # So much that some of it has been sent.
        await grid_in.write(content(9 * MB))
        assert await bucket.collection.chunks.count_documents({}) > 0
        await grid_in.abort()
        assert grid_in.closed
        for collection in (bucket.collection.chunks, bucket.collection.files):
            assert await collection.count_documents({}) == 0

    with_bucket(body)


def test_source_that_raises_leaves_no_file(with_bucket: WithBucket) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError("broken")

    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        with pytest.raises(OSError, match="broken"):
            await bucket.upload_from_stream("f", Broken())
        with pytest.raises(OSError, match="broken"):
            await bucket.download_to_stream(await bucket.upload_from_stream("g", b"."), Broken())
        with pytest.raises(ZeroDivisionError):
            async with bucket.open_upload_stream("h") as grid_in:
                await grid_in.write(b"data")
                _ = 1 / 0
        assert grid_in.closed
        assert [each.filename async for each in bucket.find()] == ["g"]

    # The greenlet must not be confused by what `Broken` lacks.
    Broken.write = Broken.read  # type: ignore[attr-defined]  # a method of the same shape
    with_bucket(body)


@pytest.mark.parametrize("command", ["insert", "find"])
def test_cancelled_transfer_gives_its_connection_back(
    command: str, mongod: Deployment, database_name: str
) -> None:
    async def main() -> None:
        async with MotorClient(mongod.uri, maxPoolSize=1) as client:
            bucket = MotorGridFSBucket(client[database_name])
            file_id = await bucket.upload_from_stream("f", content(3 * MB))
            address = ("127.0.0.1", mongod.port)
            async with fail_point(address, [command], blockTimeMS=500):
                for _ in range(3):
                    transfer = (
                        bucket.upload_from_stream("g", content(MB))
                        if command == "insert"
                        else bucket.download_to_stream(file_id, io.BytesIO())
                    )
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await transfer
            assert await (await bucket.open_download_stream(file_id)).read() == content(3 * MB)
            assert_pool_is_at_rest(client)

    run(main())


def test_cancelled_read_can_be_repeated(mongod: Deployment, database_name: str) -> None:
    data = content(5 * MB)

    async def main() -> None:
        async with MotorClient(mongod.uri) as client:
            bucket = MotorGridFSBucket(client[database_name])
            grid_out = await bucket.open_download_stream(await bucket.upload_from_stream("f", data))
            assert await grid_out.read(100) == data[:100]
            async with fail_point(("127.0.0.1", mongod.port), ["getMore"], blockTimeMS=500):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await grid_out.read()
            assert grid_out.tell() == 100
            assert await grid_out.read() == data[100:]
            assert_pool_is_at_rest(client)

    run(main())


def test_seek_and_close_do_no_io_and_leave_no_cursor_on_the_server(
    with_bucket: WithBucket, synchronous: Any, database_name: str
) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        def cursors() -> int:
            return open_cursors(synchronous, database_name, "fs.chunks")

        grid_out = await bucket.open_download_stream(
            await bucket.upload_from_stream("f", content(8 * MB))
        )
        for close in (lambda: grid_out.seek(0), grid_out.close):
            await grid_out.readchunk()
            assert cursors() == 1
            close()
            await eventually(lambda: cursors() == 0)

    with_bucket(body)


def test_downloads_run_at_the_same_time(with_bucket: WithBucket) -> None:
    async def body(client: MotorClient, bucket: MotorGridFSBucket) -> None:
        async def transfer(n: int) -> None:
            data = content(n * 100_000)
            file_id = await bucket.upload_from_stream(f"f {n}", io.BytesIO(data))
            digest = hashlib.sha256()
            async for chunk in await bucket.open_download_stream(file_id):
                digest.update(chunk)
            assert digest.digest() == hashlib.sha256(data).digest()

        await asyncio.gather(*map(transfer, range(25)))

    with_bucket(body)


def test_download_fetches_few_chunks_at_a_time(mongod_uri: str, database_name: str) -> None:
    log = CommandLog()

    async def main() -> None:
        async with MotorClient(mongod_uri, event_listeners=[log]) as client:
            bucket = MotorGridFSBucket(client[database_name])
            file_id = await bucket.upload_from_stream("f", content(16 * MB))
            grid_out = await bucket.open_download_stream(file_id)
            log.succeeded_events.clear()
            async for _ in grid_out:
                pass
            replies = [event.reply["cursor"] for event in log.succeeded_events]
            batches = [each.get("firstBatch") or each.get("nextBatch") for each in replies]
            assert max(len(batch or ()) for batch in batches) <= 4

    run(main())


def test_a_second_loop_reads_on_through_the_same_bucket(
    mongod_uri: str, database_name: str
) -> None:
    client: MotorClient = MotorClient(mongod_uri)
    bucket = MotorGridFSBucket(client[database_name])

    async def put() -> Any:
        return await bucket.upload_from_stream("f", b"data")

    async def get(file_id: Any) -> bytes:
        return await (await bucket.open_download_stream(file_id)).read()

    async def end() -> bytes:
        data = await get(file_id)
        await client.close()
        return data

    file_id = asyncio.run(put())
    assert run(end()) == b"data"


def test_applications_own_gridfs_is_untouched(synchronous: pymongo.MongoClient[Any]) -> None:
    assert not issubclass(MotorGridOut.__delegate_class__, gridfs.GridOut)
    assert gridfs.GridOut.__init__.__globals__["Collection"] is pymongo.collection.Collection
