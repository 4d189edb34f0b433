"""Many documents in one operation: reading them, writing them, aggregating.

Rule: rates are in documents and in megabytes of BSON as the documents lie in
the collection, whatever else travels along.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..task import CPU_PER_DOCUMENT, DATABASE, DOCUMENTS, MEGABYTES, Task

if TYPE_CHECKING:
    from pymongo import MongoClient

    from ..clients import Client
    from ..measure import Bench

__all__ = ["TASKS"]

Document = dict[str, Any]  # Any: as BSON

_COUNT = 10_000
_QUICK_COUNT = 1_000


def _small(number: int) -> Document:
    return {"_id": number, "name": f"document {number}", "number": number, "flag": True}


def _large(number: int) -> Document:
    fields = {f"field{index:02}": f"{number} {'text of a field ' * 6}" for index in range(40)}
    return {"_id": number, **fields}


def _deep(number: int) -> Document:
    inner: Document = {"leaf": number}
    for level in range(20):
        inner = {"level": level, "list": [level, number], "inner": inner}
    return {"_id": number, **inner}


_KINDS: dict[str, tuple[Callable[[int], Document], str]] = {
    "small": (_small, "small documents"),
    "large": (_large, "documents of 4 kB"),
    "deep": (_deep, "documents nested 20 deep"),
}


def _megabytes(documents: Sequence[Document]) -> float:
    import bson

    return sum(len(bson.encode(document)) for document in documents) / 1e6


class _Documents(Task):
    """An operation on `_COUNT` documents of one kind."""

    figures = (DOCUMENTS, MEGABYTES, CPU_PER_DOCUMENT)
    patience = 120.0

    def __init__(self, kind: str, verb: str, how: str) -> None:
        self.make, plural = _KINDS[kind]
        self.name = f"{verb}_{kind}"
        self.summary = how.format(f"{_COUNT:,} {plural}")

    async def run(self, bench: Bench) -> dict[str, float]:
        count = _QUICK_COUNT if bench.case.is_quick else _COUNT
        documents = [self.make(number) for number in range(count)]
        operation = self.operation(await bench.connect(), documents)
        measured = await bench.repeat(operation)
        return measured.volume(count, _megabytes(documents))

    # Any, here and below: the result, of which each library has its own form.
    def operation(self, client: Client, documents: list[Document]) -> Callable[[], Awaitable[Any]]:
        raise NotImplementedError


class _Read(_Documents):
    """Reads documents that `prepare` has put there."""

    has_limit = True
    carries = _COUNT

    @property
    def collection(self) -> str:
        return f"documents_{self.make.__name__.strip('_')}"

    def prepare(self, client: MongoClient[dict[str, Any]], folder: Any) -> None:
        collection = client[DATABASE][self.collection]
        collection.drop()
        collection.insert_many([self.make(number) for number in range(_COUNT)])

    def operation(self, client: Client, documents: list[Document]) -> Callable[[], Awaitable[Any]]:
        collection = client.collection(DATABASE, self.collection)
        # All of them, unless the run is a quick one.
        query = {} if len(documents) == _COUNT else {"_id": {"$lt": len(documents)}}
        return lambda: self.read(client, collection, query)

    def read(self, client: Client, collection: Any, query: Document) -> Awaitable[Any]:
        raise NotImplementedError

    def exchange(self, database: Any) -> Callable[[], object]:
        collection = database[self.collection]
        return lambda: collection.find({}).to_list()


class _ReadList(_Read):
    def __init__(self, kind: str) -> None:
        super().__init__(kind, "to_list", "find {} by to_list")

    def read(self, client: Client, collection: Any, query: Document) -> Awaitable[Any]:
        return client.read_list(collection, query)


class _ReadEach(_Read):
    def __init__(self, kind: str) -> None:
        super().__init__(kind, "async_for", "find {} by async for")

    def read(self, client: Client, collection: Any, query: Document) -> Awaitable[Any]:
        return client.read_each(collection, query)

    def exchange(self, database: Any) -> Callable[[], object]:
        collection = database[self.collection]

        def read() -> None:
            for _ in collection.find({}):
                pass

        return read


class _Aggregate(_Read):
    def __init__(self, kind: str) -> None:
        super().__init__(kind, "aggregate", "aggregate {}: $match and $set")

    @staticmethod
    def pipeline(query: Document) -> list[Document]:
        return [{"$match": query}, {"$set": {"added": 1}}]

    def read(self, client: Client, collection: Any, query: Document) -> Awaitable[Any]:
        return client.aggregate(collection, self.pipeline(query))

    def exchange(self, database: Any) -> Callable[[], object]:
        collection = database[self.collection]
        return lambda: collection.aggregate(self.pipeline({})).to_list()


class _InsertMany(_Documents):
    """Inserts documents into a collection that is emptied each time."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind, "insert_many", "drop, then insert_many of {}")

    def operation(self, client: Client, documents: list[Document]) -> Callable[[], Awaitable[Any]]:
        collection = client.collection(DATABASE, "documents_inserted")

        async def insert() -> None:
            await collection.drop()
            await collection.insert_many(documents)

        return insert


class _BulkWrite(_Documents):
    """Inserts, updates and deletes, mixed in one call."""

    needs = frozenset({"bulk_write"})

    def __init__(self, kind: str) -> None:
        super().__init__(kind, "bulk_write", "drop, then bulk_write on {}: insert, update, delete")

    def operation(self, client: Client, documents: list[Document]) -> Callable[[], Awaitable[Any]]:
        from pymongo import DeleteOne, InsertOne, UpdateOne

        collection = client.collection(DATABASE, "documents_bulk_written")
        keys = [{"_id": document["_id"]} for document in documents]
        # By kind, as one would: each change from one kind to the next is a command.
        requests: list[Any] = [InsertOne(document) for document in documents]
        requests += [UpdateOne(key, {"$inc": {"number": 1}}) for key in keys]
        requests += [DeleteOne(key) for key in keys]

        async def write() -> None:
            await collection.drop()
            await collection.bulk_write(requests)

        return write


TASKS: tuple[Task, ...] = (
    *(_ReadEach(kind) for kind in _KINDS),
    *(_ReadList(kind) for kind in _KINDS),
    _Aggregate("small"),
    *(_InsertMany(kind) for kind in _KINDS),
    _BulkWrite("small"),
)
