"""Batches that stay undecoded until their documents are wanted.

PyMongo decodes a reply as soon as it is there, and asks for the next batch only
after that; so the server does nothing meanwhile. Of a packed batch the cursor
learns what it needs to go on, and the documents are decoded while the server
makes the next ones.

Rule: what is decoded later is decoded by PyMongo, from the same bytes and in the
same way. A reply that does not look as expected is decoded at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import version_tuple

from motorlike.driver.loader import TESTED_VERSIONS, load

__all__ = ["Packed", "leaving_packed"]

_message = load("pymongo.message")

_LOGGER = logging.getLogger("pymongo.command")

# A reply: its length, and the cursor, which begins with the batch. In BSON an
# element is its type, its name and its value, and the values of documents and
# arrays begin with their own length.
_LENGTH_BYTES = 4
_CURSOR = b"\x03cursor\0"
_BATCH = b"\x04nextBatch\0"
_CURSOR_AT = _LENGTH_BYTES + len(_CURSOR)
_BATCH_AT = _CURSOR_AT + _LENGTH_BYTES + len(_BATCH)
_EMPTY = b"\x05\0\0\0\0"


class Packed:
    """The documents of a batch.

    It does not hold the cursor, which may hold it.

    Args:
        reply: The whole reply.
        args: What the cursor decodes replies with besides.

    Attributes:
        size: How many bytes of BSON they are.
    """

    __slots__ = ("_args", "_reply", "size")

    # `Any`, here and below: PyMongo's own objects, and documents of all types.
    def __init__(self, reply: Any, args: tuple[Any, ...], size: int) -> None:
        self._reply = reply
        self._args = args
        self.size = size

    def documents(self, cursor: Any) -> list[Any]:
        """Decode them, in the way of *cursor*, whose they are.

        Raises:
            bson.errors.BSONError: They cannot be decoded with the cursor's options.
        """
        # Its next batch may be on its way, and left packed.
        (reply,) = type(cursor)._unpack_response(cursor, self._reply, *self._args)
        documents: list[Any] = reply["cursor"]["nextBatch"]
        return documents


@contextmanager
def leaving_packed(cursor: Any, is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Let *cursor*'s next batch be one `Packed` instead of its documents.

    Args:
        cursor: PyMongo's, of a query or of a command.
        is_wanted: Asked when the reply has arrived.
    """
    if not _may_be_left(cursor):
        yield
        return
    unpack = cursor._unpack_response

    # PyMongo gives the arguments by place or by name, as it likes.
    def unpack_later(
        reply: Any,
        cursor_id: int | None,
        codec_options: Any,
        user_fields: Any = None,
        legacy_response: bool = False,
    ) -> Any:
        args = (cursor_id, codec_options, user_fields, legacy_response)
        emptied = _without_documents(reply) if is_wanted() else None
        if emptied is None:
            return unpack(reply, *args)
        outside, size = emptied
        (answer,) = unpack(outside, *args)
        # Its documents may be of a type that cannot be written to.
        within = {**answer["cursor"], "nextBatch": [Packed(reply, args, size)]}
        return [{**answer, "cursor": within}]

    cursor._unpack_response = unpack_later
    try:
        yield
    finally:
        del cursor._unpack_response


def _may_be_left(cursor: Any) -> bool:
    """Whether nobody but the cursor looks at the documents, or counts them."""
    client = cursor._collection.database.client
    return (
        # Another version might decode its replies elsewhere.
        version_tuple[:2] in TESTED_VERSIONS
        # Nothing is decoded of a raw batch.
        and cursor._getmore_class is not _message._RawBatchGetMore
        # A limit is reached by counting what has come.
        and not getattr(cursor, "_limit", 0)
        and not client._encrypter
        and not _is_watched(client)
    )


def _is_watched(client: Any) -> bool:
    """Whether replies are shown to listeners, or logged."""
    listeners = client._event_listeners
    return (listeners is not None and listeners.enabled_for_commands) or _LOGGER.isEnabledFor(
        logging.DEBUG
    )


def _without_documents(reply: Any) -> tuple[Any, int] | None:
    """Return *reply* with no documents in its batch, and how many bytes they were."""
    data = getattr(reply, "payload_document", b"")
    batch_from = _BATCH_AT - len(_BATCH)
    if data[_LENGTH_BYTES:_CURSOR_AT] != _CURSOR or data[batch_from:_BATCH_AT] != _BATCH:
        return None
    length = _number(data, _BATCH_AT)
    removed = length - len(_EMPTY)
    if not removed:
        return None
    outside = b"".join(
        (
            (_number(data, 0) - removed).to_bytes(_LENGTH_BYTES, "little"),
            _CURSOR,
            (_number(data, _CURSOR_AT) - removed).to_bytes(_LENGTH_BYTES, "little"),
            _BATCH,
            _EMPTY,
            data[_BATCH_AT + length :],
        )
    )
    return type(reply)(reply.flags, outside), removed


def _number(data: bytes | memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
