"""Motor's asyncio name for `MotorClientEncryption`.

Rule: as in `motorlike.wrappers.for_asyncio`. Apart from it for what importing
encryption costs: see `motorlike.later`.
"""

from __future__ import annotations

from typing import ClassVar

from pymongo.typings import _DocumentType

from motorlike.loops import AsyncIOLoops, Loops
from motorlike.wrappers.encryption import MotorClientEncryption
from motorlike.wrappers.for_asyncio import AsyncIOFamily

__all__ = ["AsyncIOMotorClientEncryption"]


class AsyncIOMotorClientEncryption(AsyncIOFamily, MotorClientEncryption[_DocumentType]):
    """`MotorClientEncryption`, whose loop is asyncio's."""

    _loops: ClassVar[type[Loops]] = AsyncIOLoops
