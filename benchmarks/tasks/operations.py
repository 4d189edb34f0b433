"""Small operations, some at a time: what a web handler does.

Rule: an operation is one command and its reply, both of a few hundred bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..task import CPU, DATABASE, LATENCIES, RATE, Task

if TYPE_CHECKING:
    from pymongo import MongoClient

    from ..clients import Client
    from ..measure import Bench

__all__ = ["TASKS"]

_COLLECTION = "operations"
_DOCUMENT = {"_id": 1, "text": "a small document", "number": 1, "list": [1, 2, 3], "count": 0}
_UPDATED = 1000


class _Operation(Task):
    figures = (RATE, CPU, *LATENCIES)
    at_once = (1, 10, 100, 1000)
    has_limit = True

    def prepare(self, client: MongoClient[dict[str, Any]], folder: Any) -> None:
        client[DATABASE][_COLLECTION].replace_one({"_id": 1}, _DOCUMENT, upsert=True)

    async def run(self, bench: Bench) -> dict[str, float]:
        operation = self.operation(await bench.connect())
        return (await bench.repeat(operation)).figures()

    # Any, here and below: the result, of which each library has its own form.
    def operation(self, client: Client) -> Callable[[], Awaitable[Any]]:
        return self.on(client.collection(DATABASE, _COLLECTION))

    def exchange(self, database: Any) -> Callable[[], object]:
        return self.on(database[_COLLECTION])

    def on(self, collection: Any) -> Callable[[], Any]:
        """The operation on *collection*, be that synchronous or not."""
        raise NotImplementedError


class _FindOne(_Operation):
    name = "find_one"
    summary = "find_one by _id"

    def on(self, collection: Any) -> Callable[[], Any]:
        return lambda: collection.find_one({"_id": 1})


class _InsertOne(_Operation):
    name = "insert_one"
    summary = "insert_one of a small document"

    def on(self, collection: Any) -> Callable[[], Any]:
        return lambda: collection.insert_one({"text": "a small document", "number": 1})


class _UpdateOne(_Operation):
    name = "update_one"
    summary = "update_one by _id with $inc, of one document after the other of 1,000"

    def prepare(self, client: MongoClient[dict[str, Any]], folder: Any) -> None:
        collection = client[DATABASE][_COLLECTION]
        collection.delete_many({"_id": {"$lte": _UPDATED}})
        collection.insert_many({**_DOCUMENT, "_id": number + 1} for number in range(_UPDATED))

    def on(self, collection: Any) -> Callable[[], Any]:
        numbers = itertools.cycle(range(1, _UPDATED + 1))
        return lambda: collection.update_one({"_id": next(numbers)}, {"$inc": {"count": 1}})


class _UpdateSame(_Operation):
    """The server does these one by one: what comes too early is tried again there."""

    name = "update_same"
    summary = "update_one by _id with $inc, all of the same document"

    def on(self, collection: Any) -> Callable[[], Any]:
        return lambda: collection.update_one({"_id": 1}, {"$inc": {"count": 1}})


class _Ping(_Operation):
    name = "ping"
    summary = "the ping command, which does nothing"

    def operation(self, client: Client) -> Callable[[], Awaitable[Any]]:
        command = client.command("admin")
        return lambda: command({"ping": 1})

    def exchange(self, database: Any) -> Callable[[], object]:
        admin = database.client.admin
        return lambda: admin.command({"ping": 1})


TASKS: tuple[Task, ...] = (_FindOne(), _InsertOne(), _UpdateOne(), _UpdateSame(), _Ping())
