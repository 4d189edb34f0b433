"""Tornado handlers as web-framework benchmarks have them, under a load over HTTP.

The child serves; the load comes from a process of its own (`load.py`), over
64 connections that are kept alive. The handlers do what those of
``examples/framework_benchmark.py`` do, by the peer that is measured.

Their limit is that of their operations, and the server itself: the same pages,
whose documents a `_Canned` client has, and returns on the loop's next turn.

Rule: each document is read by a query of its own, as those benchmarks ask.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.template import Template
from tornado.web import Application, RequestHandler

from ..load import apply_load
from ..peers import loop_factory
from ..task import DATABASE, Figure, Task

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo import MongoClient

    from ..clients import Client
    from ..measure import Bench, Case

__all__ = ["TASKS"]

_FIGURES = (
    Figure("rate", "requests/s", True),
    Figure("cpu", "CPU us/request", False),
    Figure("p50", "p50 ms", False),
    Figure("p99", "p99 ms", False),
)
_CONNECTIONS = 64
_QUERIES = 20

_WORLD = "tornado_world"
_WORLDS = 10_000
_FORTUNE = "tornado_fortune"
_FORTUNES = 12
# Tornado's templates escape what is between braces.
_PAGE = Template(
    "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>"
    "<tr><th>id</th><th>message</th></tr>"
    "{% for row in rows %}"
    "<tr><td>{{ row['_id'] }}</td><td>{{ row['message'] }}</td></tr>"
    "{% end %}"
    "</table></body></html>"
)
# Any, here and below: documents, and each library's own objects.
Document = dict[str, Any]
_T = TypeVar("_T")


def _random_number() -> int:
    return random.randint(1, _WORLDS)


def _as_world(document: Document) -> dict[str, int]:
    return {"id": document["_id"], "randomNumber": document["randomNumber"]}


def _fortunes() -> list[Document]:
    texts = (f"<script>alert({i});</script> & fortune “{i * 7919 % 97}”" for i in range(_FORTUNES))
    return [{"_id": i, "message": text} for i, text in enumerate(texts, start=1)]


class _Handler(RequestHandler):
    def initialize(self, client: Client, has_bulk_write: bool) -> None:
        self.client = client
        self.has_bulk_write = has_bulk_write

    @cached_property
    def world(self) -> Any:
        return self.client.collection(DATABASE, _WORLD)

    async def find(self, identifiers: Iterable[int]) -> list[dict[str, int]]:
        found = await asyncio.gather(*(self.world.find_one({"_id": i}) for i in identifiers))
        return [_as_world(document) for document in found]

    def write_json(self, value: object) -> None:
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(json.dumps(value))


class _DbHandler(_Handler):
    async def get(self) -> None:
        document = await self.world.find_one({"_id": _random_number()})
        self.write_json(_as_world(document))


class _QueriesHandler(_Handler):
    async def get(self) -> None:
        queries = int(self.get_query_argument("queries"))
        self.write_json(await self.find(_random_number() for _ in range(queries)))


class _UpdatesHandler(_Handler):
    async def get(self) -> None:
        queries = int(self.get_query_argument("queries"))
        worlds = await self.find(random.sample(range(1, _WORLDS + 1), queries))
        for world in worlds:
            world["randomNumber"] = _random_number()
        updates = [
            ({"_id": world["id"]}, {"$set": {"randomNumber": world["randomNumber"]}})
            for world in worlds
        ]
        await self.update(updates)
        self.write_json(worlds)

    async def update(self, updates: Iterable[tuple[Document, Document]]) -> None:
        if not self.has_bulk_write:
            await asyncio.gather(*(self.world.update_one(*update) for update in updates))
            return
        from pymongo import UpdateOne

        await self.world.bulk_write([UpdateOne(*update) for update in updates], ordered=False)


class _FortunesHandler(_Handler):
    async def get(self) -> None:
        collection = self.client.collection(DATABASE, _FORTUNE)
        rows = await self.client.read_list(collection, {})
        rows.append({"_id": 0, "message": "Additional fortune added at request time."})
        rows.sort(key=lambda row: str(row["message"]))
        self.write(_PAGE.generate(rows=rows))


class _Canned:
    """A client without a server. As with any, a page has to wait for its results."""

    def __init__(self) -> None:
        self._fortunes = _fortunes()

    def collection(self, database: str, name: str) -> _Canned:
        return self

    def find_one(self, query: Document) -> asyncio.Future[Document]:
        return _soon({"_id": query["_id"], "randomNumber": 1})

    def bulk_write(self, models: list[Any], ordered: bool) -> asyncio.Future[None]:
        return _soon(None)

    def read_list(self, collection: _Canned, query: Document) -> asyncio.Future[list[Document]]:
        return _soon(list(self._fortunes))


def _soon(result: _T) -> asyncio.Future[_T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()
    loop.call_soon(_give, future, result)
    return future


def _give(future: asyncio.Future[_T], result: _T) -> None:
    # At the end of the run, who waited for it may have been cancelled.
    if not future.done():
        future.set_result(result)


class _Handlers(Task):
    """One kind of request, again and again."""

    figures = _FIGURES
    has_limit = True
    path: str
    handler: type[_Handler]

    def prepare(self, client: MongoClient[Document], folder: Path) -> None:
        worlds = ({"_id": i, "randomNumber": _random_number()} for i in range(1, _WORLDS + 1))
        for name, documents in ((_WORLD, worlds), (_FORTUNE, _fortunes())):
            client[DATABASE].drop_collection(name)
            client[DATABASE][name].insert_many(documents)

    async def run(self, bench: Bench) -> dict[str, float]:
        has_bulk_write = "bulk_write" not in bench.peer.lacks
        return await self._serve(await bench.connect(), has_bulk_write, bench.case)

    def frame(self, case: Case) -> float:
        with asyncio.Runner(loop_factory=loop_factory(case.loop)) as runner:
            return runner.run(self._serve(_Canned(), True, case))["cpu"]

    async def _serve(
        self, client: Client | _Canned, has_bulk_write: bool, case: Case
    ) -> dict[str, float]:
        served: list[int] = []
        options = {"client": client, "has_bulk_write": has_bulk_write}
        application = Application(
            [(self.path.partition("?")[0], self.handler, options)],
            log_function=lambda handler: served.append(handler.get_status()),
        )
        server = HTTPServer(application)
        (socket,) = bind_sockets(0, "127.0.0.1")
        server.add_socket(socket)
        cpu = time.process_time()
        try:
            url = f"http://127.0.0.1:{socket.getsockname()[1]}{self.path}"
            load = await apply_load(url, _CONNECTIONS, case.seconds, case.warm_up)
        finally:
            server.stop()
            await server.close_all_connections()
        # Of the warm-up too, whose requests the load does not tell apart.
        cpu_microseconds = (time.process_time() - cpu) / len(served) * 1e6
        return {
            "rate": load.requests_per_second,
            "cpu": cpu_microseconds,
            "p50": load.p50_milliseconds,
            "p99": load.p99_milliseconds,
        }


def _find_worlds(world: Any) -> None:
    for i in range(1, _QUERIES + 1):
        world.find_one({"_id": i})


class _Db(_Handlers):
    name = "db"
    summary = f"Tornado: /db reads a document; {_CONNECTIONS} connections"
    path = "/db"
    handler = _DbHandler

    def exchange(self, database: Any) -> Callable[[], object]:
        return lambda: database[_WORLD].find_one({"_id": 1})


class _Queries(_Handlers):
    name = "queries"
    summary = f"Tornado: /queries reads {_QUERIES} documents; {_CONNECTIONS} connections"
    path = f"/queries?queries={_QUERIES}"
    handler = _QueriesHandler

    def exchange(self, database: Any) -> Callable[[], object]:
        return lambda: _find_worlds(database[_WORLD])


class _Updates(_Handlers):
    name = "updates"
    summary = (
        f"Tornado: /updates reads and changes {_QUERIES} documents; {_CONNECTIONS} connections"
    )
    path = f"/updates?queries={_QUERIES}"
    handler = _UpdatesHandler

    def exchange(self, database: Any) -> Callable[[], object]:
        from pymongo import UpdateOne

        # Making them is in the frame.
        number = {"$set": {"randomNumber": 1}}
        updates = [UpdateOne({"_id": i}, number) for i in range(1, _QUERIES + 1)]

        def find_and_update() -> None:
            world = database[_WORLD]
            _find_worlds(world)
            world.bulk_write(updates, ordered=False)

        return find_and_update


class _Fortunes(_Handlers):
    name = "fortunes"
    summary = f"Tornado: /fortunes makes a page of {_FORTUNES} rows; {_CONNECTIONS} connections"
    path = "/fortunes"
    handler = _FortunesHandler

    def exchange(self, database: Any) -> Callable[[], object]:
        return lambda: database[_FORTUNE].find({}).to_list()


TASKS: tuple[Task, ...] = (_Db(), _Queries(), _Updates(), _Fortunes())
