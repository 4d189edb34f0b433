"""Explicit encryption with a local key."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pymongo
import pytest
from bson import Binary
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.encryption import Algorithm
from pymongo.encryption_options import AutoEncryptionOpts, RangeOpts
from pymongo.errors import EncryptionError

from motorlike import MotorClient, MotorClientEncryption, MotorCollection, MotorCursor
from motorlike.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientEncryption,
    AsyncIOMotorCursor,
)
from tests.integration.support import run

pytest.importorskip("pymongocrypt")

PROVIDERS = {"local": {"key": os.urandom(96)}}
RANDOM = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Random
DETERMINISTIC = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Deterministic
OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(uuid_representation=4)

Story = Callable[[MotorClientEncryption[Any], Any], Coroutine[Any, Any, None]]


@pytest.fixture
def vault(database_name: str, synchronous: pymongo.MongoClient[Any]) -> Iterator[str]:
    """The namespace of an empty collection of keys."""
    synchronous[database_name].create_collection("keys")
    yield f"{database_name}.keys"


def tell(uri: str, vault: str, story: Story) -> None:
    async def main() -> None:
        async with (
            MotorClient(uri) as client,
            MotorClientEncryption(PROVIDERS, vault, client, OPTIONS) as encryption,
        ):
            await story(encryption, client[vault.partition(".")[0]])

    run(main())


@pytest.mark.parametrize("value", ["secret", 42, [1, {"two": 2}], bytes(70_000)])
def test_value_comes_back(mongod_uri: str, vault: str, value: Any) -> None:
    async def story(encryption: Any, database: Any) -> None:
        key = await encryption.create_data_key("local")
        encrypted = await encryption.encrypt(value, RANDOM, key)
        assert encrypted.subtype == 6
        await database.items.insert_one({"_id": 1, "value": encrypted})
        found = await database.items.find_one({"_id": 1})
        assert await encryption.decrypt(found["value"]) == value

    tell(mongod_uri, vault, story)


def test_operations_start_at_once_and_are_futures(mongod_uri: str, vault: str) -> None:
    async def story(encryption: Any, database: Any) -> None:
        keys = [encryption.create_data_key("local") for _ in range(5)]
        assert all(isinstance(key, asyncio.Future) for key in keys)
        assert len(set(await asyncio.gather(*keys))) == 5

    tell(mongod_uri, vault, story)


def test_keys_have_other_names(mongod_uri: str, vault: str) -> None:
    async def story(encryption: Any, database: Any) -> None:
        key = await encryption.create_data_key("local", key_alt_names=["one"])
        before = await encryption.add_key_alt_name(key, "two")
        assert before["keyAltNames"] == ["one"]
        assert (await encryption.get_key_by_alt_name("two"))["_id"] == key
        first = await encryption.encrypt("x", DETERMINISTIC, key_alt_name="one")
        assert first == await encryption.encrypt("x", DETERMINISTIC, key)
        await encryption.remove_key_alt_name(key, "two")
        assert await encryption.get_key_by_alt_name("two") is None

    tell(mongod_uri, vault, story)


def test_keys_are_listed_rewrapped_and_deleted(mongod_uri: str, vault: str) -> None:
    async def story(encryption: Any, database: Any) -> None:
        key = await encryption.create_data_key("local")
        cursor = await encryption.get_keys()
        assert type(cursor) is MotorCursor
        (listed,) = await cursor.to_list()
        assert isinstance(listed, RawBSONDocument)
        assert (await encryption.get_key(key)).raw == listed.raw
        rewrapped = await encryption.rewrap_many_data_key({}, provider="local")
        assert rewrapped.bulk_write_result.modified_count == 1
        assert (await encryption.delete_key(key)).deleted_count == 1
        assert await encryption.get_key(key) is None

    tell(mongod_uri, vault, story)


def test_encrypted_collection_is_made_with_its_keys(mongod_uri: str, vault: str) -> None:
    async def story(encryption: Any, database: Any) -> None:
        fields = {"fields": [{"path": "ssn", "bsonType": "string", "keyId": None}]}
        try:
            made, given = await encryption.create_encrypted_collection(
                database, "people", fields, "local"
            )
        except pymongo.errors.EncryptedCollectionError as exc:
            # Servers before 7.0, and standalone ones, have no encrypted
            # collections; the key was made all the same.
            assert "incompatible with server" in str(exc) or "standalone" in str(exc)
            given = exc.encrypted_fields
        else:
            assert type(made) is MotorCollection
            assert made.database is database
        assert given["fields"][0]["keyId"].subtype == 4

    tell(mongod_uri, vault, story)


def test_expressions_are_encrypted(mongod_uri: str, vault: str) -> None:
    async def story(encryption: Any, database: Any) -> None:
        key = await encryption.create_data_key("local")
        expression = await encryption.encrypt_expression(
            {"$and": [{"age": {"$gt": 5}}, {"age": {"$lt": 9}}]},
            Algorithm.RANGE,
            key_id=key,
            query_type="range",
            contention_factor=0,
            range_opts=RangeOpts(min=0, max=100, sparsity=1, trim_factor=1),
        )
        assert "$and" in expression

    tell(mongod_uri, vault, story)


def test_errors_are_pymongos(mongod_uri: str, vault: str) -> None:
    async def story(encryption: Any, database: Any) -> None:
        with pytest.raises(EncryptionError):
            await encryption.encrypt("x", DETERMINISTIC, Binary(uuid.uuid4().bytes, 4))

    tell(mongod_uri, vault, story)


def test_closed_encryption_says_so(mongod_uri: str, vault: str) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            encryption = MotorClientEncryption(PROVIDERS, vault, client, OPTIONS)
            await encryption.close()
            with pytest.raises(pymongo.errors.InvalidOperation):
                await encryption.create_data_key("local")

    run(main())


def test_a_client_of_pymongos_is_refused(synchronous: Any) -> None:
    with pytest.raises(TypeError, match="MotorClient"):
        MotorClientEncryption(PROVIDERS, "a.keys", synchronous, OPTIONS)


def test_the_asyncio_family_has_it_too(mongod_uri: str, vault: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with AsyncIOMotorClient(mongod_uri) as client:
            async with AsyncIOMotorClientEncryption(
                PROVIDERS, vault, client, OPTIONS, io_loop=loop
            ) as encryption:
                assert encryption.io_loop is encryption.get_io_loop() is loop
                await encryption.create_data_key("local")
                assert type(await encryption.get_keys()) is AsyncIOMotorCursor
            with pytest.raises(TypeError, match="io_loop"):
                AsyncIOMotorClientEncryption(PROVIDERS, vault, client, OPTIONS, io_loop=1)

    run(main())


def test_key_vault_of_automatic_decryption_may_be_a_wrapper(mongod_uri: str, vault: str) -> None:
    async def main() -> None:
        name = vault.partition(".")[0]
        async with MotorClient(mongod_uri) as client:
            async with MotorClientEncryption(PROVIDERS, vault, client, OPTIONS) as encryption:
                key = await encryption.create_data_key("local")
                secret = await encryption.encrypt("secret", RANDOM, key)
            await client[name].items.insert_one({"_id": 1, "value": secret})
            options = AutoEncryptionOpts(
                PROVIDERS, vault, key_vault_client=client, bypass_auto_encryption=True
            )
            async with MotorClient(mongod_uri, auto_encryption_opts=options) as decrypting:
                found = await decrypting[name].items.find_one({"_id": 1})
            assert found == {"_id": 1, "value": "secret"}
            assert options._key_vault_client is client

    run(main())
