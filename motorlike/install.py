"""`install_as_motor`: libraries that import Motor get motorlike.

Rule: opt-in, all or nothing, and never beside a Motor that was imported already.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

__all__ = ["install_as_motor"]

# The version of Motor whose names and kinds are offered: libraries ask.
MOTOR_VERSION = (3, 7, 1)

# Motor's modules, and where their names are here.
_MODULES = {
    "motor": "motorlike",
    "motor.core": "motorlike.core",
    "motor.motor_gridfs": "motorlike.motor_gridfs",
    "motor.motor_tornado": "motorlike.motor_tornado",
    "motor.motor_asyncio": "motorlike.motor_asyncio",
    "motor.web": "motorlike.web",
    "motor.aiohttp": "motorlike.aiohttp",
}


def install_as_motor() -> None:
    """Make ``import motor`` and its submodules find motorlike, in this process.

    Call it before the first import of Motor, or of a library that imports it.
    `isinstance` checks against Motor's names then hold for motorlike's
    objects. A second call does nothing.

    Raises:
        RuntimeError: Motor itself has been imported already.
    """
    present = sys.modules.get("motor")
    if isinstance(present, _Alias):
        return
    if present is not None:
        raise RuntimeError(
            f"Motor is imported already, from {present.__file__}: call install_as_motor() "
            "before anything that imports it"
        )
    aliases = {name: _Alias(name, target) for name, target in _MODULES.items()}
    for name, alias in aliases.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(aliases[parent], child, alias)
    aliases["motor"].__path__ = []
    sys.modules.update(aliases)


class _Alias(ModuleType):
    """One of Motor's modules, whose names are those of one of motorlike's."""

    def __init__(self, name: str, target: str) -> None:
        super().__init__(name, f"`{target}`, by Motor's name.")
        self._target = target
        if name == "motor":
            self.version = ".".join(map(str, MOTOR_VERSION))
            self.version_tuple = MOTOR_VERSION
            self.get_version_string = lambda: self.version

    # Any: whatever stands there.
    def __getattr__(self, name: str) -> object:
        # "motorlike.aiohttp" needs a library that need not be there. Python
        # asks every module for `__file__` and the like.
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(self._target), name)
        return value
