"""Motor's names for what both families are, as type hints use them: `motor.core`.

The AsyncIO classes are subclasses of Tornado's here, so each of those stands for both.

Rule: names only; no logic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from motorlike import wrappers
from motorlike.later import import_later

if TYPE_CHECKING:
    from motorlike.wrappers.encryption import MotorClientEncryption as AgnosticClientEncryption
else:
    __getattr__, __dir__ = import_later(
        __name__, AgnosticClientEncryption="motorlike.wrappers.encryption:MotorClientEncryption"
    )

__all__ = [
    "AgnosticChangeStream",
    "AgnosticClient",
    "AgnosticClientEncryption",
    "AgnosticClientSession",
    "AgnosticCollection",
    "AgnosticCommandCursor",
    "AgnosticCursor",
    "AgnosticDatabase",
    "AgnosticLatentCommandCursor",
    "AgnosticRawBatchCommandCursor",
    "AgnosticRawBatchCursor",
]

AgnosticChangeStream = wrappers.MotorChangeStream
AgnosticClient = wrappers.MotorClient
AgnosticClientSession = wrappers.MotorClientSession
AgnosticCollection = wrappers.MotorCollection
AgnosticCommandCursor = wrappers.MotorCommandCursor
AgnosticCursor = wrappers.MotorCursor
AgnosticDatabase = wrappers.MotorDatabase
AgnosticLatentCommandCursor = wrappers.MotorLatentCommandCursor
AgnosticRawBatchCommandCursor = wrappers.MotorRawBatchCommandCursor
AgnosticRawBatchCursor = wrappers.MotorRawBatchCursor
