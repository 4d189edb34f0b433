"""Motor's names for Tornado, for drop-in imports: ``from motorlike.motor_tornado import …``.

Rule: names only; no logic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from motorlike.later import import_later
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
]
