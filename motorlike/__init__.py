"""motorlike: unchanged, synchronous PyMongo, awaited from Tornado and asyncio.

Public names only; no logic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from motorlike.errors import (
    BlockingExtension,
    ConcurrentUse,
    LoopClosed,
    LoopMismatch,
    MotorlikeError,
    NotInGreenlet,
    UntestedVersionWarning,
)
from motorlike.install import install_as_motor
from motorlike.later import import_later
from motorlike.version import __version__, get_version_string, version, version_tuple
from motorlike.wrappers import (
    MotorChangeStream,
    MotorClient,
    MotorClientSession,
    MotorCollection,
    MotorCommandCursor,
    MotorCursor,
    MotorDatabase,
    MotorGridFSBucket,
    MotorGridIn,
    MotorGridOut,
    MotorGridOutCursor,
    MotorLatentCommandCursor,
    MotorRawBatchCommandCursor,
    MotorRawBatchCursor,
)

if TYPE_CHECKING:
    from motorlike.wrappers.encryption import MotorClientEncryption
else:
    __getattr__, __dir__ = import_later(
        __name__, MotorClientEncryption="motorlike.wrappers.encryption:MotorClientEncryption"
    )

__all__ = [
    "BlockingExtension",
    "ConcurrentUse",
    "LoopClosed",
    "LoopMismatch",
    "MotorChangeStream",
    "MotorClient",
    "MotorClientEncryption",
    "MotorClientSession",
    "MotorCollection",
    "MotorCommandCursor",
    "MotorCursor",
    "MotorDatabase",
    "MotorGridFSBucket",
    "MotorGridIn",
    "MotorGridOut",
    "MotorGridOutCursor",
    "MotorLatentCommandCursor",
    "MotorRawBatchCommandCursor",
    "MotorRawBatchCursor",
    "MotorlikeError",
    "NotInGreenlet",
    "UntestedVersionWarning",
    "__version__",
    "get_version_string",
    "install_as_motor",
    "version",
    "version_tuple",
]
