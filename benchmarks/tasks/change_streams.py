"""Change streams: how fast events are read, and how soon they come.

Rule: a stream starts at a time that the server has told, so that it misses
nothing, whenever the library chooses to open it.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..task import DATABASE, Figure, Task

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo import MongoClient

    from ..clients import Client
    from ..measure import Bench
    from ..peers import Peer

__all__ = ["TASKS"]

# Any, here and below: documents, and each library's own objects.
Next = Callable[[], Awaitable[Any]]


class _Streams(Task):
    needs = frozenset({"change_streams"})
    needs_replica_set = True

    @property
    def collection_name(self) -> str:
        return f"{self.group}_{self.name}"

    async def watch(self, client: Client, since: Any) -> tuple[Any, Next]:
        """Return a change stream, and what waits for its next event."""
        collection = client.collection(DATABASE, self.collection_name)
        stream = collection.watch(start_at_operation_time=since)
        if inspect.isawaitable(stream):
            stream = await stream
        # What `async for` calls, where there is one.
        return stream, client.adapt(getattr(stream, "__anext__", stream.next))


class _Read(_Streams):
    name = "read"
    figures = (
        Figure("rate", "events/s", True),
        Figure("cpu", "CPU us/event", False),
    )
    count = 10_000
    summary = f"a change stream is opened and {count:,} events are read that have happened"

    def prepare(self, client: MongoClient[dict[str, Any]], folder: Path) -> None:
        collection = client[DATABASE][self.collection_name]
        collection.drop()
        created = client[DATABASE].command("create", self.collection_name)["operationTime"]
        collection.insert_many({"_id": i, "text": "a small document"} for i in range(self.count))
        (folder / "since").write_text(json.dumps([created.time, created.inc + 1]))

    async def run(self, bench: Bench) -> dict[str, float]:
        from bson.timestamp import Timestamp

        client = await bench.connect()
        since = Timestamp(*json.loads((bench.folder / "since").read_text()))

        async def read() -> None:
            stream, wait_for_next = await self.watch(client, since)
            for i in range(self.count):
                event = await wait_for_next()
                if event["documentKey"]["_id"] != i:
                    raise LookupError(f"event {i} is {event}")
            await client.adapt(stream.close)()

        measured = await bench.repeat(read)
        return {"rate": measured.rate * self.count, "cpu": measured.cpu / self.count}


class _FanOut(_Streams):
    name = "fan_out"
    figures = (
        Figure("rate", "events/s", True),
        Figure("cpu", "CPU us/event", False),
        Figure("p50", "p50 ms", False),
        Figure("p99", "p99 ms", False),
    )
    needs = frozenset({"change_streams", "many_at_once"})
    streams = 50
    summary = f"a document is inserted and {streams} open change streams wait for it"

    def lacks(self, peer: Peer) -> str | None:
        if peer.name == "threads":
            return "streams that wait would hold all threads of the pool"
        return super().lacks(peer)

    async def run(self, bench: Bench) -> dict[str, float]:
        from bson.timestamp import Timestamp

        client = await bench.connect()
        collection = client.collection(DATABASE, self.collection_name)
        await collection.insert_one({"number": 0})
        now = (await client.command("admin")({"ping": 1}))["operationTime"]
        # Without the event of that time.
        since = Timestamp(now.time, now.inc + 1)
        streams = [await self.watch(client, since) for _ in range(self.streams)]
        numbers = itertools.count(1)

        async def tell_all() -> None:
            number = next(numbers)
            events = [asyncio.ensure_future(wait_for_next()) for _, wait_for_next in streams]
            await collection.insert_one({"number": number})
            for event in await asyncio.gather(*events):
                if event["fullDocument"]["number"] != number:
                    raise LookupError(f"instead of that of document {number}, the event is {event}")

        measured = await bench.repeat(tell_all)
        for stream, _ in streams:
            await client.adapt(stream.close)()
        figures = measured.figures()
        figures["rate"] *= self.streams
        figures["cpu"] /= self.streams
        del figures["p95"]
        return figures


TASKS: tuple[Task, ...] = (_Read(), _FanOut())
