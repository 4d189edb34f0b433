"""GridFS in streams, as web handlers pass files on: a part at a time.

Whole files from memory and into it are among the published tasks.

Rule: what is downloaded is counted, and a file that is short ends the run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..task import DATABASE, Figure, Task

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo import MongoClient

    from ..clients import Client
    from ..measure import Bench

__all__ = ["TASKS"]

_UPLOADS = "gridfs_uploads"
_DOWNLOADS = "gridfs_downloads"
_FILE_ID = "a file of parts"
_PART = bytes(64 * 1024)
_PARTS = 64
_SIZE = len(_PART) * _PARTS
_TEXT = f"{_SIZE >> 20} MiB"

# Any, here and below: each library's own objects.
Operation = Callable[[], Awaitable[Any]]


class _Stream(Task):
    figures = (
        Figure("megabytes", "MB/s", True),
        Figure("cpu", "CPU ms/MB", False),
        Figure("p99", "p99 ms/file", False),
    )
    needs = frozenset({"gridfs_streaming"})
    at_once = (1, 10)

    async def run(self, bench: Bench) -> dict[str, float]:
        measured = await bench.repeat(self.operation(await bench.connect()))
        size = _SIZE / 1e6
        return {
            "megabytes": measured.rate * size,
            "cpu": measured.cpu / 1e3 / size,
            "p99": measured.figures()["p99"],
        }

    def operation(self, client: Client) -> Operation:
        raise NotImplementedError


class _Upload(_Stream):
    name = "upload"
    summary = f"GridFS: {_TEXT} into an upload stream, 64 KiB at a time"

    async def run(self, bench: Bench) -> dict[str, float]:
        figures = await super().run(bench)
        client = await bench.connect()
        # Some seconds of uploads are a thousand megabytes.
        for part in ("files", "chunks"):
            await client.collection(DATABASE, f"{_UPLOADS}.{part}").drop()
        return figures

    def operation(self, client: Client) -> Operation:
        bucket = client.bucket(DATABASE, _UPLOADS)

        async def upload() -> None:
            stream = bucket.open_upload_stream("uploaded")
            write = client.adapt(stream.write)
            for _ in range(_PARTS):
                await write(_PART)
            await client.adapt(stream.close)()

        return upload


class _Download(_Stream):
    name = "download"
    summary = f"GridFS: {_TEXT} from a download stream, a chunk at a time"

    def prepare(self, client: MongoClient[dict[str, Any]], folder: Path) -> None:
        from gridfs import GridFSBucket

        for part in ("files", "chunks"):
            client[DATABASE].drop_collection(f"{_DOWNLOADS}.{part}")
        bucket = GridFSBucket(client[DATABASE], _DOWNLOADS)
        bucket.upload_from_stream_with_id(_FILE_ID, "to download", _PART * _PARTS)

    def operation(self, client: Client) -> Operation:
        bucket = client.bucket(DATABASE, _DOWNLOADS)

        async def download() -> None:
            stream = await client.adapt(bucket.open_download_stream)(_FILE_ID)
            read = client.adapt(stream.readchunk)
            size = 0
            while chunk := await read():
                size += len(chunk)
            if size != _SIZE:
                raise EOFError(f"the file has {size} bytes instead of {_SIZE}")

        return download


TASKS: tuple[Task, ...] = (_Upload(), _Download())
