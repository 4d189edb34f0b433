"""motorlike: unchanged, synchronous PyMongo, awaited from Tornado and asyncio.

Public names only; no logic.
"""

from __future__ import annotations

from motorlike.errors import (
    ConcurrentUse,
    LoopClosed,
    LoopMismatch,
    MotorlikeError,
    NotInGreenlet,
    UntestedVersionWarning,
)
from motorlike.version import __version__
from motorlike.wrappers import (
    MotorClient,
    MotorClientSession,
    MotorCollection,
    MotorCommandCursor,
    MotorCursor,
    MotorDatabase,
    MotorLatentCommandCursor,
    MotorRawBatchCommandCursor,
    MotorRawBatchCursor,
)

__all__ = [
    "ConcurrentUse",
    "LoopClosed",
    "LoopMismatch",
    "MotorClient",
    "MotorClientSession",
    "MotorCollection",
    "MotorCommandCursor",
    "MotorCursor",
    "MotorDatabase",
    "MotorLatentCommandCursor",
    "MotorRawBatchCommandCursor",
    "MotorRawBatchCursor",
    "MotorlikeError",
    "NotInGreenlet",
    "UntestedVersionWarning",
    "__version__",
]
