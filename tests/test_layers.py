"""The shape of the package: imports go down by floor, modules and functions stay small.

Reads the source of every module with `ast`; imports and runs none of it. The
floors are those of `docs/design.md`; a module that moves is moved in both.

Rule: a failure names the module, the line and the edge that broke the shape.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "motorlike"
SOURCES = sorted(PACKAGE.rglob("*.py"))

MODULE_LINES = 400
FUNCTION_LINES = 25

# A submodule stands on the floor of its nearest ancestor named here; the
# package's own name is left out, so that each of its rooms must be entered.
FLOORS = {
    "motorlike.errors": 0,
    "motorlike.heap": 0,
    "motorlike.later": 0,
    "motorlike.version": 0,
    "motorlike.green.hub": 0,
    "motorlike.green.readiness": 0,
    "motorlike.green.shutdown": 0,
    "motorlike.green.slice": 0,
    "motorlike.green.outbox": 0,
    "motorlike.green.results": 0,
    "motorlike.green.stream": 0,
    "motorlike.green.tls": 0,
    "motorlike.green.worker": 0,
    "motorlike.green": 1,
    "motorlike.request_map": 1,
    "motorlike.pool": 1,
    "motorlike.driver": 2,
    "motorlike.declare": 3,
    "motorlike.ahead": 3,
    "motorlike.batches": 3,
    "motorlike.generators": 3,
    "motorlike.pace": 3,
    "motorlike.libraries": 3,
    "motorlike.loops": 3,
    "motorlike.wrappers": 4,
    "motorlike.conditional": 5,
    "motorlike.web": 5,
    "motorlike.aiohttp": 5,
    "motorlike.install": 5,
    "motorlike.motor_tornado": 5,
    "motorlike.motor_gridfs": 5,
    "motorlike.core": 5,
    "motorlike.motor_asyncio": 5,
    "motorlike.testing": 5,
    "motorlike.demo": 5,
    "motorlike.__main__": 5,
}
PUBLIC_FACE = 5

# These rooms serve any driver, so they know none.
DRIVER_FREE = ("motorlike.green", "motorlike.pool", "motorlike.request_map")
DRIVER_PACKAGES = {"bson", "gridfs", "motor", "pymongo"}

# The server launcher is used where the rest of motorlike may be broken.
LAUNCHER = "motorlike.testing"
LAUNCHER_MAY_IMPORT = {LAUNCHER, "motorlike.errors", "pymongo", "cryptography"}


@dataclass(frozen=True)
class Edge:
    """One import: who imports what, and on which line."""

    importer: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line}: {self.importer} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def is_inside(module: str, ancestor: str) -> bool:
    return module == ancestor or module.startswith(ancestor + ".")


def floor_of(module: str) -> int | None:
    """The floor of *module*; ``None`` for a room that nobody gave one."""
    if module == "motorlike":
        return PUBLIC_FACE
    while "." in module:
        if module in FLOORS:
            return FLOORS[module]
        module = module.rpartition(".")[0]
    return None


def absolute_base(node: ast.ImportFrom, importer: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    anchor = importer.split(".")
    depth = node.level - is_package
    anchor = anchor[: len(anchor) - depth]
    return ".".join([*anchor, node.module] if node.module else anchor)


def imported_from(node: ast.ImportFrom, edge_from: str, is_package: bool) -> Iterator[str]:
    base = absolute_base(node, edge_from, is_package)
    for alias in node.names:
        submodule = f"{base}.{alias.name}"
        yield submodule if submodule in MODULES else base


def edges(source: str, importer: str, is_package: bool = False) -> list[Edge]:
    """Every import in *source*, also those inside functions and for types only."""
    found: set[Edge] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(Edge(importer, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            targets = imported_from(node, importer, is_package)
            found.update(Edge(importer, target, node.lineno) for target in targets)
    return sorted(found, key=lambda edge: (edge.line, edge.target))


def edges_of(module: str) -> list[Edge]:
    path = MODULES[module]
    return edges(path.read_text(), module, is_package=path.name == "__init__.py")


def upward(found: list[Edge]) -> list[str]:
    wrong = []
    for edge in found:
        if not is_inside(edge.target, "motorlike"):
            continue
        here, there = floor_of(edge.importer), floor_of(edge.target)
        if here is None or there is None or there > here:
            wrong.append(f"{edge} (floor {here} -> floor {there})")
    return wrong


def into_drivers(found: list[Edge]) -> list[str]:
    return [str(edge) for edge in found if edge.target.partition(".")[0] in DRIVER_PACKAGES]


def beyond_launcher(found: list[Edge]) -> list[str]:
    return [
        str(edge)
        for edge in found
        if edge.target.partition(".")[0] not in sys.stdlib_module_names
        and not any(is_inside(edge.target, allowed) for allowed in LAUNCHER_MAY_IMPORT)
    ]


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no blanks, comments or docstrings."""
    skipped = {
        tokenize.COMMENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
        tokenize.INDENT,
        tokenize.NEWLINE,
        tokenize.NL,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(source)


def docstring_lines(source: str) -> set[int]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def long_functions(source: str) -> list[str]:
    # Bodies only: a signature that mirrors another library's is as long as
    # that one is, at one parameter per line.
    lines = code_lines(source)
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            size = len(lines & set(range(node.body[0].lineno, last + 1)))
            if size >= FUNCTION_LINES:
                found.append(f"line {node.lineno}: {node.name}() has {size} lines of code")
    return found


def inside(*rooms: str) -> list[str]:
    return [name for name in MODULES if any(is_inside(name, room) for room in rooms)]


def test_the_package_is_found() -> None:
    assert "motorlike" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_module_has_a_floor(module: str) -> None:
    assert floor_of(module) is not None, f"enter {module} in FLOORS and in docs/design.md"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_by_floor(module: str) -> None:
    found = upward(edges_of(module))
    assert not found


@pytest.mark.parametrize("module", inside(*DRIVER_FREE))
def test_rooms_for_any_driver_import_none(module: str) -> None:
    found = into_drivers(edges_of(module))
    assert not found


@pytest.mark.parametrize("module", inside(LAUNCHER))
def test_server_launcher_stands_alone(module: str) -> None:
    found = beyond_launcher(edges_of(module))
    assert not found


@pytest.mark.parametrize("module", MODULES)
def test_module_is_short(module: str) -> None:
    lines = MODULES[module].read_text().count("\n")
    assert lines < MODULE_LINES


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str) -> None:
    found = long_functions(MODULES[module].read_text())
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "import motorlike.driver.pool",
        "from motorlike.driver.pool import Pool",
        "from ..driver import pool",
        "from motorlike import MotorClient",
        "def later():\n    import motorlike.wrappers.client",
        "from motorlike.room_without_a_floor import anything",
    ],
)
def test_an_upward_import_is_caught(line: str) -> None:
    assert upward(edges(line, "motorlike.green.importer"))


@pytest.mark.parametrize(
    "line",
    [
        "import socket",
        "from . import socket",
        "from .socket import socket",
        "from motorlike.errors import NotInGreenlet",
        "import pymongo.pool",
    ],
)
def test_a_level_or_downward_import_is_not_caught(line: str) -> None:
    assert not upward(edges(line, "motorlike.green.importer"))


def test_relative_imports_of_a_package_start_at_itself() -> None:
    (edge,) = edges("from .pool import Pool", "motorlike.driver", is_package=True)
    assert edge.target == "motorlike.driver.pool"


def test_a_driver_in_the_green_layer_is_caught() -> None:
    assert into_drivers(edges("from pymongo.errors import PyMongoError", "motorlike.green.hub"))


def test_a_launcher_that_needs_the_client_is_caught() -> None:
    assert beyond_launcher(edges("from motorlike.green import hub", LAUNCHER))
    assert beyond_launcher(edges("import tornado.ioloop", LAUNCHER))
    assert not beyond_launcher(edges("import pymongo, subprocess", LAUNCHER))


def test_only_code_counts_towards_the_length_of_a_function() -> None:
    padding = "    # a comment\n\n" * FUNCTION_LINES
    body = "    x = 1\n" * (FUNCTION_LINES - 1)
    source = f'def f():\n    """One.\n\n    Two.\n    """\n{padding}{body}'
    assert not long_functions(source)
    assert long_functions(source + "    x = 2\n")
