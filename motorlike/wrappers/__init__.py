"""What users hold: one file per class family of PyMongo's.

Rule: declarations only. What a declaration does is in `motorlike.declare`.
`encryption` is imported when its class is asked for: see `motorlike.later`.
"""

from __future__ import annotations

from motorlike.wrappers.change_stream import MotorChangeStream
from motorlike.wrappers.client import MotorClient
from motorlike.wrappers.client_session import MotorClientSession
from motorlike.wrappers.collection import MotorCollection
from motorlike.wrappers.cursor import (
    MotorCommandCursor,
    MotorCursor,
    MotorRawBatchCommandCursor,
    MotorRawBatchCursor,
)
from motorlike.wrappers.database import MotorDatabase
from motorlike.wrappers.gridfs import MotorGridFSBucket, MotorGridOutCursor
from motorlike.wrappers.gridfs_files import MotorGridIn, MotorGridOut
from motorlike.wrappers.latent_cursor import MotorLatentCommandCursor

__all__ = [
    "MotorChangeStream",
    "MotorClient",
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
