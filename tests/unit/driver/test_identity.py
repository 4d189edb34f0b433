"""What users hold is the same class in the driver and in their own `import pymongo`.

Walks the public modules of the installed PyMongo, so a new release's classes
are compared too, and reads the source of the shared ones with `ast`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import bson
import gridfs
import pymongo
import pytest

from motorlike.driver import loader
from motorlike.driver.shared import HARMLESS_IMPORTS, PRIVATE_REASONS, SHARED

# The classes that do I/O, or belong to one that does: these must be green.
GREEN = {
    "gridfs.grid_file.GridFS",
    "gridfs.grid_file.GridFSBucket",
    "gridfs.grid_file.GridIn",
    "gridfs.grid_file.GridOut",
    "gridfs.grid_file.GridOutChunkIterator",
    "gridfs.grid_file.GridOutCursor",
    "gridfs.grid_file.GridOutIterator",
    "pymongo.change_stream.ChangeStream",
    "pymongo.change_stream.ClusterChangeStream",
    "pymongo.change_stream.CollectionChangeStream",
    "pymongo.change_stream.DatabaseChangeStream",
    "pymongo.client_session.ClientSession",
    "pymongo.collection.Collection",
    "pymongo.command_cursor.CommandCursor",
    "pymongo.command_cursor.RawBatchCommandCursor",
    "pymongo.cursor.Cursor",
    "pymongo.cursor.RawBatchCursor",
    "pymongo.database.Database",
    "pymongo.encryption.ClientEncryption",
    "pymongo.mongo_client.MongoClient",
    # Not exported, but the driver stands on them.
    "pymongo.network_layer.NetworkingInterface",
    "pymongo.periodic_executor.PeriodicExecutor",
    "pymongo.socket_checker.SocketChecker",
    "pymongo.synchronous.monitor.Monitor",
    "pymongo.synchronous.pool.Connection",
    "pymongo.synchronous.pool.Pool",
    "pymongo.synchronous.server.Server",
    "pymongo.synchronous.topology.Topology",
}

# Modules named without an underscore that hold nothing for users: PyMongo's
# documentation leaves them out, and they declare no ``__all__``.
INTERNAL = {
    "gridfs.grid_file_shared",
    "pymongo.auth",
    "pymongo.auth_oidc_shared",
    "pymongo.daemon",
    "pymongo.lock",
    "pymongo.mongo_client_shared",
    "pymongo.network_layer",
    "pymongo.ocsp_cache",
    "pymongo.ocsp_support",
    "pymongo.periodic_executor",
    "pymongo.pool_shared",
    "pymongo.pyopenssl_context",
    "pymongo.settings_shared",
    "pymongo.socket_checker",
    "pymongo.ssl_context",
    "pymongo.ssl_support",
    "pymongo.topology_shared",
    "pymongo.uri_parser_shared",
}


# Shared modules that the driver sees with one function, or class, of its own.
REPLACED = {
    "pymongo.auth_shared": "OIDC callbacks are put into the executor",
    "pymongo.encryption_options": "AutoEncryptionOpts build green TLS contexts",
}


def _modules(package: ModuleType) -> Iterator[str]:
    yield package.__name__
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        yield found.name


ALL = sorted({*_modules(pymongo), *_modules(gridfs)})


def _is_public(name: str) -> bool:
    parts = name.split(".")
    return not any(
        part.startswith("_") or part in {"asynchronous", "synchronous"} for part in parts
    )


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        pytest.skip(f"{name} needs {exc.name}")


def _is_driver_class(value: Any) -> bool:
    return inspect.isclass(value) and value.__module__.partition(".")[0] in {"pymongo", "gridfs"}


def _public_classes(module: ModuleType) -> Iterator[tuple[str, type]]:
    for name in getattr(module, "__all__", None) or vars(module):
        value = getattr(module, name)
        if not name.startswith("_") and _is_driver_class(value):
            yield name, value


def _home(value: type, module: str, name: str) -> str:
    """Name a class by the module in which PyMongo documents it."""
    home = value.__module__.replace(".synchronous.", ".")
    public = f"{home}.{value.__name__}"
    return public if _is_public(public) else f"{module}.{name}"


@pytest.mark.parametrize("name", [n for n in ALL if _is_public(n) and n not in INTERNAL])
def test_a_public_class_is_the_applications_own_unless_it_does_io(name: str) -> None:
    ours, theirs = loader.load(name), _import(name)
    for attribute, value in _public_classes(theirs):
        home = _home(value, name, attribute)
        is_private = getattr(ours, attribute) is not value
        if ".asynchronous." in home:
            assert not is_private, home
        elif is_private:
            assert home in GREEN or home in PRIVATE_REASONS, f"{home} differs"
        else:
            assert home not in GREEN, f"{home} is not green"


@pytest.mark.parametrize("name", sorted(GREEN))
def test_a_class_that_does_io_is_the_drivers_own(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    ours, theirs = loader.load(module), importlib.import_module(module)
    assert getattr(ours, attribute) is not getattr(theirs, attribute)


@pytest.mark.parametrize("name", sorted(PRIVATE_REASONS))
def test_a_deliberate_exception_exists_and_has_a_reason(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert getattr(loader.load(module), attribute) is not getattr(_import(module), attribute)
    assert PRIVATE_REASONS[name]


def test_every_error_is_the_applications_own() -> None:
    for name in ("pymongo.errors", "gridfs.errors", "bson.errors"):
        module = importlib.import_module(name)
        assert loader.load(name) is module if not name.startswith("bson") else True
        for attribute in dir(module):
            value = getattr(module, attribute)
            if inspect.isclass(value) and issubclass(value, Exception):
                seen = getattr(loader.load("pymongo.synchronous.collection"), attribute, value)
                assert seen is value


def test_bson_is_the_applications_own_for_the_driver() -> None:
    assert loader.load("pymongo.synchronous.collection").ObjectId is bson.ObjectId
    assert loader.load("pymongo.synchronous.mongo_client").CodecOptions is (
        importlib.import_module("bson.codec_options").CodecOptions
    )


def test_state_that_pymongo_binds_to_the_context_is_one() -> None:
    csot = importlib.import_module("pymongo._csot")
    with pymongo.timeout(5):
        assert loader.load("pymongo.synchronous.mongo_client")._csot.get_timeout() == 5
    assert loader.load("pymongo._csot") is csot


# -- nothing leaks ------------------------------------------------------------


def _is_shared(name: str) -> bool:
    return any(name == shared or name.startswith(shared + ".") for shared in SHARED)


class _Imports(ast.NodeVisitor):
    """Collects the modules of PyMongo's that a module imports when it runs."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            for each in node.orelse:
                self.visit(each)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.module is not None
        assert not node.level, "PyMongo imports by absolute names"
        submodules = {f"{node.module}.{alias.name}" for alias in node.names}
        modules = submodules & set(ALL)
        self.found |= modules
        if len(modules) < len(submodules):
            self.found.add(node.module)


def _source_of(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    origin = None if spec is None else spec.origin
    # Compiled modules hold no state; they are shared by their nature.
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _imports_of(name: str) -> set[str]:
    source = _source_of(name)
    if source is None:
        return set()
    visitor = _Imports()
    visitor.visit(ast.parse(source.read_text(encoding="utf-8")))
    return {each for each in visitor.found if each in ALL and _source_of(each)}


SHARED_MODULES = [n for n in ALL if _is_shared(n) and ".asynchronous" not in n]


def test_a_shared_module_imports_no_private_one() -> None:
    leaks = {
        (name, imported)
        for name in SHARED_MODULES
        for imported in _imports_of(name)
        if not _is_shared(imported)
    }
    assert leaks <= set(HARMLESS_IMPORTS), leaks - set(HARMLESS_IMPORTS)


def test_every_harmless_import_is_from_a_shared_module_to_a_private_one() -> None:
    for (name, imported), reason in HARMLESS_IMPORTS.items():
        assert _is_shared(name), name
        assert not _is_shared(imported), imported
        assert reason


@pytest.mark.parametrize("name", SHARED_MODULES)
def test_a_shared_module_holds_no_private_object(name: str) -> None:
    module = _import(name)
    green = {id(each) for each in _private_modules().values()}
    for value in vars(module).values():
        assert id(value) not in green
        if inspect.isclass(value) or inspect.isfunction(value):
            defined_in = _private_modules().get(value.__module__)
            assert defined_in is None or vars(defined_in).get(value.__name__) is not value


@pytest.mark.parametrize("name", SHARED_MODULES)
def test_a_shared_module_is_the_applications_own(name: str) -> None:
    if name in REPLACED:
        pytest.skip(REPLACED[name])
    assert loader.load(name) is _import(name)


@pytest.mark.parametrize("name", sorted(REPLACED))
def test_a_replaced_module_shows_the_applications_classes(name: str) -> None:
    ours, theirs = loader.load(name), _import(name)
    for attribute, value in vars(theirs).items():
        if inspect.isclass(value) and f"{name}.{attribute}" not in PRIVATE_REASONS:
            assert getattr(ours, attribute) is value


def _private_modules() -> dict[str, ModuleType]:
    loader.load("pymongo.synchronous.mongo_client")
    return {n: m for n, m in loader._loader.modules.items() if not _is_shared(n)}


def test_a_private_module_sees_the_applications_shared_objects() -> None:
    for module in _private_modules().values():
        for name, value in vars(module).items():
            home = getattr(value, "__module__", None)
            if inspect.isclass(value) and isinstance(home, str) and _is_shared(home):
                assert value is getattr(_import(home), value.__name__, value), name
