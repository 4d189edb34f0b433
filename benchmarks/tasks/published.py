"""MongoDB's published driver benchmark, its tasks under its own names.

A task is a fixed piece of work, done again and again; its score is its size
divided by the median time, MB being a million bytes. As published, an
iteration is repeated for a minute in all; here for ``--seconds``, but at
least once and a hundred times at most. BSON's own tasks are left out: every
peer has PyMongo's codec.

Rule: what a task does is what was published, also where a faster way exists.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..published_task import Document, Published, Work
from ..task import DATABASE, Task, Unavailable

if TYPE_CHECKING:
    from pymongo import MongoClient

__all__ = ["TASKS"]


class _RunCommand(Published):
    name = "run_command"
    summary = "Run command: {hello: true}"
    megabytes = 0.13

    async def do(self, work: Work) -> None:
        command = work.client.command(DATABASE)
        for _ in range(self.count):
            await command({"hello": True})


class _Tweets(Published):
    data = "single_and_multi_document/tweet.json"
    megabytes = 16.22

    def fill(self, client: MongoClient[Document], folder: Path) -> None:
        tweet = self.document(folder)
        tweets = ({**tweet, "_id": i} for i in range(1, self.count + 1))
        client[DATABASE][self.collection_name].insert_many(tweets)


class _FindOneById(_Tweets):
    name = "find_one_by_id"
    summary = "Find one by ID"

    async def do(self, work: Work) -> None:
        for i in range(1, self.count + 1):
            await work.collection.find_one({"_id": i})


class _FindMany(_Tweets):
    name = "find_many"
    summary = "Find many and empty the cursor"

    async def do(self, work: Work) -> None:
        await work.client.read_each(work.collection, {})


class _Insert(Published):
    async def before(self, work: Work) -> None:
        await work.empty()
        # Copies: PyMongo writes the _id that it makes into each.
        document = self.document(work.folder)
        work.documents = [dict(document) for _ in range(self.count)]


class _SmallInsert(_Insert):
    data = "single_and_multi_document/small_doc.json"
    megabytes = 2.75


class _LargeInsert(_Insert):
    data = "single_and_multi_document/large_doc.json"
    megabytes = 27.31
    count = published_count = 10


class _SmallInsertOne(_SmallInsert):
    name = "small_doc_insert_one"
    summary = "Small doc insertOne"

    async def do(self, work: Work) -> None:
        for document in work.documents:
            await work.collection.insert_one(document)


class _LargeInsertOne(_LargeInsert):
    name = "large_doc_insert_one"
    summary = "Large doc insertOne"
    do = _SmallInsertOne.do


class _SmallBulkInsert(_SmallInsert):
    name = "small_doc_bulk_insert"
    summary = "Small doc bulk insert"

    async def do(self, work: Work) -> None:
        await work.collection.insert_many(work.documents)


class _LargeBulkInsert(_LargeInsert):
    name = "large_doc_bulk_insert"
    summary = "Large doc bulk insert"
    do = _SmallBulkInsert.do


class _BulkWrite(_Insert):
    """One call of `bulk_write`, be it the collection's or the client's."""

    needs = frozenset({"bulk_write"})

    async def before(self, work: Work) -> None:
        from pymongo import InsertOne

        await super().before(work)
        work.models = [InsertOne(document, namespace=self.target(0)) for document in work.documents]

    def target(self, number: int) -> str | None:
        """The collection of the operation *number*, where the call does not say it."""
        return None

    async def do(self, work: Work) -> None:
        await work.collection.bulk_write(work.models)


class _MixedBulkWrite(_BulkWrite):
    """Each document is inserted, replaced and deleted."""

    data = _SmallInsert.data
    megabytes = 5.5
    # Ordered, and never two of a kind in a row: 30,000 commands, one by one.
    warms_up = False
    patience = 600.0

    async def before(self, work: Work) -> None:
        from pymongo import DeleteOne, InsertOne, ReplaceOne

        await super().before(work)
        work.models = []
        for number, document in enumerate(work.documents):
            replacement, target = dict(document), self.target(number)
            work.models += [
                InsertOne(document, namespace=target),
                ReplaceOne({}, replacement, namespace=target),
                DeleteOne({}, namespace=target),
            ]


class _SmallBulkWrite(_BulkWrite, _SmallInsert):
    name = "small_doc_collection_bulk_write_insert"
    summary = "Small doc Collection BulkWrite Insert"


class _LargeBulkWrite(_BulkWrite, _LargeInsert):
    name = "large_doc_collection_bulk_write_insert"
    summary = "Large doc Collection BulkWrite Insert"


class _MixedCollectionBulkWrite(_MixedBulkWrite):
    name = "small_doc_collection_bulk_write_mixed"
    summary = "Small doc Collection BulkWrite Mixed Operations"


class _ClientBulkWrite(_BulkWrite):
    def prepare(self, client: MongoClient[Document], folder: Path) -> None:
        version = client.server_info()["version"]
        if int(version.partition(".")[0]) < 8:
            raise Unavailable(f"needs MongoDB 8.0; the server is {version}")
        super().prepare(client, folder)

    def target(self, number: int) -> str:
        return f"{DATABASE}.{self.collection_name}"

    async def do(self, work: Work) -> None:
        bulk_write = work.client.native.bulk_write
        adapt = getattr(work.client, "adapt", None)
        await (adapt(bulk_write) if adapt else bulk_write)(work.models)


class _SmallClientBulkWrite(_ClientBulkWrite, _SmallInsert):
    name = "small_doc_client_bulk_write_insert"
    summary = "Small doc Client BulkWrite Insert"


class _LargeClientBulkWrite(_ClientBulkWrite, _LargeInsert):
    name = "large_doc_client_bulk_write_insert"
    summary = "Large doc Client BulkWrite Insert"


class _MixedClientBulkWrite(_ClientBulkWrite, _MixedBulkWrite):
    name = "small_doc_client_bulk_write_mixed"
    summary = "Small doc Client BulkWrite Mixed Operations"

    def target(self, number: int) -> str:
        return f"{DATABASE}.{self.collection_name}_{number % 10}"


class _Upload(Published):
    async def before(self, work: Work) -> None:
        # The first file that a bucket gets makes its indexes.
        work.file_ids = [await work.client.upload(DATABASE, self.name, b"1")]

    async def after(self, work: Work) -> None:
        chosen: Document = {"$in": work.file_ids}
        for name, key in (("fs.files", "_id"), ("fs.chunks", "files_id")):
            await work.client.collection(DATABASE, name).delete_many({key: chosen})


class _GridFSUpload(_Upload):
    name = "gridfs_upload"
    summary = "GridFS upload"
    data = "single_and_multi_document/gridfs_large.bin"
    megabytes = 52.43
    count = published_count = 1

    async def before(self, work: Work) -> None:
        await super().before(work)
        work.content = work.content or self.files(work.folder)[0].read_bytes()

    async def do(self, work: Work) -> None:
        work.file_ids.append(await work.client.upload(DATABASE, self.name, work.content))


class _Download(Published):
    def fill(self, client: MongoClient[Document], folder: Path) -> None:
        from gridfs import GridFSBucket

        bucket = GridFSBucket(client[DATABASE])
        for path in self.files(folder):
            file_id = self.file_id(path)
            # Of an earlier run on the same server.
            client[DATABASE].fs.files.delete_one({"_id": file_id})
            client[DATABASE].fs.chunks.delete_many({"files_id": file_id})
            with path.open("rb") as file:
                bucket.upload_from_stream_with_id(file_id, path.name, file)

    def file_id(self, path: Path) -> str:
        return f"{self.name} {path.name}"


class _GridFSDownload(_Download):
    name = "gridfs_download"
    summary = "GridFS download"
    data = _GridFSUpload.data
    megabytes = 52.43
    count = published_count = 1

    async def do(self, work: Work) -> None:
        await work.client.download(DATABASE, self.file_id(self.files(work.folder)[0]))


class _Parallel(Published):
    """Many files, several at once.

    They are read and parsed by the loop's thread: the kernel has them in memory. They are
    written in the loop's thread pool, as an application should: where the disk is behind, a
    write waits, and a client that runs on the loop would wait with it.
    """

    warms_up = False
    patience = 900.0


def _parse(path: Path) -> list[Document]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def _format(documents: list[Document]) -> str:
    return "".join([f"{json.dumps(document)}\n" for document in documents])


class _LDJSON(_Parallel):
    data = "parallel/ldjson_multi"
    megabytes = 565.0
    count = published_count = 100


class _Import(_LDJSON):
    name = "ldjson_multi_file_import"
    summary = "LDJSON multi-file import"

    async def before(self, work: Work) -> None:
        await work.empty()

    async def do(self, work: Work) -> None:
        async def load(path: Path) -> None:
            await work.collection.insert_many(_parse(path))

        await work.for_each(self.files(work.folder), load)


class _Export(_LDJSON):
    name = "ldjson_multi_file_export"
    summary = "LDJSON multi-file export"

    def fill(self, client: MongoClient[Document], folder: Path) -> None:
        collection = client[DATABASE][self.collection_name]
        collection.create_index("file")
        number = itertools.count()
        for path in self.files(folder):
            documents = [
                {**document, "_id": next(number), "file": path.name} for document in _parse(path)
            ]
            collection.insert_many(documents)

    async def do(self, work: Work) -> None:
        async def save(path: Path) -> None:
            # No document stays in memory while the text is written.
            text = _format(await work.client.read_list(work.collection, {"file": path.name}))
            await asyncio.to_thread((work.folder / path.name).with_suffix(".out").write_text, text)

        await work.for_each(self.files(work.folder), save)


class _GridFSFiles(_Parallel):
    data = "parallel/gridfs_multi"
    megabytes = 262.144
    count = published_count = 50


class _MultiUpload(_GridFSFiles, _Upload):
    name = "gridfs_multi_file_upload"
    summary = "GridFS multi-file upload"

    async def do(self, work: Work) -> None:
        async def store(path: Path) -> None:
            work.file_ids.append(await work.client.upload(DATABASE, path.name, path.read_bytes()))

        await work.for_each(self.files(work.folder), store)


class _MultiDownload(_GridFSFiles, _Download):
    name = "gridfs_multi_file_download"
    summary = "GridFS multi-file download"

    async def do(self, work: Work) -> None:
        async def fetch(path: Path) -> None:
            content = await work.client.download(DATABASE, self.file_id(path))
            await asyncio.to_thread((work.folder / path.name).write_bytes, content)

        await work.for_each(self.files(work.folder), fetch)


# The benchmark's own order: single document, multi-document, parallel.
TASKS: tuple[Task, ...] = (
    _RunCommand(),
    _FindOneById(),
    _SmallInsertOne(),
    _LargeInsertOne(),
    _FindMany(),
    _SmallBulkInsert(),
    _LargeBulkInsert(),
    _GridFSUpload(),
    _GridFSDownload(),
    _SmallBulkWrite(),
    _LargeBulkWrite(),
    _MixedCollectionBulkWrite(),
    _SmallClientBulkWrite(),
    _LargeClientBulkWrite(),
    _MixedClientBulkWrite(),
    _Import(),
    _Export(),
    _MultiUpload(),
    _MultiDownload(),
)
