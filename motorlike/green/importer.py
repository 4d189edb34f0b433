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
import logging
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from types import CodeType, ModuleType
from typing import Any

from motorlike.errors import BlockingExtension
from motorlike.green.extensions import socket_calls

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

_log = logging.getLogger(__name__)


class Loader:
    """A private table of green modules.

    Args:
        packages: Top-level packages to load privately.
        shared: Names of their modules that stay the application's own, with
            what is below them; or a function that tells this of a name.
        stand_ins: More modules to replace: by the name of a stand-in, or by
            the stand-in itself.
        extensions: Names of extension modules, with what is below them, that
            may be used although they make socket calls of their own.
        using: Green modules from other loaders. The packages loaded here see
            all the packages of those loaders green.

    Attributes:
        extensions: The extension modules that the packages use.
    """

    def __init__(
        self,
        packages: Collection[str],
        shared: Collection[str] | Callable[[str], bool] = (),
        stand_ins: Mapping[str, StandIn] | None = None,
        extensions: Collection[str] = (),
        using: Iterable[ModuleType] = (),
    ) -> None:
        self.packages = frozenset(packages)
        self.extensions: list[str] = []
        self._may_block = _in_any_of(frozenset(extensions))
        self._neighbours = {
            package: loader for loader in map(_loader_of, using) for package in loader.packages
        }
        self.modules: dict[str, ModuleType] = {}
        # What imports of names, by both, were answered with.
        self._bound: dict[tuple[str, tuple[str, ...]] | None, ModuleType] = {}
        # Modules that belong to the application as well, by their names.
        self._others: dict[str, ModuleType] = {}
        self._executing: set[str] = set()
        importing = _Replaced(importlib, lambda name: None)
        importing.__dict__["import_module"] = self._import_module
        self._stand_ins: dict[str, StandIn] = {
            **STAND_INS,
            "importlib": importing,
            **(stand_ins or {}),
        }
        for package in self.packages:
            self._stand_ins.pop(package, None)
        self._parents = {each for name in self._stand_ins for each in _parents_of(name)}
        self._is_shared = shared if callable(shared) else _in_any_of(frozenset(shared))
        self._lock = threading.RLock()
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, name: str) -> ModuleType:
        """Return the green module *name*, executing it the first time.

        Raises:
            ModuleNotFoundError: There is no such module.
        """
        module = self.modules.get(name) or self._others.get(name)
        # Another thread must not see one that is half executed.
        if module is not None and name not in self._executing:
            return module
        with self._lock:
            parent, _, child = name.rpartition(".")
            package = self.load(parent) if parent else None
            # Loading the parent may have loaded the child as well.
            return self.modules.get(name) or self._load(name, package, child)

    def _load(self, name: str, package: ModuleType | None, child: str) -> ModuleType:
        # What is below a shared package is set there, so it is shared as well.
        is_shared = self._is_shared(name) or (package is not None and not self._is_ours(package))
        spec = None if is_shared else _find(name, package)
        # Compiled code is executed once a process; it is shared as it is.
        if spec is None or isinstance(spec.loader, ExtensionFileLoader):
            module = importlib.import_module(name)
            if not is_shared:
                self._check_extension(module)
            self._others[name] = module
        else:
            module = importlib.util.module_from_spec(spec)
            if self._is_ours(package):
                # Before it is executed: in a circular import the statement
                # would look in sys.modules next, for the application's own.
                setattr(package, child, module)
            self._execute(module, name, spec)
        if self._is_ours(package):
            setattr(package, child, module)
        return module

    def _check_extension(self, module: ModuleType) -> None:
        """Refuse compiled code that would block, if *module* is such; note it otherwise."""
        spec = module.__spec__
        if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
            return
        calls = socket_calls(spec.loader.path)
        _log.debug("extension module %s, its socket calls: %s", spec.name, calls or "none")
        if calls and not self._may_block(spec.name):
            raise BlockingExtension(spec.name, calls)
        if spec.name not in self.extensions:
            self.extensions.append(spec.name)

    def _is_ours(self, package: ModuleType | None) -> bool:
        return package is not None and self.modules.get(package.__name__) is package

    def _execute(self, module: ModuleType, name: str, spec: ModuleSpec) -> None:
        vars(module)["__builtins__"] = self._builtins
        self.modules[name] = module
        self._executing.add(name)
        try:
            exec(_code_of(name, spec), vars(module))
        except BaseException:
            del self.modules[name]
            self._unset(name, module)
            raise
        finally:
            self._executing.discard(name)

    def _unset(self, name: str, module: ModuleType) -> None:
        parent, _, child = name.rpartition(".")
        package = self.modules.get(parent)
        if package is not None and vars(package).get(child) is module:
            delattr(package, child)

    # -- what a loaded module's import statements do ----------------------

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - as builtins.__import__
        locals: Mapping[str, Any] | None = None,  # noqa: A002 - as above
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        # Drivers import inside functions, and run those for each operation.
        key = (name, fromlist) if not level and type(fromlist) is tuple else None
        module = self._bound.get(key)
        if module is None:
            module = self._import_anew(name, globals, locals, fromlist, level)
            if key is not None:
                self._bound[key] = module
        return module

    def _import_anew(
        self,
        name: str,
        globals: Mapping[str, Any] | None,  # noqa: A002 - as builtins.__import__
        locals: Mapping[str, Any] | None,  # noqa: A002 - as above
        fromlist: Sequence[str] | None,
        level: int,
    ) -> ModuleType:
        absolute = name
        if level and globals is not None:
            absolute = importlib.util.resolve_name("." * level + name, _package_of(globals))
        top = absolute.partition(".")[0]
        if top not in self.packages:
            module = self._replacement(absolute)
            if module is None:
                module = self._import_other(top)(name, globals, locals, fromlist or (), level)
            if module.__name__ == top and top not in sys.stdlib_module_names:
                self._check_extension(module)
            return module if fromlist else self._replacement(top) or module
        module = self.load(absolute)
        if not fromlist:
            return module if level else self.load(top)
        for each in fromlist:
            self._bind(module, absolute, each)
        return module

    def _import_other(self, top: str) -> Callable[..., ModuleType]:
        neighbour = self._neighbours.get(top)
        return builtins.__import__ if neighbour is None else neighbour._import

    def _import_module(self, name: str, package: str | None = None) -> ModuleType:
        absolute = importlib.util.resolve_name(name, package) if name.startswith(".") else name
        if absolute.partition(".")[0] in self.packages:
            return self.load(absolute)
        neighbour = self._neighbours.get(absolute.partition(".")[0])
        if neighbour is not None:
            return self._replacement(absolute) or neighbour.load(absolute)
        return self._replacement(absolute) or importlib.import_module(absolute)

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

    def _replacement(self, name: str) -> ModuleType | None:
        """Return what takes the place of a module that is not loaded here, if anything."""
        stand_in = self._stand_ins.get(name)
        if isinstance(stand_in, str):
            return importlib.import_module(stand_in)
        if stand_in is None and name in self._parents:
            # `a`, when `a.b` is replaced: looks like a, but has this b.
            original = importlib.import_module(name)
            stand_in = self._stand_ins[name] = _Replaced(original, self._replacement)
        return stand_in


class _Replaced(ModuleType):
    """A module that looks like another one, but for submodules that are replaced."""

    def __init__(
        self, original: ModuleType, replacement: Callable[[str], ModuleType | None]
    ) -> None:
        super().__init__(original.__name__, original.__doc__)
        self._original = original
        self._replacement = replacement

    def __getattr__(self, name: str) -> Any:  # `Any`: whatever the original has
        return self._replacement(f"{self.__name__}.{name}") or getattr(self._original, name)


def _loader_of(module: ModuleType) -> Loader:
    namespace = vars(module).get("__builtins__")
    import_ = namespace.get("__import__") if isinstance(namespace, dict) else None
    loader = getattr(import_, "__self__", None)
    if not isinstance(loader, Loader):
        raise TypeError(
            f"using= takes packages that were loaded green, and {module.__name__} is the "
            f"application's own. Load it first: green.load({module.__name__!r})."
        )
    return loader


def _parents_of(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


def _code_of(name: str, spec: ModuleSpec) -> CodeType:
    if spec.loader is None:
        # A namespace package: a folder, and no code.
        return compile("", name, "exec")
    get_code = getattr(spec.loader, "get_code", None)
    code: CodeType | None = get_code(name) if get_code is not None else None
    if code is None:
        raise ImportError(f"{name} has no Python code to execute", name=name)
    return code


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
    # Not importlib.util.find_spec: it imports the parents. The other finders
    # know packages that are installed for editing.
    for finder in (PathFinder, *sys.meta_path):
        find_spec = getattr(finder, "find_spec", None)
        spec = None if find_spec is None else find_spec(name, path)
        if isinstance(spec, ModuleSpec):
            return spec
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _package_of(namespace: Mapping[str, Any]) -> str:
    package = namespace.get("__package__")
    if package is None:
        name = str(namespace["__name__"])
        package = name if "__path__" in namespace else name.rpartition(".")[0]
    return str(package)


def load(
    *packages: str,
    shared: Collection[str] | Callable[[str], bool] = (),
    extensions: Collection[str] = (),
    using: Iterable[ModuleType] = (),
) -> Any:
    """Load unmodified packages to run green.

    Example::

        pymysql = importer.load("pymysql")
        rows = await green.spawn(query, pymysql)

    Args:
        packages: Their names. Packages that import one another go together.
        shared: Modules of theirs to leave as the application's own, so that
            classes (such as errors) are the same in both.
        extensions: Extension modules of theirs, by name, to use although
            they make socket calls that block the event loop.
        using: Packages that were loaded green before, and that these import.

    Returns:
        The green package; a tuple of them for several names.

    Raises:
        ModuleNotFoundError: A package is not installed.
        BlockingExtension: A package is, or imports, an extension module that
            makes socket calls of its own. It is an `ImportError`, so a
            package that can do without goes on in pure Python.
    """
    if not packages:
        raise TypeError("load() needs the name of at least one package")
    tops = {name.partition(".")[0] for name in packages}
    loader = Loader(tops, shared, extensions=extensions, using=using)
    modules = tuple(loader.load(name) for name in packages)
    return modules[0] if len(modules) == 1 else modules
