"""PyMongo's own modules, loaded to run green.

Rule: one private copy a process; everything green comes from it.
"""

from __future__ import annotations

import atexit
import os
import warnings
from types import ModuleType

import pymongo

# Not for its names: `dataclasses` looks for the module of a class in
# `sys.modules`, and the application may not have imported this one.
import pymongo.synchronous.auth_oidc

from motorlike.driver.blocking import replacements, stand_ins
from motorlike.driver.shared import SHARED
from motorlike.errors import UntestedVersionWarning
from motorlike.green.importer import Loader

__all__ = ["TESTED_VERSIONS", "load", "make_loader"]

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


def _without_hooks(original: ModuleType, *names: str) -> ModuleType:
    """Return a copy of a module in which functions that register a hook do nothing."""
    copy = ModuleType(original.__name__, original.__doc__)
    vars(copy).update(vars(original))
    for name in names:
        if hasattr(original, name):
            setattr(copy, name, _register_nothing)
    return copy


def _register_nothing(*args: object, **kwargs: object) -> None:
    pass


def make_loader() -> Loader:
    """Return a loader with nothing loaded yet. One serves the whole process."""
    hooks = {
        # PyMongo would close its monitors at exit, from outside any greenlet.
        # `motorlike.green.hub` ends them, with everything else on their loop.
        "atexit": _without_hooks(atexit, "register"),
        # PyMongo would restart every client in a forked child, where no loop
        # runs yet. `driver.Binding` does it at the first operation there.
        "os": _without_hooks(os, "register_at_fork"),
    }
    loader = Loader({"pymongo", "gridfs", "pymongocrypt"}, _is_shared, {**stand_ins(), **hooks})
    loader.modules.update(replacements())
    return loader


def _free_locks_in_child() -> None:
    """Free PyMongo's locks in a forked child: nobody is left who holds them."""
    module = _loader.modules.get("pymongo.lock")
    for lock in [] if module is None else list(module._forkable_locks):
        # A lock is handed to the next waiter, and all waiters are gone too.
        while lock.locked():
            lock.release()


_warn_of_untested_version(tuple(part for part in pymongo.version_tuple if isinstance(part, int)))
_loader = make_loader()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_locks_in_child)


def load(name: str) -> ModuleType:
    """Return the green copy of the module *name* of PyMongo or GridFS.

    A shared module is the application's own.
    """
    return _loader.load(name)
