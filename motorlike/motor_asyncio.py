"""Motor's names for asyncio, for drop-in imports: ``from motorlike.motor_asyncio import …``.

Rule: names only; no logic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from motorlike.later import import_later
from motorlike.wrappers.for_asyncio import (
    AsyncIOMotorChangeStream,
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorCommandCursor,
    AsyncIOMotorCursor,
    AsyncIOMotorDatabase,
    AsyncIOMotorGridFSBucket,
    AsyncIOMotorGridIn,
    AsyncIOMotorGridOut,
    AsyncIOMotorGridOutCursor,
    AsyncIOMotorLatentCommandCursor,
    AsyncIOMotorRawBatchCommandCursor,
    AsyncIOMotorRawBatchCursor,
)

if TYPE_CHECKING:
    from motorlike.wrappers.encryption_for_asyncio import AsyncIOMotorClientEncryption
else:
    _ENCRYPTION = "motorlike.wrappers.encryption_for_asyncio:AsyncIOMotorClientEncryption"
    __getattr__, __dir__ = import_later(__name__, AsyncIOMotorClientEncryption=_ENCRYPTION)

__all__ = [
    "AsyncIOMotorChangeStream",
    "AsyncIOMotorClient",
    "AsyncIOMotorClientEncryption",
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
