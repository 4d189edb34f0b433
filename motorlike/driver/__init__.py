"""PyMongo, run green: the loaded driver, with nothing patched that users import.

The wrappers reach the driver through this package only.
"""

from __future__ import annotations

from motorlike.driver.binding import Binding
from motorlike.driver.client import MongoClient, close, discard
from motorlike.driver.files import destination, source
from motorlike.driver.loader import TESTED_VERSIONS, load
from motorlike.driver.packed import Packed, leaving_packed

__all__ = [
    "TESTED_VERSIONS",
    "Binding",
    "MongoClient",
    "Packed",
    "close",
    "destination",
    "discard",
    "leaving_packed",
    "load",
    "source",
]
