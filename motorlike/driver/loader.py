"""PyMongo's own modules, loaded to run green.

Rule: one private copy a process; everything green comes from it.
"""

from __future__ import annotations

import warnings
from types import ModuleType

import pymongo

from motorlike.driver.blocking import stand_ins
from motorlike.driver.shared import SHARED
from motorlike.errors import UntestedVersionWarning
from motorlike.green.importer import Loader

__all__ = ["TESTED_VERSIONS", "load"]

# Tried with these releases of PyMongo, by their first two numbers.
TESTED_VERSIONS = ((4, 18), (4, 19), (4, 20))


def _warn_of_untested_version(version: tuple[int, ...]) -> None:
    if version[:2] not in TESTED_VERSIONS:
        tested = ", ".join(f"{major}.{minor}" for major, minor in TESTED_VERSIONS)
        warnings.warn(
            f"motorlike was tried with PyMongo {tested}; {pymongo.version} is installed. "
            f"It may work: run your tests, or install one of those.",
            UntestedVersionWarning,
            stacklevel=2,
        )


def _is_shared(name: str) -> bool:
    while name:
        if name in SHARED:
            return True
        name = name.rpartition(".")[0]
    return False


_warn_of_untested_version(tuple(part for part in pymongo.version_tuple if isinstance(part, int)))
_loader = Loader({"pymongo", "gridfs"}, _is_shared, stand_ins())


def load(name: str) -> ModuleType:
    """Return the green copy of the module *name* of PyMongo or GridFS.

    A shared module is the application's own.
    """
    return _loader.load(name)
