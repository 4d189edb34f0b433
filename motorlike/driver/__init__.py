"""PyMongo, run green: the loaded driver, with nothing patched that users import.

The wrappers reach the driver through this package only.
"""

from __future__ import annotations

from motorlike.driver.client import MongoClient, reopen
from motorlike.driver.loader import TESTED_VERSIONS, load

__all__ = ["TESTED_VERSIONS", "MongoClient", "load", "reopen"]
