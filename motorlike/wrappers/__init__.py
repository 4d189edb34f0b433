"""What users hold: one file per class family of PyMongo's.

Rule: declarations only. What a declaration does is in `motorlike.declare`.
"""

from __future__ import annotations

from motorlike.wrappers.client import MotorClient
from motorlike.wrappers.client_session import MotorClientSession
from motorlike.wrappers.collection import MotorCollection
from motorlike.wrappers.cursor import (
    MotorCommandCursor,
    MotorCursor,
    MotorLatentCommandCursor,
    MotorRawBatchCommandCursor,
    MotorRawBatchCursor,
)
from motorlike.wrappers.database import MotorDatabase

__all__ = [
    "MotorClient",
    "MotorClientSession",
    "MotorCollection",
    "MotorCommandCursor",
    "MotorCursor",
    "MotorDatabase",
    "MotorLatentCommandCursor",
    "MotorRawBatchCommandCursor",
    "MotorRawBatchCursor",
]
