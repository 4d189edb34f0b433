"""Motor's names for what both families' GridFS classes are: `motor.motor_gridfs`.

Rule: names only; no logic.
"""

from __future__ import annotations

from motorlike import wrappers

__all__ = [
    "AgnosticGridFSBucket",
    "AgnosticGridIn",
    "AgnosticGridOut",
    "AgnosticGridOutCursor",
]

AgnosticGridFSBucket = wrappers.MotorGridFSBucket
AgnosticGridIn = wrappers.MotorGridIn
AgnosticGridOut = wrappers.MotorGridOut
AgnosticGridOutCursor = wrappers.MotorGridOutCursor
