"""What the tasks of MongoDB's published driver benchmark have in common.

`tasks/published.py` has a class for each of them, derived from `Published`.

Rule: the clock covers the work alone, not the emptying and filling before it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from .published_data import unpack
from .task import DATABASE, Figure, Task

if TYPE_CHECKING:
    from pymongo import MongoClient

    from .clients import Client
    from .measure import Bench

__all__ = ["Document", "Published", "Work"]

_SCORE = Figure("score", "MB/s", True)
_CPU = Figure("cpu", "CPU ms/MB", False)

_MOST_ITERATIONS = 100
# Of the parallel tasks: how many files are under way.
_FILES_AT_ONCE = 8
# Any, here and below: documents, and each library's own objects.
Document = dict[str, Any]


@dataclass
class Work:
    """What an iteration works on."""

    client: Client
    name: str
    folder: Path
    is_concurrent: bool
    content: bytes = b""
    documents: list[Document] = field(default_factory=list)
    models: list[Any] = field(default_factory=list)
    file_ids: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.collection = self.client.collection(DATABASE, self.name)

    async def empty(self) -> None:
        """Leave the collection there, with nothing in it."""
        await self.collection.drop()
        await self.client.command(DATABASE)({"create": self.name})

    async def for_each(self, items: Iterable[Any], do: Callable[[Any], Awaitable[None]]) -> None:
        """Call *do* with each of *items*, several at once if the peer can."""
        left = iter(items)

        async def work() -> None:
            for item in left:
                await do(item)

        workers = _FILES_AT_ONCE if self.is_concurrent else 1
        await asyncio.gather(*(work() for _ in range(workers)))


class Published(Task):
    """A task of the benchmark.

    Attributes:
        megabytes: Its size, as published.
        data: The file or folder that it needs, in its archive.
        count: How many operations, documents or files an iteration has.
        published_count: How many it should have; tests do with fewer.
        warms_up: Whether an iteration is done and not counted.
    """

    figures = (_SCORE, _CPU)
    megabytes: float
    data: str | None = None
    count = 10_000
    published_count = 10_000
    warms_up = True
    patience = 300.0

    def prepare(self, client: MongoClient[Document], folder: Path) -> None:
        if self.data:
            unpack(self.data, folder)
        client[DATABASE].drop_collection(self.collection_name)
        self.fill(client, folder)

    @property
    def collection_name(self) -> str:
        """Each task has a collection of its own, for the runs are interleaved."""
        return f"{self.group}_{self.name}"

    async def run(self, bench: Bench) -> dict[str, float]:
        client = await bench.connect()
        work = Work(client, self.collection_name, bench.folder, bench.peer.is_concurrent)
        if self.warms_up and bench.case.warm_up:
            await self._iteration(work)
        times: list[float] = []
        cpu_seconds = 0.0
        while not times or (sum(times) < bench.case.seconds and len(times) < _MOST_ITERATIONS):
            seconds, cpu = await self._iteration(work)
            times.append(seconds)
            cpu_seconds += cpu
        size = self.megabytes * self.count / self.published_count
        return {"score": size / median(times), "cpu": cpu_seconds / len(times) / size * 1e3}

    async def _iteration(self, work: Work) -> tuple[float, float]:
        await self.before(work)
        cpu, start = time.process_time(), time.perf_counter()
        await self.do(work)
        took = time.perf_counter() - start, time.process_time() - cpu
        await self.after(work)
        return took

    def files(self, folder: Path) -> list[Path]:
        """The files of this task's data, in order."""
        path = folder / (self.data or "")
        return sorted(path.iterdir()) if path.is_dir() else [path]

    def document(self, folder: Path) -> Document:
        """The document that this task's data are."""
        document: Document = json.loads(self.files(folder)[0].read_text())
        return document

    def fill(self, client: MongoClient[Document], folder: Path) -> None:
        """Put into the server what is read there."""

    async def before(self, work: Work) -> None:
        """Get ready for an iteration."""

    async def do(self, work: Work) -> None:
        """Do an iteration; this is what is timed."""
        raise NotImplementedError

    async def after(self, work: Work) -> None:
        """Remove what an iteration has left."""
