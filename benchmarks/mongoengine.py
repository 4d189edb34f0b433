"""MongoEngine: green, or in a thread pool? Both with the same models, on one mongod.

    python -m benchmarks.mongoengine

Each round runs the same operations twice: by `green.spawn`, on the green
MongoEngine, and by `run_in_executor`, on the application's own. As in a Tornado
handler, a coroutine awaits each one.

Rule: the two take turns in one process, and only ratios of one run are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import platform
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pymongo
import tornado

from motorlike import __version__, green, libraries
from motorlike.testing.mongod import standalone

__all__ = ["main"]

DOCUMENTS = 1000

Operation = Callable[[], Any]  # `Any`: the result is not looked at
Start = Callable[[Operation], Awaitable[Any]]


class Models:
    """A model defined on one copy of MongoEngine, and the operations on it."""

    def __init__(self, mongoengine: Any, uri: str) -> None:  # `Any`: loaded at run time
        self.mongoengine = mongoengine
        mongoengine.connect("benchmark", host=uri, uuidRepresentation="standard")

        class Page(mongoengine.Document):  # type: ignore[misc]  # loaded at run time
            number = mongoengine.IntField(unique=True)
            title = mongoengine.StringField()
            tags = mongoengine.ListField(mongoengine.StringField())
            visits = mongoengine.IntField(default=0)

        self.page: Any = Page  # `Any`: as above

    def fill(self) -> None:
        self.page.drop_collection()
        page = self.page
        pages = [page(number=n, title=f"page {n}", tags=["a", "b"]) for n in range(DOCUMENTS)]
        page.objects.insert(pages)

    def find(self) -> Any:
        return self.page.objects.get(number=random.randrange(DOCUMENTS))

    def update(self) -> Any:
        page = self.page.objects(number=random.randrange(DOCUMENTS))
        return page.update_one(inc__visits=1)

    def load_and_save(self) -> Any:
        page = self.find()
        page.title = f"changed {random.random()}"
        return page.save()


OPERATIONS = ("find", "update", "load_and_save")


@dataclass(frozen=True)
class Measured:
    """Operations a second, and the CPU time that this process took for each."""

    rate: float
    cpu_microseconds: float


@dataclass(frozen=True)
class Way:
    """One of the two that take turns."""

    models: Models
    start: Start

    async def measure(self, name: str, at_a_time: int, seconds: float) -> Measured:
        """Do operations for so many *seconds*, *at_a_time* at once."""
        operation = getattr(self.models, name)
        done = 0
        begun, cpu_begun = time.perf_counter(), time.process_time()

        async def repeat() -> None:
            nonlocal done
            while time.perf_counter() < begun + seconds:
                await self.start(operation)
                done += 1

        await asyncio.gather(*(repeat() for _ in range(at_a_time)))
        elapsed, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
        return Measured(rate=done / elapsed, cpu_microseconds=cpu / done * 1e6)


@contextmanager
def both_ways(uri: str, threads: int) -> Iterator[tuple[Way, Way]]:
    own = Models(importlib.import_module("mongoengine"), uri)
    of_green = Models(libraries.load("mongoengine"), uri)
    own.fill()
    with ThreadPoolExecutor(threads) as executor:

        def in_thread(operation: Operation) -> Awaitable[Any]:
            return asyncio.get_running_loop().run_in_executor(executor, operation)

        yield Way(of_green, green.spawn), Way(own, in_thread)
    own.mongoengine.disconnect()


async def measure(ways: tuple[Way, Way], options: argparse.Namespace) -> None:
    green_way, thread_way = ways
    for way in ways:
        await way.measure("load_and_save", options.at_a_time, options.seconds)
    for name in OPERATIONS:
        rounds: list[tuple[Measured, Measured]] = []
        for _ in range(options.rounds):
            by_green = await green_way.measure(name, options.at_a_time, options.seconds)
            by_threads = await thread_way.measure(name, options.at_a_time, options.seconds)
            rounds.append((by_green, by_threads))
        print_row(name, rounds)
    await green.spawn(green_way.models.mongoengine.disconnect)


def print_row(name: str, rounds: list[tuple[Measured, Measured]]) -> None:
    ratios = [by_green.rate / by_threads.rate for by_green, by_threads in rounds]
    cells = []
    for way in zip(*rounds, strict=True):
        rate = statistics.median(each.rate for each in way)
        cpu = statistics.median(each.cpu_microseconds for each in way)
        cells.append(f"{rate:6.0f} ops/s {cpu:5.0f} µs")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{name:14} {'   '.join(cells)}   {statistics.median(ratios):.2f} ({spread})")


def print_header(options: argparse.Namespace, version: str) -> None:
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"motorlike {__version__}, MongoEngine {version}, PyMongo {pymongo.version}, "
        f"Tornado {tornado.version}"
    )
    print(
        f"{options.at_a_time} at a time; {options.threads} threads; medians of {options.rounds} "
        f"interleaved rounds of {options.seconds:g} s\n"
    )
    print("µs: CPU time of the client for each operation, which other load on the machine")
    print("changes least. The ratio is that of ops/s, green to threads.\n")
    print(f"{'':14} {'green':21}   {'threads':21}   ratio (spread)")


def main() -> None:
    parser = argparse.ArgumentParser(description="MongoEngine, green against a thread pool.")
    parser.add_argument("--at-a-time", type=int, default=100, help="operations at once (100)")
    parser.add_argument("--threads", type=int, default=100, help="size of the thread pool (100)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for each operation (5)")
    parser.add_argument("--seconds", type=float, default=2, help="length of a round (2)")
    options = parser.parse_args()
    with standalone() as server, both_ways(server.uri, options.threads) as ways:
        print_header(options, importlib.import_module("mongoengine").__version__)
        asyncio.run(measure(ways, options))


if __name__ == "__main__":
    main()
