"""Loading unmodified packages, and leaving everything else as it was."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import socket as stdlib_socket
import sys
import textwrap
import threading as stdlib_threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from motorlike.errors import BlockingExtension
from motorlike.green import importer, socket, threading, time
from motorlike.green.importer import Loader, load


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write a package `mine` of the given modules, by path, and make it importable."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files: str) -> None:
        for name, source in {"__init__": "", **files}.items():
            path = tmp_path / "mine" / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()

    yield write  # type: ignore[misc]  # a generator, for the clean-up
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def test_stand_ins_apply_to_every_form_of_import(package: Any) -> None:
    package(
        forms="""
        import socket
        import threading as thr
        from time import sleep, monotonic
        def inside():
            import socket
            from threading import Lock
            return socket, Lock
        module = socket
        from socket import *
        star = (AF_INET, create_connection)
        """
    )
    forms = load("mine.forms")
    assert forms.module is socket
    assert forms.thr is threading
    assert forms.sleep is time.sleep
    assert forms.inside() == (socket, threading.Lock)
    assert forms.star == (stdlib_socket.AF_INET, socket.create_connection)


def snapshot() -> tuple[Any, ...]:
    return (
        dict(sys.modules),
        *[dict(vars(module)) for module in (stdlib_socket, stdlib_threading, importlib)],
        list(sys.meta_path),
        list(sys.path),
        __builtins__ if isinstance(__builtins__, dict) else dict(vars(__builtins__)),
    )


def test_relative_imports(package: Any) -> None:
    package(
        one="from . import two\nfrom .two import value\nfrom .sub import three\n",
        two="value = 2",
        sub__in____init__="",
        sub__in__three="from .. import two\nfrom ..two import value as again\nfrom . import four",
        sub__in__four="here = __name__",
    )
    one = load("mine.one")
    assert one.value == one.three.again == 2
    assert one.two is one.three.two
    assert one.three.four.here == "mine.sub.four"


def test_importing_beyond_the_top_is_an_import_error(package: Any) -> None:
    package(one="from ... import two")
    with pytest.raises(ImportError, match="beyond top-level"):
        load("mine.one")


def test_the_forms_of_import_with_dots(package: Any) -> None:
    package(
        sub__in____init__="",
        sub__in__deep="x = 1",
        one="""
        import mine.sub.deep
        import mine.sub.deep as deep
        from mine import sub
        from mine.sub import deep as again
        from mine.sub.deep import x
        """,
    )
    loader = Loader({"mine"})
    one = loader.load("mine.one")
    assert one.mine is loader.load("mine")
    assert one.mine.sub.deep is one.deep is one.again is one.sub.deep
    assert one.x == 1
    assert "mine" not in sys.modules


def test_star_imports_take_what_all_names_also_submodules(package: Any) -> None:
    package(
        sub__in____init__="__all__ = ['part', 'name']\nname = 1\nhidden = 2",
        sub__in__part="x = 1",
        plain="public = 1\n_private = 2",
        one="from .sub import *\nfrom .plain import *",
    )
    one = load("mine.one")
    assert one.part.x == one.name == one.public == 1
    assert not hasattr(one, "hidden")
    assert not hasattr(one, "_private")


def test_circular_imports_find_the_green_module(package: Any) -> None:
    """In every form: the half that is still executed is our own, too."""
    package(
        __init__="from mine import a",
        a="from . import b\nfrom mine import b as b2\nimport mine.b as b3\nx = 1",
        b="""
        import mine.a as a1
        from . import a as a2
        from mine import a as a3
        def later():
            from .a import x
            return x
        """,
    )
    importlib.import_module("mine")  # the application's own, which must not be found
    loader = Loader({"mine"})
    b = loader.load("mine.b")
    a = loader.load("mine.a")
    assert {id(each) for each in (b.a1, b.a2, b.a3)} == {id(a)}
    assert {id(each) for each in (a.b, a.b2, a.b3)} == {id(b)}
    assert b.later() == 1
    assert sys.modules["mine.a"] is not a


def test_each_module_is_executed_once(package: Any) -> None:
    package(one="from . import two\nimport mine.two", two="made = object()")
    loader = Loader({"mine"})
    assert loader.load("mine.one").two is loader.load("mine.two")
    assert loader.load("mine.two") is loader.load("mine.two")


def test_the_application_keeps_its_own_copy(package: Any) -> None:
    package(one="import socket\nclass Thing: pass")
    before = snapshot()
    green = load("mine.one")
    assert snapshot() == before
    own = importlib.import_module("mine.one")
    assert own is not green
    assert own.socket is stdlib_socket
    assert own.Thing is not green.Thing
    before = snapshot()
    load("mine.one")
    assert snapshot() == before
    assert sys.modules["mine.one"] is own


def test_shared_modules_are_the_applications_own(package: Any) -> None:
    package(
        errors="class Error(Exception): pass",
        sub__in____init__="",
        sub__in__values="class Value: pass",
        one="from .errors import Error\nfrom .sub.values import Value\nfrom . import errors",
    )
    green = load("mine.one", shared=["mine.errors", "mine.sub"])
    errors = importlib.import_module("mine.errors")
    values = importlib.import_module("mine.sub.values")
    assert green.errors is errors
    assert green.Error is errors.Error
    assert green.Value is values.Value


def test_shared_may_be_a_function(package: Any) -> None:
    package(errors="x = object()", one="from . import errors")
    green = load("mine.one", shared=lambda name: name.endswith("errors"))
    assert green.errors is importlib.import_module("mine.errors")


def test_what_is_below_a_shared_module_is_shared_too(package: Any) -> None:
    """A green child would have to be set on the application's own package."""
    package(sub__in____init__="", sub__in__part="", one="from .sub import part")
    green = load("mine.one", shared=lambda name: name == "mine.sub")
    assert green.part is importlib.import_module("mine.sub.part")


def test_compiled_modules_are_shared() -> None:
    pymongo = pytest.importorskip("pymongo")
    if not pymongo.has_c():
        pytest.skip("PyMongo without its extensions")
    loader = Loader({"bson"})
    green = loader.load("bson")
    own = importlib.import_module("bson")
    assert green is not own
    assert green._cbson is own._cbson


def test_stand_ins_of_ones_own(package: Any) -> None:
    stand_in = ModuleType("stand_in")
    package(
        one="""
        import json
        import xml.dom.minidom
        import xml.dom.minidom as minidom
        from xml.dom import minidom as again
        from xml import dom
        import xml.dom
        import xml.sax
        from xml.dom import Node
        deep = xml.dom.minidom
        sax = xml.sax
        """
    )
    before = snapshot()
    importlib.import_module("xml.sax")
    importlib.import_module("xml.dom")
    before = snapshot()
    loader = Loader(
        {"mine"}, stand_ins={"json": "motorlike.green.time", "xml.dom.minidom": stand_in}
    )
    one = loader.load("mine.one")
    assert one.json is time
    forms = [one.deep, one.minidom, one.again, one.dom.minidom, one.xml.dom.minidom]
    assert all(each is stand_in for each in forms)
    assert one.sax is importlib.import_module("xml.sax")
    assert one.Node is importlib.import_module("xml.dom").Node
    assert snapshot() == before


def test_import_module_inside_a_loaded_package_loads_green(package: Any) -> None:
    package(
        two="x = 1",
        one="""
        import importlib
        import importlib.util
        from importlib import import_module
        two = importlib.import_module("mine.two")
        again = import_module(".two", __package__)
        socket = import_module("socket")
        json = import_module("json")
        find_spec = importlib.util.find_spec
        """,
    )
    before = snapshot()
    loader = Loader({"mine"})
    one = loader.load("mine.one")
    assert one.two is one.again is loader.load("mine.two")
    assert one.socket is socket
    assert one.json is importlib.import_module("json")
    assert one.find_spec is importlib.util.find_spec
    assert snapshot() == before


def test_dunder_import_loads_green(package: Any) -> None:
    package(two="x = 1", one="top = __import__('mine.two')\nsock = __import__('socket')")
    loader = Loader({"mine"})
    one = loader.load("mine.one")
    assert one.top is loader.load("mine")
    assert one.sock is socket


def test_a_missing_module_is_named(package: Any) -> None:
    package(one="from . import missing", two="import mine.gone", three="import no_such_module")
    with pytest.raises(ImportError, match="cannot import name 'missing'"):
        load("mine.one")
    for name, missing in (("mine.two", "mine.gone"), ("mine.three", "no_such_module")):
        with pytest.raises(ModuleNotFoundError) as caught:
            load(name)
        assert caught.value.name == missing
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        load("nowhere_at_all")


def test_an_error_inside_a_submodule_is_not_taken_for_its_absence(package: Any) -> None:
    package(one="from . import two", two="import no_such_module")
    with pytest.raises(ModuleNotFoundError) as caught:
        load("mine.one")
    assert caught.value.name == "no_such_module"


def test_optional_imports_may_fail(package: Any) -> None:
    package(
        one="""
        try:
            import no_such_module
        except ImportError:
            no_such_module = None
        try:
            from . import missing
        except ImportError:
            missing = None
        """
    )
    one = load("mine.one")
    assert one.no_such_module is one.missing is None


def test_a_module_that_failed_is_executed_anew(package: Any, tmp_path: Path) -> None:
    package(one="from . import two", two="raise RuntimeError('not yet')")
    loader = Loader({"mine"})
    for name in ("mine.one", "mine.two"):
        with pytest.raises(RuntimeError, match="not yet"):
            loader.load(name)
        assert name not in loader.modules
    assert not hasattr(loader.load("mine"), "two")
    package(two="x = 1", one="from . import two")
    # Of another size, so that the compiled file is not taken.
    assert loader.load("mine.one").two.x == 1


def test_namespace_packages_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "spaced").mkdir()
    (tmp_path / "spaced" / "leaf.py").write_text("import socket")
    assert load("spaced.leaf").socket is socket


def test_packages_installed_for_editing_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found by a finder of their own, not on the path."""
    import importlib.util

    source = tmp_path / "elsewhere.py"
    source.write_text("import socket")

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name == "edited":
                return importlib.util.spec_from_file_location(name, source)
            return None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert load("edited").socket is socket


def test_several_packages_load_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "left.py").write_text("import right")
    (tmp_path / "right.py").write_text("import socket")
    left, right = load("left", "right")
    assert left.right is right
    assert right.socket is socket


def test_load_wants_a_name() -> None:
    with pytest.raises(TypeError, match="at least one"):
        load()


def test_code_that_cannot_be_executed_is_an_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            return importlib.machinery.ModuleSpec(name, Odd()) if name == "odd" else None

    class Odd:
        create_module = staticmethod(lambda spec: None)
        exec_module = staticmethod(lambda module: None)

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    with pytest.raises(ImportError, match="no Python code"):
        load("odd")


def test_another_thread_never_sees_half_a_module(package: Any, script: Any) -> None:
    package(
        one="""
        import hooks
        hooks.begun.set()
        hooks.may_end.wait(10)
        x = 1
        """
    )
    hooks: Any = ModuleType("hooks")
    hooks.begun, hooks.may_end = stdlib_threading.Event(), stdlib_threading.Event()
    loader = Loader({"mine"}, stand_ins={"hooks": hooks})
    first = script(loader.load, "mine.one")
    assert hooks.begun.wait(10)
    second = script(loader.load, "mine.one")
    hooks.may_end.set()
    assert first.end().x == second.end().x == 1


def test_the_stand_ins_are_green_modules() -> None:
    for name, stand_in in importer.STAND_INS.items():
        module = importlib.import_module(stand_in)
        assert module.__name__ == f"motorlike.green.{name}"
        assert module is not importlib.import_module(name)


# -- extension modules --------------------------------------------------------


@pytest.fixture
def compiled(package: Any, tmp_path: Path) -> str:
    """Write a package `mine` with the extension module `mine.speedups`, a harmless one."""
    spec = importlib.util.find_spec("tornado.speedups")
    assert spec is not None
    assert spec.origin is not None
    package(one="from . import speedups", fallback=FALLBACK)
    shutil.copy(spec.origin, tmp_path / "mine")
    # As a module of no package, too.
    shutil.copy(spec.origin, tmp_path)
    return "mine.speedups"


FALLBACK = """
try:
    from . import speedups
except ImportError:
    speedups = None
"""


@pytest.fixture
def calling(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the extension modules of the packages `mine` seem to make socket calls."""
    asked: list[str] = []

    def socket_calls(path: str) -> tuple[str, ...]:
        asked.append(path)
        return ("connect", "recv in libdb.so.1")

    monkeypatch.setattr(importer, "socket_calls", socket_calls)
    return asked


def test_harmless_extension_modules_are_listed(
    compiled: str, caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader({"mine"})
    with caplog.at_level("DEBUG", logger="motorlike.green.importer"):
        one = loader.load("mine.one")
    assert one.speedups is sys.modules[compiled]
    assert loader.extensions == [compiled]
    assert f"extension module {compiled}, its socket calls: none" in caplog.text


def test_an_extension_module_that_calls_sockets_is_refused_by_name(
    compiled: str, calling: list[str]
) -> None:
    with pytest.raises(BlockingExtension) as caught:
        load("mine.one")
    assert (caught.value.name, caught.value.calls) == (compiled, ("connect", "recv in libdb.so.1"))
    for part in (compiled, "connect, recv in libdb.so.1", "offload", f"extensions=['{compiled}']"):
        assert part in str(caught.value)
    assert [Path(path).name.partition(".")[0] for path in calling] == ["speedups"]


@pytest.mark.usefixtures("calling")
def test_a_package_that_is_itself_an_extension_module_is_refused(compiled: str) -> None:
    with pytest.raises(BlockingExtension, match=compiled):
        load(compiled)


@pytest.mark.usefixtures("calling")
@pytest.mark.parametrize("statement", ["import speedups", "from speedups import websocket_mask"])
def test_a_binding_beside_its_package_is_refused(
    compiled: str, package: Any, statement: str
) -> None:
    """Such as `_pylibmc`, which `pylibmc` imports."""
    package(one=statement)
    try:
        with pytest.raises(BlockingExtension) as caught:
            load("mine.one")
    finally:
        sys.modules.pop("speedups", None)
    assert caught.value.name == "speedups"


@pytest.mark.usefixtures("calling")
def test_a_package_with_a_fallback_in_pure_python_takes_it(compiled: str) -> None:
    loader = Loader({"mine"})
    assert loader.load("mine.fallback").speedups is None
    assert loader.extensions == []


@pytest.mark.usefixtures("calling")
@pytest.mark.parametrize("declared", ["mine.speedups", "mine"])
def test_a_declared_extension_module_is_used(compiled: str, declared: str) -> None:
    assert load("mine.one", extensions=[declared]).speedups is sys.modules[compiled]


@pytest.mark.usefixtures("compiled")
def test_of_shared_modules_nothing_is_asked(calling: list[str]) -> None:
    load("mine.one", shared=["mine.speedups"])
    assert calling == []


def test_extension_modules_of_the_standard_library_are_not_asked_about(
    package: Any, calling: list[str]
) -> None:
    package(one="import _socket\nimport math\nimport array\nfrom _struct import pack")
    load("mine.one")
    assert calling == []


def test_an_extension_module_known_to_call_sockets_is_refused() -> None:
    """Read from its file, nothing pretended: libuv is linked into it."""
    pytest.importorskip("uvloop")
    with pytest.raises(BlockingExtension, match="connect") as caught:
        load("uvloop")
    assert caught.value.name == "uvloop.loop"


@pytest.mark.parametrize("library", ["bson", "pymongo", "gridfs"])
def test_the_drivers_own_extension_modules_are_accepted(library: str) -> None:
    pytest.importorskip("pymongo")
    assert load(library) is not None


# -- packages on others that were loaded before -------------------------------


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the packages `lower` and `upper`, which uses it."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, source in {
        "lower/__init__": "import socket",
        "lower/part": "from time import sleep",
        "lower/errors": "class Error(Exception): pass",
        "upper/__init__": "",
        "upper/forms": """
            import importlib
            import lower
            import lower.part
            import lower.part as leaf
            from lower import part, errors
            from lower.part import sleep
            named = importlib.import_module("lower.part")
            def later():
                from lower.errors import Error
                return Error
            """,
    }.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return tmp_path


def test_a_package_uses_another_that_was_loaded_green_before(layers: Path) -> None:
    lower = load("lower", shared=["lower.errors"])
    forms = load("upper.forms", using=[lower])
    assert forms.lower is lower
    assert forms.part is forms.leaf is forms.named is lower.part
    assert forms.part is not importlib.import_module("lower.part")
    assert forms.sleep is time.sleep
    assert forms.errors is importlib.import_module("lower.errors")
    assert forms.later() is forms.errors.Error


def test_without_it_the_application_s_own_is_used(layers: Path) -> None:
    assert load("upper.forms").lower is importlib.import_module("lower")


def test_a_stand_in_comes_before_a_package_that_is_used(layers: Path) -> None:
    stand_in = ModuleType("lower.part")
    stand_in.sleep = None  # type: ignore[attr-defined]  # not in a plain module
    lower = load("lower")
    loader = Loader({"upper"}, stand_ins={"lower.part": stand_in}, using=[lower])
    assert loader.load("upper.forms").leaf is stand_in


def test_only_green_packages_can_be_used(layers: Path) -> None:
    with pytest.raises(TypeError, match=r"Load it first: green.load\('lower'\)"):
        load("upper.forms", using=[importlib.import_module("lower")])
