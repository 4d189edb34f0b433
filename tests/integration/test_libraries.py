"""Libraries written for Motor, as released, on motorlike: `install_as_motor`.

Each runs in a process of its own, because it patches what `import motor` finds.
"""

from __future__ import annotations

import importlib.util

import pytest

from motorlike.testing.mongod import Deployment
from tests.integration.support import run_script


def needs(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def test_motors_names_are_motorlikes() -> None:
    run_script(
        """
        import motorlike

        motorlike.install_as_motor()
        motorlike.install_as_motor()
        import motor
        import motor.motor_asyncio
        from motor.motor_tornado import MotorClient
        from motor.web import GridFSHandler
        from motorlike import motor_asyncio

        assert motor.MotorClient is MotorClient is motorlike.MotorClient
        assert motor.motor_asyncio.AsyncIOMotorClient is motor_asyncio.AsyncIOMotorClient
        assert GridFSHandler.__module__ == "motorlike.web"
        assert motor.version_tuple >= (3, 7)
        """
    )


def test_it_is_refused_where_motor_was_imported() -> None:
    needs("motor")
    run_script(
        """
        import motor
        import motorlike

        try:
            motorlike.install_as_motor()
        except RuntimeError as exc:
            assert "before anything that imports it" in str(exc)
        else:
            raise AssertionError
        assert motor.MotorClient is not motorlike.MotorClient
        """
    )


ODMANTIC = """
import asyncio, sys, warnings
import motorlike
motorlike.install_as_motor()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from odmantic import AIOEngine, Field, Model, Reference
from motorlike.motor_asyncio import AsyncIOMotorClient

class Publisher(Model):
    name: str

class Book(Model):
    title: str
    pages: int = Field(gt=0)
    publisher: Publisher = Reference()

async def main(uri):
    client = AsyncIOMotorClient(uri)
    await client.drop_database("odmantic")
    engine = AIOEngine(client=client, database="odmantic")
    await engine.configure_database([Publisher, Book])
    publisher = Publisher(name="Tor")
    await engine.save_all([Book(title=t, pages=n, publisher=publisher) for t, n in
                           [("one", 10), ("two", 20), ("three", 30)]])
    assert await engine.count(Book) == 3
    found = await engine.find(Book, Book.pages > 10, sort=Book.pages)
    assert [book.title for book in found] == ["two", "three"]
    assert found[0].publisher == publisher
    found[0].pages = 21
    await engine.save(found[0])
    assert (await engine.find_one(Book, Book.title == "two")).pages == 21
    async for book in engine.find(Book):
        assert book.publisher.name == "Tor"
    async with engine.session() as session:
        assert await session.count(Book) == 3
    async with engine.transaction() as transaction:
        await transaction.save(Book(title="four", pages=4, publisher=publisher))
        assert await transaction.count(Book) == 4
        await transaction.abort()
    assert await engine.count(Book) == 3
    await engine.remove(Book, Book.pages > 0)
    assert await engine.count(Book) == 0
    await client.drop_database("odmantic")
    await client.close()

asyncio.run(main(sys.argv[1]))
assert "motor.metaprogramming" not in sys.modules
"""


def test_odmantic_stores_finds_and_uses_transactions(replica_set: Deployment) -> None:
    needs("odmantic")
    run_script(ODMANTIC, replica_set.uri)


UMONGO = """
import asyncio, sys, warnings
import motorlike
motorlike.install_as_motor()
from motorlike.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCursor
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from umongo import Document, fields
    from umongo.frameworks import MotorAsyncIOInstance

async def main(uri):
    client = AsyncIOMotorClient(uri)
    await client.drop_database("umongo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        instance = MotorAsyncIOInstance(client.umongo)

        @instance.register
        class User(Document):
            name = fields.StrField(required=True, unique=True)
            age = fields.IntField()

        await User.ensure_indexes()
        for name, age in [("Ann", 30), ("Bob", 40), ("Cy", 50)]:
            await User(name=name, age=age).commit()
        assert await User.count_documents() == 3
        cursor = User.find({"age": {"$gt": 30}}).sort("age")
        assert isinstance(cursor, AsyncIOMotorCursor)
        assert [user.name async for user in cursor] == ["Bob", "Cy"]
        first = await User.find().sort("name").limit(2).to_list(5)
        assert [user.name for user in first] == ["Ann", "Bob"]
        ann = await User.find_one({"name": "Ann"})
        ann.age = 31
        await ann.commit()
        await ann.reload()
        assert ann.age == 31
        try:
            await User(name="Ann").commit()
        except Exception as exc:
            assert type(exc).__name__ == "ValidationError"
        else:
            raise AssertionError
        async with instance.session() as session:
            await User(name="Di").commit()
        await ann.delete()
        assert await User.count_documents() == 3
    # The library's own cursor class has taken nobody's place.
    assert type(client.umongo.user.find()) is AsyncIOMotorCursor
    await client.drop_database("umongo")
    await client.close()

asyncio.run(main(sys.argv[1]))
assert "motor.metaprogramming" not in sys.modules
"""


def test_umongo_stores_and_finds_through_its_own_cursor(replica_set: Deployment) -> None:
    needs("umongo")
    run_script(UMONGO, replica_set.uri)
