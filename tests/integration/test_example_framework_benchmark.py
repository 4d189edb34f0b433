"""The server in the style of the web-framework benchmarks, route by route on a real mongod."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pymongo
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse

from motorlike import MotorClient
from tests.integration.support import run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "framework_benchmark.py"

Visit = Callable[[str], Coroutine[Any, Any, HTTPResponse]]
Story = Callable[[Any, Visit], Coroutine[Any, Any, None]]
Tell = Callable[..., None]


@pytest.fixture
def example() -> Any:
    spec = importlib.util.spec_from_file_location("framework_benchmark_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tell(example: Any, mongod_uri: str, database_name: str) -> Tell:
    """Runs a story with the database and a way to visit a path, while the example serves."""

    async def main(story: Story, is_seeded: bool) -> None:
        async with MotorClient(mongod_uri) as client:
            database = client[database_name]
            if is_seeded:
                await example.seed(database)
            http = AsyncHTTPClient(force_instance=True, max_clients=64)
            try:
                async with example.serving(database) as url:
                    await story(database, lambda path: http.fetch(url + path))
            finally:
                http.close()

    return lambda story, is_seeded=True: run(main(story, is_seeded))


def content(answer: HTTPResponse) -> Any:
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    return json.loads(answer.body)


def assert_is_world(world: Any) -> None:
    assert list(world) == ["id", "randomNumber"]
    assert all(type(number) is int and 1 <= number <= 10_000 for number in world.values())


class Cells(HTMLParser):
    """The texts of a page's table cells, and the names of all its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


def test_db_is_one_stored_document(tell: Tell) -> None:
    async def story(database: Any, visit: Visit) -> None:
        world = content(await visit("/db"))
        assert_is_world(world)
        stored = await database.world.find_one({"_id": world["id"]})
        assert stored["randomNumber"] == world["randomNumber"]
        different = {content(await visit("/db"))["id"] for _ in range(10)}
        assert len(different) > 1

    tell(story)


@pytest.mark.parametrize("path", ["/db", "/queries?queries=2", "/updates?queries=2"])
def test_an_empty_database_is_told_of(tell: Tell, path: str) -> None:
    async def story(database: Any, visit: Visit) -> None:
        with pytest.raises(HTTPClientError) as caught:
            await visit(path)
        assert (caught.value.code, caught.value.message) == (
            503,
            "The database is empty: seed it first",
        )

    tell(story, is_seeded=False)


@pytest.mark.parametrize("path", ["/queries", "/updates"])
def test_number_of_queries_is_kept_between_1_and_500(tell: Tell, path: str) -> None:
    arguments = {
        "": 1,
        "?queries=": 1,
        "?queries=foo": 1,
        "?queries=1.5": 1,
        "?queries=-3": 1,
        "?queries=0": 1,
        "?queries=1": 1,
        "?queries=20": 20,
        "?queries=500": 500,
        "?queries=501": 500,
        "?queries=" + "9" * 5000: 1,  # More digits than `int` reads.
    }

    async def story(database: Any, visit: Visit) -> None:
        for argument, count in arguments.items():
            worlds = content(await visit(path + argument))
            assert (argument, len(worlds)) == (argument, count)
            for world in worlds:
                assert_is_world(world)

    tell(story)


def test_updates_are_stored_and_nothing_else_changes(tell: Tell) -> None:
    async def numbers(database: Any) -> dict[int, int]:
        return {world["_id"]: world["randomNumber"] async for world in database.world.find()}

    async def story(database: Any, visit: Visit) -> None:
        before = await numbers(database)
        worlds = content(await visit("/updates?queries=100"))
        answered = {world["id"]: world["randomNumber"] for world in worlds}
        assert len(answered) == 100
        after = await numbers(database)
        assert after == before | answered
        assert after != before

    tell(story)


def test_fortunes_are_a_sorted_page_without_live_scripts(example: Any, tell: Tell) -> None:
    async def story(database: Any, visit: Visit) -> None:
        answer = await visit("/fortunes")
        assert answer.headers["Content-Type"] == "text/html; charset=UTF-8"
        page = answer.body.decode("utf-8")
        assert "&lt;script&gt;alert(" in page
        assert "フレームワークのベンチマーク" in page
        cells = Cells(page)
        assert "script" not in cells.tags
        messages = cells.texts[1::2]
        assert messages == sorted([*example.FORTUNES, example.ADDED_FORTUNE["message"]])
        assert sorted(map(int, cells.texts[::2])) == list(range(13))
        # The one that was added is in no database.
        assert await database.fortune.count_documents({}) == 12

    tell(story)


def test_seeding_again_gives_the_same_documents(example: Any, tell: Tell) -> None:
    async def story(database: Any, visit: Visit) -> None:
        await database.world.delete_one({"_id": 1})
        await database.fortune.insert_one({"_id": 13, "message": "mine"})
        await example.seed(database)
        assert await database.world.count_documents({}) == 10_000
        assert await database.fortune.count_documents({}) == 12

    tell(story)


def test_64_visitors_at_once_get_what_they_asked_for(tell: Tell) -> None:
    paths = ["/db", "/queries?queries=20", "/updates?queries=20", "/fortunes"] * 16

    async def story(database: Any, visit: Visit) -> None:
        answers = await asyncio.gather(*map(visit, paths))
        assert [answer.code for answer in answers] == [200] * 64
        for path, answer in zip(paths, answers, strict=True):
            if path.endswith("=20"):
                assert len(content(answer)) == 20

    tell(story)


def test_command_seeds_its_database(mongod_uri: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongod_uri) as client:
        client.drop_database("hello_world")
        try:
            command = [sys.executable, "-X", "dev", "-W", "error", str(EXAMPLE), mongod_uri, "seed"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            # The loop's debug mode tells of a busy machine.
            errors = re.sub(r"^Executing <.* took [\d.]+ seconds\n", "", done.stderr, flags=re.M)
            assert (errors, done.returncode) == ("", 0)
            assert client.hello_world.world.count_documents({}) == 10_000
            assert client.hello_world.fortune.count_documents({}) == 12
        finally:
            client.drop_database("hello_world")
