"""Libraries that use synchronous PyMongo, such as MongoEngine, on the green driver.

Applications call `load` once for a library, and run what they write with it by
`green.spawn`. Where it imports PyMongo or GridFS, the library gets the green
ones; the application's own copies, of PyMongo and of the library, stay as they
are.

Rule: the library sees all of PyMongo as the driver has it, but for
`MongoClient`: its own follows whatever loop is running.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

from motorlike import driver
from motorlike.errors import NotInGreenlet
from motorlike.green import in_greenlet
from motorlike.green.importer import Loader

__all__ = ["MongoClient", "load"]


class MongoClient(driver.MongoClient):
    """PyMongo's client as a library holds it: used in green code, on any loop.

    It connects at the first operation. On a later loop it opens itself again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # `Any`: as PyMongo's
        super().__init__(*args, **kwargs)
        self._binding = driver.Binding(self)
        self._is_closing = False

    def _get_topology(self) -> Any:  # `Any`: private to PyMongo
        # Every operation begins here; later, part of it would have been sent.
        if not in_greenlet():
            raise NotInGreenlet("an operation of a library on the green PyMongo")
        self._binding.hub()
        return super()._get_topology()

    def close(self) -> None:
        """End sessions, cursors, monitors and sockets.

        In green code the servers are told; elsewhere the client's own side
        is closed, which waits for nothing.
        """
        if self._is_closing:
            super().close()
            return
        self._is_closing = True
        try:
            end = driver.close if in_greenlet() else driver.discard
            end(self)
        finally:
            self._is_closing = False


class _View(ModuleType):
    """A module of the green PyMongo, but for the attributes that are set here."""

    def __init__(self, name: str, **attributes: object) -> None:
        original = driver.load(name)
        super().__init__(name, original.__doc__)
        if hasattr(original, "__path__"):
            self.__path__ = original.__path__
        vars(self).update(attributes)
        self._original = original

    def __getattr__(self, name: str) -> Any:  # `Any`: whatever the module has
        try:
            return getattr(self._original, name)
        except AttributeError:
            if not hasattr(self._original, "__path__"):
                raise
        # `from pymongo import uri_parser`, where nobody has imported that yet.
        try:
            return driver.load(f"{self.__name__}.{name}")
        except ModuleNotFoundError as exc:
            raise AttributeError(str(exc)) from exc


def load(
    *packages: str,
    shared: Collection[str] | Callable[[str], bool] = (),
    extensions: Collection[str] = (),
) -> Any:  # `Any`: a module, whose attributes nobody knows here
    """Load unmodified libraries to run green, on the green PyMongo.

    Example::

        mongoengine = libraries.load("mongoengine")
        mongoengine.connect(host="mongodb://localhost/blog")
        posts = await green.spawn(list, Post.objects)

    The arguments, the result and the errors are those of `green.load`.
    """
    if not packages:
        raise TypeError("load() needs the name of at least one library")
    mongo_client = _View("pymongo.mongo_client", MongoClient=MongoClient)
    loader = Loader(
        {name.partition(".")[0] for name in packages},
        shared,
        stand_ins={
            "pymongo": _View("pymongo", MongoClient=MongoClient, mongo_client=mongo_client),
            "pymongo.mongo_client": mongo_client,
        },
        extensions=extensions,
        using=[driver.load("pymongo")],
    )
    modules = tuple(loader.load(name) for name in packages)
    return modules[0] if len(modules) == 1 else modules
