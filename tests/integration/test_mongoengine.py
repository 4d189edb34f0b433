"""MongoEngine, a synchronous library, unchanged, on the green PyMongo."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import bson
import pymongo
import pymongo.errors
import pytest
import tornado.web

from motorlike import NotInGreenlet, driver, green, libraries
from motorlike.testing.mongod import Deployment
from tests.integration.support import fail_point, run
from tests.integration.tornado_site import Visit, visiting

AT_A_TIME = 100

Body = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def models() -> SimpleNamespace:
    """The green MongoEngine, and documents that are defined with it."""
    me = libraries.load("mongoengine")

    class Author(me.Document):  # type: ignore[misc, name-defined]  # loaded at run time
        name = me.StringField(unique=True)

    class Page(me.Document):  # type: ignore[misc, name-defined]  # as above
        number = me.IntField(required=True)
        title = me.StringField()
        tags = me.ListField(me.StringField())
        author = me.ReferenceField(Author)
        picture = me.FileField()

    return SimpleNamespace(me=me, Author=Author, Page=Page)


@pytest.fixture
def engine(
    models: SimpleNamespace, mongod_uri: str, database_name: str
) -> Iterator[Callable[[Body], None]]:
    """Run a coroutine function while the green MongoEngine is connected; nothing may be left."""

    async def main(body: Body) -> None:
        models.me.connect(database_name, host=mongod_uri, uuidRepresentation="standard")
        try:
            await body()
        finally:
            await green.spawn(models.me.disconnect)

    yield lambda body: run(main(body), timeout=60)
    models.me.disconnect()


class PageHandler(tornado.web.RequestHandler):
    """Saves a page; answers with one, and with its author."""

    def initialize(self, models: SimpleNamespace) -> None:
        self.models = models

    async def post(self, number: str) -> None:
        page = await green.spawn(self.save, int(number))
        self.write({"id": str(page.id)})

    def save(self, number: int) -> Any:
        author = self.models.Author(name=f"author {number}").save()
        page = self.models.Page(number=number, title=f"page {number}", author=author)
        page.tags = ["even" if number % 2 == 0 else "odd"]
        return page.save()

    async def get(self, number: str) -> None:
        self.write(await green.spawn(self.find, int(number)))

    def find(self, number: int) -> dict[str, Any]:
        page = self.models.Page.objects.get(number=number)
        return {"title": page.title, "tags": page.tags, "author": page.author.name}


async def visit_all(visit: Visit, **options: Any) -> list[Any]:
    pages = await asyncio.gather(*(visit(f"/{n}", **options) for n in range(AT_A_TIME)))
    return [json.loads(page.body) for page in pages]


def test_documents_are_saved_and_queried_from_handlers_100_at_a_time(
    models: SimpleNamespace,
    engine: Callable[[Body], None],
    synchronous: pymongo.MongoClient[dict[str, Any]],
    database_name: str,
) -> None:
    async def body() -> None:
        application = tornado.web.Application([(r"/(\d+)", PageHandler, {"models": models})])
        async with visiting(application, AT_A_TIME) as visit:
            saved = await visit_all(visit, method="POST", body="")
            assert len({page["id"] for page in saved}) == AT_A_TIME
            found = await visit_all(visit)
        for number, page in enumerate(found):
            assert page["title"] == f"page {number}"
            assert page["tags"] == [("even", "odd")[number % 2]]
            assert page["author"] == f"author {number}"
        assert await green.spawn(models.Page.objects(tags="even").count) == AT_A_TIME // 2

    engine(body)
    stored = synchronous[database_name].page.find({}, {"_id": 0, "number": 1, "title": 1})
    by_number = sorted(stored, key=lambda page: page["number"])
    assert by_number == [{"number": n, "title": f"page {n}"} for n in range(AT_A_TIME)]


def test_queries_of_different_handlers_wait_at_the_same_time(
    models: SimpleNamespace, engine: Callable[[Body], None], mongod: Deployment
) -> None:
    (member,) = mongod.members

    async def body() -> None:
        await green.spawn(models.Page(number=1).save)
        async with fail_point(member.address, ["find"], blockTimeMS=200):
            started = time.monotonic()
            first = models.Page.objects.first
            pages = await asyncio.gather(*(green.spawn(first) for _ in range(AT_A_TIME)))
            seconds = time.monotonic() - started
        assert [page.number for page in pages] == [1] * AT_A_TIME
        # One after another they would take 20 s.
        assert seconds < 0.2 * AT_A_TIME / 4

    engine(body)


def test_queries_cursors_updates_and_aggregations(
    models: SimpleNamespace, engine: Callable[[Body], None]
) -> None:
    def work() -> None:
        page = models.Page
        page.objects.insert([page(number=n, tags=["a"] * (n % 3)) for n in range(300)])
        assert [each.number for each in page.objects(number__lt=3).order_by("-number")] == [2, 1, 0]
        # More than one batch: the cursor asks the server for more.
        assert sum(each.number for each in page.objects.batch_size(50)) == 299 * 300 // 2
        assert page.objects(number=5).update_one(set__title="five", push__tags="new") == 1
        assert page.objects.get(title="five").tags == ["a", "a", "new"]
        grouped = page.objects.aggregate(
            [{"$group": {"_id": {"$size": "$tags"}, "n": {"$sum": 1}}}]
        )
        assert {each["_id"]: each["n"] for each in grouped} == {0: 100, 1: 100, 2: 99, 3: 1}
        assert page.objects(number__gte=100).delete() == 200
        assert page.objects.modify(inc__number=1000, new=True).number == 1000

    async def body() -> None:
        await green.spawn(work)

    engine(body)


def test_files_are_kept_in_gridfs(models: SimpleNamespace, engine: Callable[[Body], None]) -> None:
    data = bytes(range(256)) * 4096

    def work() -> None:
        page = models.Page(number=1)
        page.picture.put(data, filename="a.png")
        page.save()
        again = models.Page.objects.get(number=1)
        assert again.picture.read() == data
        again.picture.delete()
        again.save()
        assert not models.Page.objects.get(number=1).picture

    async def body() -> None:
        await green.spawn(work)

    engine(body)


def test_errors_are_those_that_the_application_catches(
    models: SimpleNamespace, engine: Callable[[Body], None]
) -> None:
    me = models.me

    async def body() -> None:
        await green.spawn(models.Author(name="a").save)
        with pytest.raises(me.NotUniqueError) as caught:
            await green.spawn(models.Author(name="a").save)
        assert isinstance(caught.value.__context__, pymongo.errors.DuplicateKeyError)
        with pytest.raises(me.DoesNotExist):
            await green.spawn(models.Author.objects.get, name="b")
        with pytest.raises(models.Author.DoesNotExist):
            await green.spawn(models.Author.objects.get, name="b")
        with pytest.raises(me.ValidationError):
            await green.spawn(models.Page(title="without a number").save)

    engine(body)


def test_values_are_of_the_application_s_own_classes(
    models: SimpleNamespace, engine: Callable[[Body], None]
) -> None:
    async def body() -> None:
        page = await green.spawn(models.Page(number=1).save)
        assert type(page.id) is bson.ObjectId
        assert type(page.to_mongo()) is bson.SON

    engine(body)


def test_what_the_library_keeps_for_a_thread_it_keeps_for_a_greenlet(
    models: SimpleNamespace, engine: Callable[[Body], None]
) -> None:
    """`no_dereference` holds in the block, and nowhere else meanwhile."""
    references = importlib.import_module("bson.dbref").DBRef, bson.ObjectId

    def without() -> Any:
        with models.me.context_managers.no_dereference(models.Page):
            green.sleep(0)
            return models.Page.objects.first().author

    def as_usual() -> Any:
        green.sleep(0)
        return models.Page.objects.first().author

    async def body() -> None:
        author = await green.spawn(models.Author(name="a").save)
        await green.spawn(models.Page(number=1, author=author).save)
        works = [without, as_usual] * 10
        found = await asyncio.gather(*(green.spawn(work) for work in works))
        assert all(isinstance(each, references) for each in found[::2])
        assert found[1::2] == [author] * 10

    engine(body)


def test_cancelled_query_leaves_the_next_one_its_own_answer(
    models: SimpleNamespace, engine: Callable[[Body], None], mongod: Deployment
) -> None:
    (member,) = mongod.members

    async def body() -> None:
        await green.spawn(models.Page(number=1).save)
        async with fail_point(member.address, ["find"], blockTimeMS=300):
            query = green.spawn(models.Page.objects(number=1).first)
            await asyncio.sleep(0.1)
            query.cancel()
            with pytest.raises(asyncio.CancelledError):
                await query
        assert await green.spawn(models.Page.objects.count) == 1
        assert (await green.spawn(models.Page.objects.first)).number == 1

    engine(body)


def test_a_storm_of_cancels_mixes_no_answers(
    models: SimpleNamespace, engine: Callable[[Body], None]
) -> None:
    chance = random.Random(2044)

    def find(number: int) -> tuple[int, str]:
        page = models.Page.objects.get(number=number)
        return page.number, page.author.name

    async def ask(number: int) -> None:
        answer = green.spawn(find, number)
        if chance.random() < 0.3:
            asyncio.get_running_loop().call_later(chance.random() / 100, answer.cancel)
        try:
            assert await answer == (number, f"author {number % 5}")
        except asyncio.CancelledError:
            assert answer.cancelled()

    async def ask_on(first: int) -> None:
        for number in range(first, first + 20):
            await ask(number)

    def fill() -> None:
        authors = [models.Author(name=f"author {n}").save() for n in range(5)]
        pages = [models.Page(number=n, author=authors[n % 5]) for n in range(200)]
        models.Page.objects.insert(pages)

    async def body() -> None:
        await green.spawn(fill)
        await asyncio.gather(*(ask_on(first) for first in range(0, 200, 20)))
        assert await green.spawn(models.Page.objects.count) == 200

    engine(body)


def test_one_definition_serves_one_loop_after_another(
    models: SimpleNamespace, mongod_uri: str, database_name: str
) -> None:
    """Connected once; the client opens itself again."""
    models.me.connect(database_name, host=mongod_uri, uuidRepresentation="standard")

    async def main(number: int) -> int:
        await green.spawn(models.Page(number=number).save)
        count: int = await green.spawn(models.Page.objects.count)
        return count

    try:
        assert [asyncio.run(main(n)) for n in range(3)] == [1, 2, 3]
    finally:
        models.me.disconnect()


def test_outside_green_code_nothing_is_sent_and_the_error_says_what_to_do(
    models: SimpleNamespace,
    engine: Callable[[Body], None],
    synchronous: pymongo.MongoClient[dict[str, Any]],
) -> None:
    inserted = "metrics.commands.insert.total"

    def inserts() -> int:
        status: Any = synchronous.admin.command("serverStatus")
        for part in inserted.split("."):
            status = status[part]
        return int(status)

    async def body() -> None:
        await green.spawn(models.Page(number=1).save)
        before = inserts()
        with pytest.raises(NotInGreenlet, match=r"green\.spawn"):
            models.Page(number=2).save()
        assert inserts() == before
        assert await green.spawn(models.Page.objects.count) == 1

    engine(body)


def test_the_application_s_own_mongoengine_is_untouched(
    models: SimpleNamespace,
    engine: Callable[[Body], None],
    mongod_uri: str,
    database_name: str,
) -> None:
    """It blocks its thread and uses the application's PyMongo, at the same time."""
    own = importlib.import_module("mongoengine")
    assert own is sys.modules["mongoengine"]
    assert own is not models.me
    assert own.Document is not models.me.Document
    assert own.connection.MongoClient is pymongo.MongoClient

    class Page(own.Document):  # type: ignore[misc, name-defined]  # found at run time
        number = own.IntField()
        meta = {"strict": False}

    def in_a_thread() -> list[int]:
        own.connect(database_name, host=mongod_uri, uuidRepresentation="standard")
        try:
            Page(number=2).save()
            assert threading.current_thread() is not threading.main_thread()
            return sorted(page.number for page in Page.objects)
        finally:
            own.disconnect()

    async def body() -> None:
        await green.spawn(models.Page(number=1).save)
        before = dict(vars(own)), dict(vars(pymongo))
        numbers = await asyncio.to_thread(in_a_thread)
        assert numbers == [1, 2]
        assert (dict(vars(own)), dict(vars(pymongo))) == before
        assert await green.spawn(models.Page.objects.count) == 2
        await asyncio.get_running_loop().shutdown_default_executor()

    engine(body)


def test_a_library_sees_the_green_pymongo_in_every_form_of_import(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "on_pymongo.py").write_text(
        "import importlib\n"
        "import pymongo\n"
        "import pymongo.collection\n"
        "import pymongo.mongo_client as as_module\n"
        "import gridfs\n"
        "from pymongo import MongoClient, ReadPreference, collection, mongo_client, uri_parser\n"
        "from pymongo.database import Database\n"
        "from pymongo.errors import PyMongoError\n"
        "from pymongo.mongo_client import MongoClient as again\n"
        "named = importlib.import_module('pymongo.cursor')\n"
        "def later():\n"
        "    from pymongo.mongo_client import MongoClient\n"
        "    import pymongo\n"
        "    return MongoClient, pymongo\n"
    )
    library = libraries.load("on_pymongo")
    clients = [library.MongoClient, library.again, library.later()[0]]
    clients += [library.pymongo.MongoClient, library.mongo_client.MongoClient]
    clients += [library.pymongo.mongo_client.MongoClient, library.as_module.MongoClient]
    assert set(clients) == {libraries.MongoClient}
    assert library.later()[1] is library.pymongo
    assert library.Database is driver.load("pymongo.database").Database
    assert library.pymongo.collection is library.collection is driver.load("pymongo.collection")
    assert library.uri_parser is driver.load("pymongo.uri_parser")
    assert library.named is driver.load("pymongo.cursor")
    assert library.gridfs is driver.load("gridfs")
    assert library.PyMongoError is pymongo.errors.PyMongoError
    assert library.ReadPreference is driver.load("pymongo").ReadPreference
    assert issubclass(library.MongoClient, driver.load("pymongo").MongoClient)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = library.pymongo.no_such_name


def test_load_wants_the_name_of_a_library() -> None:
    with pytest.raises(TypeError, match="at least one"):
        libraries.load()
