"""The document type flows from the client to the documents that operations give.

Read by mypy and pyright, never run. A `type: ignore` marks a mistake that both
must find; where one of them stops finding it, it reports the comment.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportPrivateUsage=false

from __future__ import annotations

from asyncio import Future
from collections.abc import MutableMapping
from typing import Any, TypedDict, assert_type

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne
from pymongo.results import (
    BulkWriteResult,
    DeleteResult,
    InsertManyResult,
    InsertOneResult,
    UpdateResult,
)

from motorlike import MotorClient, MotorCollection, MotorDatabase


class Movie(TypedDict):
    name: str
    year: int


def clients_take_the_document_class() -> None:
    assert_type(MotorClient(document_class=Movie), MotorClient[Movie])
    assert_type(MotorClient("mongodb://localhost", 27017, Movie), MotorClient[Movie])
    assert_type(MotorClient(document_class=RawBSONDocument), MotorClient[RawBSONDocument])
    plain: MotorClient[dict[str, Any]] = MotorClient()
    assert_type(plain.db.pages, MotorCollection[dict[str, Any]])
    assert_type(MotorClient[Movie](), MotorClient[Movie])


def clients_need_a_mapping() -> None:
    MotorClient(document_class=int)  # type: ignore[type-var]


def databases_and_collections_keep_it(client: MotorClient[Movie]) -> None:
    assert_type(client.cinema, MotorDatabase[Movie])
    assert_type(client["cinema"], MotorDatabase[Movie])
    assert_type(client.get_database("cinema"), MotorDatabase[Movie])
    assert_type(client.get_default_database(), MotorDatabase[Movie])
    assert_type(client.cinema.movies, MotorCollection[Movie])
    assert_type(client.cinema["movies"], MotorCollection[Movie])
    assert_type(client.cinema.get_collection("movies"), MotorCollection[Movie])
    assert_type(client.cinema.movies.archive, MotorCollection[Movie])
    assert_type(client.cinema.movies["archive"], MotorCollection[Movie])
    assert_type(client.cinema.movies.database, MotorDatabase[Movie])
    assert_type(client.cinema.client, MotorClient[Movie])


def codec_options_change_it(
    database: MotorDatabase[dict[str, Any]],
    collection: MotorCollection[dict[str, Any]],
    options: CodecOptions[Movie],
) -> None:
    assert_type(collection.with_options(codec_options=options), MotorCollection[Movie])
    assert_type(collection.with_options(), MotorCollection[dict[str, Any]])
    assert_type(database.with_options(options), MotorDatabase[Movie])


def operations_are_futures(collection: MotorCollection[Movie], movie: Movie) -> None:
    assert_type(collection.find_one({"name": "Jaws"}), Future[Movie | None])
    assert_type(collection.find_one_and_delete({}), Future[Movie | None])
    assert_type(collection.find_one_and_replace({}, movie), Future[Movie | None])
    assert_type(collection.find_one_and_update({}, {"$inc": {"year": 1}}), Future[Movie | None])
    assert_type(collection.insert_one(movie), Future[InsertOneResult])
    assert_type(collection.insert_many([movie]), Future[InsertManyResult])
    assert_type(collection.replace_one({}, movie, upsert=True), Future[UpdateResult])
    assert_type(collection.update_many({}, [{"$set": {"year": 2}}]), Future[UpdateResult])
    assert_type(collection.delete_one({}), Future[DeleteResult])
    assert_type(collection.count_documents({}), Future[int])
    assert_type(collection.distinct("name"), Future[list[Any]])
    assert_type(collection.create_index([("year", -1)]), Future[str])
    assert_type(collection.drop(), Future[None])
    assert_type(collection.options(), Future[MutableMapping[str, Any]])


async def awaiting_gives_the_result(collection: MotorCollection[Movie], movie: Movie) -> None:
    found = await collection.find_one()
    assert_type(found, Movie | None)
    if found is not None:
        assert_type(found["year"], int)
        found["director"]  # type: ignore[typeddict-item]
    inserted = await collection.insert_one(movie)
    assert_type(inserted.acknowledged, bool)


def documents_are_checked(collection: MotorCollection[Movie]) -> None:
    collection.insert_one({"name": "Jaws", "year": 1975})
    collection.insert_one({"name": "Jaws"})  # type: ignore[arg-type]
    collection.insert_one(RawBSONDocument(b""))
    collection.insert_one(1975)  # type: ignore[arg-type]
    collection.insert_many([1975])  # type: ignore[list-item]


def bulk_writes_are_checked(collection: MotorCollection[Movie], movie: Movie) -> None:
    done = collection.bulk_write([InsertOne(movie), DeleteOne({})])
    assert_type(done, Future[BulkWriteResult])
    collection.bulk_write([movie])  # type: ignore[list-item]


def arguments_are_pymongos(collection: MotorCollection[Movie]) -> None:
    collection.create_index("name", unique=True)
    collection.count_documents({}, hint="name")
    collection.count_documents()  # type: ignore[call-arg]
    collection.delete_one({}, upsert=True)  # type: ignore[call-arg]
    collection.find_one().distinct("name")  # type: ignore[attr-defined]


def collections_can_be_made(database: MotorDatabase[Movie], options: CodecOptions[Movie]) -> None:
    assert_type(MotorCollection(database, "movies"), MotorCollection[Movie])
    assert_type(MotorCollection(database, "movies", options), MotorCollection[Movie])
    assert_type(MotorDatabase(database.client, "cinema"), MotorDatabase[Movie])
    assert_type(database.create_collection("movies"), Future[MotorCollection[Movie]])
    MotorCollection("cinema", "movies")  # type: ignore[arg-type]


def there_is_no_truth_and_no_calling(collection: MotorCollection[Movie]) -> None:
    collection()  # type: ignore[operator]
    collection.insertOne({})  # type: ignore[operator]
