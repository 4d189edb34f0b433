"""Motor's names for what both families are, as type hints use them: `motor.core`.

The AsyncIO classes are subclasses of Tornado's here, so each of those stands for both.

Rule: names only; no logic.
"""

from __future__ import annotations

from motorlike import wrappers

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
AgnosticClientEncryption = wrappers.MotorClientEncryption
AgnosticClientSession = wrappers.MotorClientSession
AgnosticCollection = wrappers.MotorCollection
AgnosticCommandCursor = wrappers.MotorCommandCursor
AgnosticCursor = wrappers.MotorCursor
AgnosticDatabase = wrappers.MotorDatabase
AgnosticLatentCommandCursor = wrappers.MotorLatentCommandCursor
AgnosticRawBatchCommandCursor = wrappers.MotorRawBatchCommandCursor
AgnosticRawBatchCursor = wrappers.MotorRawBatchCursor
