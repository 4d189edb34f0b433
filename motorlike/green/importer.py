"""Load an unmodified package so that it runs green.

The package's own source is executed into a private module table. Its modules
have their own ``__import__``, which answers `socket`, `ssl`, `threading` and
the like with the stand-ins of `motorlike.green`, also for imports made inside
functions.

Rule: nothing that the application imports is touched. `sys.modules`, the
package as the application knows it and the standard library stay as they are.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import threading
from collections.abc import Callable, Collection, Mapping
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["STAND_INS", "Loader", "load"]

# The stand-ins, by the name of the module whose place they take.
STAND_INS = {
    "socket": "motorlike.green.socket",
    "ssl": "motorlike.green.ssl",
    "select": "motorlike.green.select",
    "threading": "motorlike.green.threading",
    "time": "motorlike.green.time",
    "queue": "motorlike.green.queue",
}

StandIn = str | ModuleType


class Loader:
    """A private table of green modules.

    Args:
        packages: Top-level packages to load privately.
        shared: Names of their modules that stay the application's own, with
            what is below them; or a function that tells this of a name.
        stand_ins: More modules to replace: by the name of a stand-in, or by
            the stand-in itself.
    """

    def __init__(
        self,
        packages: Collection[str],
        shared: Collection[str] | Callable[[str], bool] = (),
        stand_ins: Mapping[str, StandIn] | None = None,
    ) -> None:
        self.packages = frozenset(packages)
        self.modules: dict[str, ModuleType] = {}
        self._stand_ins: dict[str, StandIn] = {**STAND_INS, **(stand_ins or {})}
        for package in self.packages:
            self._stand_ins.pop(package, None)
        self._is_shared = shared if callable(shared) else _in_any_of(frozenset(shared))
        self._lock = threading.RLock()
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, name: str) -> ModuleType:
        """Return the green module *name*, executing it the first time.

        Raises:
            ModuleNotFoundError: There is no such module.
        """
        module = self.modules.get(name)
        if module is not None:
            return module
        with self._lock:
            parent, _, child = name.rpartition(".")
            package = self.load(parent) if parent else None
            # Loading the parent may have loaded the child as well.
            module = self.modules.get(name) or self._load(name, package)
            if package is not None:
                setattr(package, child, module)
            return module

    def _load(self, name: str, package: ModuleType | None) -> ModuleType:
        if self._is_shared(name):
            return importlib.import_module(name)
        spec = _find(name, package)
        if isinstance(spec.loader, ExtensionFileLoader):
            # Compiled code is executed once a process; it is shared as it is.
            return importlib.import_module(name)
        return self._execute(name, spec)

    def _execute(self, name: str, spec: ModuleSpec) -> ModuleType:
        module = importlib.util.module_from_spec(spec)
        get_code = getattr(spec.loader, "get_code", None)
        code = get_code(name) if get_code is not None else None
        if code is None:
            raise ImportError(f"{name} has no Python code to execute", name=name)
        vars(module)["__builtins__"] = self._builtins
        self.modules[name] = module
        try:
            exec(code, vars(module))
        except BaseException:
            del self.modules[name]
            raise
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - as builtins.__import__
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Collection[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        absolute = name
        if level and globals is not None:
            absolute = importlib.util.resolve_name("." * level + name, _package_of(globals))
        if absolute in self._stand_ins:
            return self._stand_in(absolute, fromlist)
        top = absolute.partition(".")[0]
        if top not in self.packages:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = self.load(absolute)
        if not fromlist:
            return module if level else self.load(top)
        for each in fromlist:
            self._bind(module, absolute, each)
        return module

    def _bind(self, module: ModuleType, name: str, attribute: str) -> None:
        if attribute == "*":
            for each in getattr(module, "__all__", ()):
                self._bind(module, name, each)
        elif not hasattr(module, attribute) and hasattr(module, "__path__"):
            try:
                self.load(f"{name}.{attribute}")
            except ModuleNotFoundError as exc:
                # The import statement itself then says that the name is missing.
                if exc.name != f"{name}.{attribute}":
                    raise

    def _stand_in(self, name: str, fromlist: Collection[str] | None) -> ModuleType:
        stand_in = self._stand_ins[name]
        module = importlib.import_module(stand_in) if isinstance(stand_in, str) else stand_in
        parent, _, child = name.rpartition(".")
        if not parent or fromlist:
            return module
        # `import a.b` binds a: one that looks like a, but has this b.
        top = _Proxy(importlib.import_module(parent))
        setattr(top, child, module)
        return top


class _Proxy(ModuleType):
    """A module that looks like another one, but for what is set on it."""

    def __init__(self, original: ModuleType) -> None:
        super().__init__(original.__name__, original.__doc__)
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def _in_any_of(names: frozenset[str]) -> Callable[[str], bool]:
    def is_shared(name: str) -> bool:
        while name:
            if name in names:
                return True
            name = name.rpartition(".")[0]
        return False

    return is_shared


def _find(name: str, package: ModuleType | None) -> ModuleSpec:
    path = None if package is None else getattr(package, "__path__", [])
    spec = PathFinder.find_spec(name, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return spec


def _package_of(namespace: Mapping[str, Any]) -> str:
    package = namespace.get("__package__")
    if package is None:
        name = str(namespace["__name__"])
        package = name if "__path__" in namespace else name.rpartition(".")[0]
    return str(package)


def load(
    *packages: str, shared: Collection[str] | Callable[[str], bool] = ()
) -> Any:
    """Load unmodified packages to run green.

    Example::

        pymysql = importer.load("pymysql")
        rows = await green.spawn(query, pymysql)

    Args:
        packages: Their names. Packages that import one another go together.
        shared: Modules of theirs to leave as the application's own, so that
            classes (such as errors) are the same in both.

    Returns:
        The green package; a tuple of them for several names.

    Raises:
        ModuleNotFoundError: A package is not installed.
    """
    if not packages:
        raise TypeError("load() needs the name of at least one package")
    tops = {name.partition(".")[0] for name in packages}
    loader = Loader(tops, shared)
    modules = tuple(loader.load(name) for name in packages)
    return modules[0] if len(modules) == 1 else modules
