"""A server in the style of the public web-framework benchmarks: Tornado and MongoDB.

    python -m motorlike server
    python examples/framework_benchmark.py mongodb://127.0.0.1:27017 seed
    python examples/framework_benchmark.py mongodb://127.0.0.1:27017 serve

``/db`` is one random document of ten thousand, ``/queries?queries=20`` are
twenty, ``/updates?queries=20`` gives twenty of them new numbers, and
``/fortunes`` is a page made of a template.

Rule: each document is read by a query of its own, as those benchmarks ask.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from pymongo import UpdateOne
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.template import Template
from tornado.web import Application, HTTPError, RequestHandler

from motorlike import MotorClient, MotorDatabase

Document = dict[str, Any]  # Any: as BSON

WORLDS = 10_000
MOST_QUERIES = 500

FORTUNES = (
    "fortune: No such file or directory",
    "A computer scientist is someone who fixes things that aren't broken.",
    "After enough decimal places, nobody gives a damn.",
    "A bad random number generator: 1, 1, 1, 1, 1, 4.33e+67, 1, 1, 1",
    "A computer program does what you tell it to do, not what you want it to do.",
    "Emacs is a nice operating system, but I prefer UNIX. — Tom Christaensen",
    "Any program that runs right is obsolete.",
    "A list is only as strong as its weakest link. — Donald Knuth",
    "Feature: A bug with seniority.",
    "Computers make very fast, very accurate mistakes.",
    '<script>alert("This should not be displayed in a browser alert box.");</script>',
    "フレームワークのベンチマーク",
)
ADDED_FORTUNE: Document = {"_id": 0, "message": "Additional fortune added at request time."}

# Tornado's templates escape what is between braces.
PAGE = Template(
    "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>"
    "<tr><th>id</th><th>message</th></tr>"
    "{% for row in rows %}"
    "<tr><td>{{ row['_id'] }}</td><td>{{ row['message'] }}</td></tr>"
    "{% end %}"
    "</table></body></html>"
)


def random_number() -> int:
    """A number from 1 to 10,000: an ``_id``, or a new ``randomNumber``."""
    return random.randint(1, WORLDS)


def number_of_queries(text: str) -> int:
    """Read the argument *text*: from 1 to 500, and 1 for what is no number."""
    try:
        return min(max(int(text), 1), MOST_QUERIES)
    except ValueError:
        return 1


def as_world(document: Document | None) -> dict[str, int]:
    """Name the fields as the benchmarks' JSON does."""
    if document is None:
        raise HTTPError(503, reason="The database is empty: seed it first")
    return {"id": document["_id"], "randomNumber": document["randomNumber"]}


class Handler(RequestHandler):
    """What the handlers share."""

    def initialize(self, database: MotorDatabase[Document]) -> None:
        self.world = database.world
        self.fortune = database.fortune

    @property
    def queries(self) -> int:
        """How many documents are asked for."""
        return number_of_queries(self.get_query_argument("queries", "1"))

    async def find(self, identifiers: Iterable[int]) -> list[dict[str, int]]:
        """Read the documents, one query each, all on their way at once."""
        found = await asyncio.gather(*(self.world.find_one({"_id": i}) for i in identifiers))
        return [as_world(document) for document in found]

    def write_json(self, value: object) -> None:
        """Answer with *value*: Tornado's own `write` takes no lists."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(json.dumps(value))


class Db(Handler):
    """One random document."""

    async def get(self) -> None:
        self.write_json(as_world(await self.world.find_one({"_id": random_number()})))


class Queries(Handler):
    """Several random documents."""

    async def get(self) -> None:
        self.write_json(await self.find(random_number() for _ in range(self.queries)))


class Updates(Handler):
    """Several random documents, with new numbers that are stored as well."""

    async def get(self) -> None:
        # All different, so that what is answered is what is stored.
        worlds = await self.find(random.sample(range(1, WORLDS + 1), self.queries))
        for world in worlds:
            world["randomNumber"] = random_number()
        updates = [
            UpdateOne({"_id": world["id"]}, {"$set": {"randomNumber": world["randomNumber"]}})
            for world in worlds
        ]
        await self.world.bulk_write(updates, ordered=False)
        self.write_json(worlds)


class Fortunes(Handler):
    """All fortunes and one more, by their text, as a page."""

    async def get(self) -> None:
        rows = [*await self.fortune.find().to_list(), ADDED_FORTUNE]
        rows.sort(key=lambda row: row["message"])
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        self.write(PAGE.generate(rows=rows))


def application(database: MotorDatabase[Document]) -> Application:
    """Make the application, which reads what `seed` has written to *database*."""
    routes = {"/db": Db, "/queries": Queries, "/updates": Updates, "/fortunes": Fortunes}
    handlers = [(path, handler, {"database": database}) for path, handler in routes.items()]
    # A line in the log for each request would be what is measured.
    return Application(handlers, log_function=lambda handler: None)


async def seed(database: MotorDatabase[Document]) -> None:
    """Fill *database* anew."""
    worlds = [{"_id": i, "randomNumber": random_number()} for i in range(1, WORLDS + 1)]
    fortunes = [{"_id": i, "message": message} for i, message in enumerate(FORTUNES, start=1)]
    for collection, documents in ((database.world, worlds), (database.fortune, fortunes)):
        await collection.drop()
        await collection.insert_many(documents)


@asynccontextmanager
async def serving(database: MotorDatabase[Document], port: int = 0) -> AsyncIterator[str]:
    """Serve the application for the block; yield its URL."""
    server = HTTPServer(application(database))
    (socket,) = bind_sockets(port, "127.0.0.1")
    server.add_sockets([socket])
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


async def main(uri: str, command: str, port: int) -> None:
    """Seed, or serve until cancelled, which Ctrl-C does."""
    async with MotorClient[Document](uri) as client:
        database = client.hello_world
        if command == "seed":
            await seed(database)
            return
        async with serving(database, port) as url:
            print(f"Serving at {url}; Ctrl-C ends it.", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve what web-framework benchmarks ask for.")
    parser.add_argument("uri", help="of MongoDB; its database 'hello_world' is used")
    parser.add_argument("command", choices=["seed", "serve"], help="fill the database, or serve")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(main(arguments.uri, arguments.command, arguments.port))
