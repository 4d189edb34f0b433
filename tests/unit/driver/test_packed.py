"""Batches that are decoded later: what the cursor is told, and what is found in them."""

from __future__ import annotations

import datetime
import logging
import random
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument

from motorlike import driver
from motorlike.driver import packed

_OpMsg = driver.load("pymongo.message")._OpMsg
# As PyMongo's cursors give them.
FIELDS = {"cursor": {"firstBatch": 1, "nextBatch": 1}}
ROUNDS = 200


class Cursor:
    """What is asked of PyMongo's cursor."""

    _getmore_class: Any = driver.load("pymongo.message")._GetMore

    def __init__(self, **options: Any) -> None:
        client = SimpleNamespace(_encrypter=None, _event_listeners=None)
        for name in ("_encrypter", "_event_listeners"):
            if name in options:
                setattr(client, name, options.pop(name))
        self._collection = SimpleNamespace(database=SimpleNamespace(client=client))
        self.decoded = 0
        self.__dict__.update(options)

    def _unpack_response(self, reply: Any, *args: Any, **kwargs: Any) -> Any:
        self.decoded += len(reply.payload_document)
        return reply.unpack_response(*args, **kwargs)


def reply(data: bytes | memoryview) -> Any:
    return _OpMsg(0, data)


def batch(documents: list[Any], **more: Any) -> dict[str, Any]:
    within = {"nextBatch": documents, **more, "id": bson.Int64(7), "ns": "db.items"}
    return {"cursor": within, "ok": 1.0}


def ask(cursor: Cursor, message: Any, options: CodecOptions[Any], *, is_wanted: bool = True) -> Any:
    with driver.leaving_packed(cursor, lambda: is_wanted):
        (answer,) = cursor._unpack_response(message, 7, options, user_fields=FIELDS)
    return answer


def plain(value: Any) -> Any:
    """*value* with documents of all types as tuples, for comparing."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


OPTIONS: list[CodecOptions[Any]] = [
    CodecOptions(),
    CodecOptions(document_class=OrderedDict, tz_aware=True),
    CodecOptions(document_class=RawBSONDocument),
    CodecOptions(document_class=bson.SON, uuid_representation=4),
]


class _Shout(TypeDecoder):
    bson_type = str

    def transform_bson(self, value: str) -> str:
        return value.upper()


class Maker:
    """Makes replies of all kinds, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        makers = [
            lambda: self.random.randint(-(1 << 40), 1 << 40),
            lambda: "nextBatch" * self.random.randint(0, 4),
            lambda: self.random.randbytes(self.random.randint(0, 40)),
            lambda: datetime.datetime(2026, 1, 1) + datetime.timedelta(self.random.random()),
            lambda: bson.Binary.from_uuid(uuid.UUID(int=self.random.getrandbits(128))),
            lambda: [self.value(depth + 1) for _ in range(self.random.randint(0, 3))],
            lambda: self.document(depth + 1),
        ]
        return self.random.choice(makers[:5] if depth > 2 else makers)()

    def document(self, depth: int = 0) -> dict[str, Any]:
        names = self.random.sample(["_id", "cursor", "ok", "nextBatch", "x"], 3)
        return {name: self.value(depth) for name in names}

    def reply(self) -> bytes:
        made = batch([self.document() for _ in range(self.random.randint(1, 20))])
        if self.random.random() < 0.5:
            made["cursor"] = {
                "nextBatch": made["cursor"]["nextBatch"],
                "postBatchResumeToken": {"_data": "x"},
                "id": bson.Int64(0),
                "ns": "db.items",
            }
        if self.random.random() < 0.5:
            made["$clusterTime"] = {"clusterTime": bson.Timestamp(5, 1), "signature": {}}
            made["operationTime"] = bson.Timestamp(5, 1)
        return bson.encode(made)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_is_decoded_later_is_what_would_have_been_decoded_at_once(seed: int) -> None:
    maker = Maker(seed)
    data = maker.reply()
    size = len(bson.encode({"": bson.decode(data)["cursor"]["nextBatch"]})) - len(
        bson.encode({"": []})
    )
    for options in OPTIONS:
        expected = ask(Cursor(), reply(data), options, is_wanted=False)
        message = reply(memoryview(data) if seed % 2 else data)
        found = ask(Cursor(), message, options)
        (later,) = found["cursor"]["nextBatch"]
        documents = later.documents(Cursor())
        assert list(map(type, documents)) == list(map(type, expected["cursor"]["nextBatch"]))
        assert later.size == size
        restored = {**found, "cursor": {**found["cursor"], "nextBatch": documents}}
        assert plain(restored) == plain(expected)
        assert list(restored) == list(expected)


def test_a_packed_batch_costs_the_envelope_only_until_its_documents_are_wanted() -> None:
    cursor = Cursor()
    data = bson.encode(batch([{"x": "y" * 1000}] * 100))
    answer = ask(cursor, reply(data), CodecOptions())
    assert cursor.decoded < 100
    assert answer["cursor"]["id"] == 7
    (later,) = answer["cursor"]["nextBatch"]
    assert later.documents(cursor) == [{"x": "y" * 1000}] * 100
    assert cursor.decoded > len(data)


def test_the_cursors_own_way_of_decoding_is_used_for_the_documents_too() -> None:
    options: CodecOptions[Any] = CodecOptions(type_registry=TypeRegistry([_Shout()]))
    answer = ask(Cursor(), reply(bson.encode(batch([{"x": "y"}]))), options)
    (later,) = answer["cursor"]["nextBatch"]
    assert later.documents(Cursor()) == [{"x": "Y"}]
    # What is not the user's is not for the user's decoders.
    assert answer["cursor"]["ns"] == "db.items"


def test_what_cannot_be_decoded_is_an_error_of_whoever_wants_the_documents() -> None:
    data = bson.encode(batch([{"x": "good"}, {"x": "evil"}])).replace(b"evil", b"ev\xffl")
    with pytest.raises(InvalidBSON):
        ask(Cursor(), reply(data), CodecOptions(), is_wanted=False)
    (later,) = ask(Cursor(), reply(data), CodecOptions())["cursor"]["nextBatch"]
    with pytest.raises(InvalidBSON):
        later.documents(Cursor())


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": 0.0, "errmsg": "no", "code": 43},
        {"cursor": {"firstBatch": [{"x": 1}], "id": bson.Int64(0), "ns": "db.items"}, "ok": 1.0},
        {"cursor": {"id": bson.Int64(0), "nextBatch": [{"x": 1}], "ns": "db.items"}, "ok": 1.0},
        {"ok": 1.0, "cursor": {"nextBatch": [{"x": 1}], "id": bson.Int64(0), "ns": "db.items"}},
        {"cursor": {"nextBatch": {"x": 1}, "id": bson.Int64(0)}, "ok": 1.0},
        {"cursor": [{"nextBatch": [{"x": 1}]}], "ok": 1.0},
        {"cursors": {"nextBatch": [{"x": 1}], "id": bson.Int64(0)}, "ok": 1.0},
        batch([]),
        {},
    ],
)
def test_a_reply_that_looks_otherwise_is_decoded_at_once(answer: dict[str, Any]) -> None:
    assert ask(Cursor(), reply(bson.encode(answer)), CodecOptions()) == answer


def test_a_reply_of_the_old_kind_is_decoded_at_once() -> None:
    old = SimpleNamespace(unpack_response=lambda *args, **kwargs: [{"an": "answer"}])
    cursor = Cursor()
    cursor._unpack_response = old.unpack_response  # type: ignore[method-assign]
    with driver.leaving_packed(cursor, lambda: True):
        assert cursor._unpack_response(old, 7, CodecOptions()) == [{"an": "answer"}]


@pytest.mark.parametrize(
    "options",
    [
        {"_limit": 5},
        {"_encrypter": object()},
        {"_getmore_class": driver.load("pymongo.message")._RawBatchGetMore},
        {"_event_listeners": SimpleNamespace(enabled_for_commands=True)},
    ],
)
def test_documents_that_others_look_at_are_decoded_at_once(options: dict[str, Any]) -> None:
    data = bson.encode(batch([{"x": 1}]))
    assert ask(Cursor(**options), reply(data), CodecOptions()) == bson.decode(data)


def test_documents_that_are_logged_are_decoded_at_once(caplog: pytest.LogCaptureFixture) -> None:
    data = bson.encode(batch([{"x": 1}]))
    with caplog.at_level(logging.DEBUG, logger="pymongo.command"):
        assert ask(Cursor(), reply(data), CodecOptions()) == bson.decode(data)
    assert ask(Cursor(), reply(data), CodecOptions()) != bson.decode(data)


@pytest.mark.parametrize(
    "options",
    [{}, {"_limit": 0}, {"_event_listeners": SimpleNamespace(enabled_for_commands=False)}],
)
def test_documents_that_nobody_looks_at_are_left(options: dict[str, Any]) -> None:
    answer = ask(Cursor(**options), reply(bson.encode(batch([{"x": 1}]))), CodecOptions())
    assert isinstance(answer["cursor"]["nextBatch"][0], driver.Packed)


def test_with_a_pymongo_that_has_not_been_tried_all_is_decoded_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed, "version_tuple", (4, 99, 0))
    data = bson.encode(batch([{"x": 1}]))
    assert ask(Cursor(), reply(data), CodecOptions()) == bson.decode(data)


def test_a_cursor_is_as_it_was_afterwards() -> None:
    cursor = Cursor()
    before = dict(vars(cursor))
    with pytest.raises(OSError, match="lost"), driver.leaving_packed(cursor, lambda: True):
        assert dict(vars(cursor)) != before
        raise OSError("lost")
    assert dict(vars(cursor)) == before


def test_all_cursors_of_pymongo_decode_their_replies_by_the_method_that_is_replaced() -> None:
    for module, name in (("cursor", "Cursor"), ("command_cursor", "CommandCursor")):
        kind = getattr(driver.load(f"pymongo.synchronous.{module}"), name)
        assert callable(kind._unpack_response)
        assert kind.__dictoffset__, "an instance has no attributes of its own"
    assert packed._LOGGER is logging.getLogger("pymongo.command")
