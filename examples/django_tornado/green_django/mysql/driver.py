"""Django's MySQL backend on PyMySQL, both loaded to run green.

The backend imports `MySQLdb`, a C client that no event loop can see into. Here
it is loaded a second time, and finds a green PyMySQL under that name, and
`green_django.guard` under that of `django.utils.asyncio`.

Rule: all else of Django, its models and errors among it, is the application's
own; and so is the application's backend, if it has databases of both kinds.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from green_django import guard
from motorlike import green
from motorlike.green.importer import Loader

__all__ = ["django_base", "pymysql"]

# What is loaded a second time, and the packages that these lie in.
_PRIVATE = ("django.db.backends.base.base", "django.db.backends.mysql")
_PARENTS = ("django", "django.db", "django.db.backends", "django.db.backends.base")


class _Parent(ModuleType):
    """A package that is the application's own, but for submodules set here."""

    def __init__(self, name: str) -> None:
        original = importlib.import_module(name)
        super().__init__(name, original.__doc__)
        self._original = original

    def __getattr__(self, name: str) -> Any:  # `Any`: whatever the original has
        return getattr(self._original, name)


def _is_shared(name: str) -> bool:
    return not any(name == each or name.startswith(f"{each}.") for each in _PRIVATE)


def _load(mysqldb: dict[str, ModuleType]) -> ModuleType:
    loader = Loader({"django"}, _is_shared, mysqldb)
    loader.modules.update({name: _Parent(name) for name in _PARENTS})
    loader.modules["django.utils.asyncio"] = guard
    return loader.load("django.db.backends.mysql.base")


pymysql, _constants, _converters = green.load("pymysql", "pymysql.constants", "pymysql.converters")
# `Any`: Django has no annotations.
django_base: Any = _load(
    {
        "MySQLdb": pymysql,
        "MySQLdb.constants": _constants,
        "MySQLdb.converters": _converters,
    }
)
