"""Motor's names for asyncio: a second family of the same wrappers.

Everything that is reached from an `AsyncIOMotorClient` is an ``AsyncIOMotor…``.

Rule: a class here only names its counterpart; what differs between the
families is in `motorlike.loops`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pymongo.typings import _DocumentType

from motorlike.declare import Wrapper
from motorlike.loops import AsyncIOLoops, Loops
from motorlike.wrappers.change_stream import MotorChangeStream
from motorlike.wrappers.client import MotorClient
from motorlike.wrappers.client_session import MotorClientSession
from motorlike.wrappers.collection import MotorCollection
from motorlike.wrappers.cursor import (
    MotorCommandCursor,
    MotorCursor,
    MotorRawBatchCommandCursor,
    MotorRawBatchCursor,
    _Document,
)
from motorlike.wrappers.database import MotorDatabase
from motorlike.wrappers.gridfs import MotorGridFSBucket, MotorGridOutCursor
from motorlike.wrappers.gridfs_files import MotorGridIn, MotorGridOut
from motorlike.wrappers.latent_cursor import MotorLatentCommandCursor

__all__ = [
    "AsyncIOMotorChangeStream",
    "AsyncIOMotorClient",
    "AsyncIOMotorClientSession",
    "AsyncIOMotorCollection",
    "AsyncIOMotorCommandCursor",
    "AsyncIOMotorCursor",
    "AsyncIOMotorDatabase",
    "AsyncIOMotorGridFSBucket",
    "AsyncIOMotorGridIn",
    "AsyncIOMotorGridOut",
    "AsyncIOMotorGridOutCursor",
    "AsyncIOMotorLatentCommandCursor",
    "AsyncIOMotorRawBatchCommandCursor",
    "AsyncIOMotorRawBatchCursor",
]


class AsyncIOFamily:
    """Enters a wrapper into the second family, in the place of its counterpart."""

    __wrappers__: ClassVar[dict[type, type[Wrapper]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if AsyncIOFamily not in cls.__bases__:
            # A user's subclass, which takes no wrapper's place.
            super().__init_subclass__(**kwargs)
            return
        originals = Wrapper.__wrappers__
        original = next(each for each in cls.__mro__ if each in originals.values())
        wrapped = [delegate for delegate, each in originals.items() if each is original]
        kwargs.update(wraps=vars(original)["__delegate_class__"], also=tuple(wrapped))
        super().__init_subclass__(**kwargs)


class AsyncIOMotorClient(AsyncIOFamily, MotorClient[_DocumentType]):
    """`MotorClient`, whose loop is asyncio's."""

    _loops: ClassVar[type[Loops]] = AsyncIOLoops


class AsyncIOMotorClientSession(AsyncIOFamily, MotorClientSession):
    """`MotorClientSession` of an `AsyncIOMotorClient`."""


class AsyncIOMotorDatabase(AsyncIOFamily, MotorDatabase[_DocumentType]):
    """`MotorDatabase` of an `AsyncIOMotorClient`."""


class AsyncIOMotorCollection(AsyncIOFamily, MotorCollection[_DocumentType]):
    """`MotorCollection` of an `AsyncIOMotorClient`."""


class AsyncIOMotorCursor(AsyncIOFamily, MotorCursor[_Document]):
    """`MotorCursor` of an `AsyncIOMotorCollection`."""


class AsyncIOMotorRawBatchCursor(AsyncIOFamily, MotorRawBatchCursor):
    """`MotorRawBatchCursor` of an `AsyncIOMotorCollection`."""


class AsyncIOMotorCommandCursor(AsyncIOFamily, MotorCommandCursor[_Document]):
    """`MotorCommandCursor` of an `AsyncIOMotorClient`."""


class AsyncIOMotorRawBatchCommandCursor(AsyncIOFamily, MotorRawBatchCommandCursor):
    """`MotorRawBatchCommandCursor` of an `AsyncIOMotorClient`."""


class AsyncIOMotorLatentCommandCursor(AsyncIOFamily, MotorLatentCommandCursor[_Document]):
    """`MotorLatentCommandCursor` of an `AsyncIOMotorClient`."""


class AsyncIOMotorChangeStream(AsyncIOFamily, MotorChangeStream[_Document]):
    """`MotorChangeStream` of an `AsyncIOMotorClient`."""


class AsyncIOMotorGridFSBucket(AsyncIOFamily, MotorGridFSBucket):
    """`MotorGridFSBucket` of an `AsyncIOMotorDatabase`."""


class AsyncIOMotorGridIn(AsyncIOFamily, MotorGridIn):
    """`MotorGridIn` of an `AsyncIOMotorGridFSBucket`."""


class AsyncIOMotorGridOut(AsyncIOFamily, MotorGridOut):
    """`MotorGridOut` of an `AsyncIOMotorGridFSBucket`."""


class AsyncIOMotorGridOutCursor(AsyncIOFamily, MotorGridOutCursor):
    """`MotorGridOutCursor` of an `AsyncIOMotorGridFSBucket`."""
