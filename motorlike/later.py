"""Public names whose modules are imported when somebody asks for them.

Client-side encryption stands on pymongocrypt, where that is installed, and on
the libraries which that imports in turn: a third of what an import of motorlike
would take, and as much as a quarter of the objects that each full run of the
garbage collector then visits. Most programs encrypt nothing.

Rule: a name stays in the module that offers it once it was asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

__all__ = ["import_later"]


def import_later(
    module: str, **sources: str
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` by which *module* offers more names.

    Args:
        module: Its ``__name__``.
        sources: For each name, where it is: ``"package.module:name there"``.
    """

    def look_up(name: str) -> object:
        if name not in sources:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        source, _, there = sources[name].partition(":")
        value: object = getattr(importlib.import_module(source), there)
        setattr(sys.modules[module], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[module]), *sources})

    return look_up, names
