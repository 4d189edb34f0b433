"""Read annotations from source files, and rewrite them to stand in a stub.

`generate_stubs` uses it.

Rule: modules are read with `ast`. Most of the names in annotations exist for
type checkers only, so running a module would not tell what they are.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import copy
import functools
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from motorlike.declare import Wrapper

__all__ = [
    "DRIVER",
    "WIDTH",
    "Annotations",
    "Imports",
    "Source",
    "StubError",
    "bracketed",
    "counterpart",
    "counterparts",
    "delegate_of",
    "find_original",
    "names_defined_by",
    "origin",
    "source",
]

WIDTH = 100

# Names that these import are followed to where they are defined: PyMongo moves
# its code between modules from one release to the next.
_FOLLOWED = {"bson", "gridfs", "motorlike", "pymongo"}
DRIVER = ("bson", "gridfs", "pymongo")

Origin = tuple[str, str]


class StubError(Exception):
    """A declaration and PyMongo's annotations contradict each other."""


class Source:
    """A module, read and not run: what it imports and what it defines."""

    def __init__(self, name: str) -> None:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            raise StubError(f"{name} has no Python source to read annotations from")
        self.tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        # By the name used here: a module, and a name in it, empty for itself.
        self.imports: dict[str, Origin] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = (node.module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    target = alias.name if alias.asname else alias.name.partition(".")[0]
                    self.imports[alias.asname or target] = (target, "")
        self.defined: dict[str, ast.stmt] = {}
        for statement in _flattened(self.tree.body):
            for name in names_defined_by(statement):
                self.defined.setdefault(name, statement)

    def class_body(self, name: str) -> list[ast.stmt]:
        node = self.defined.get(name)
        return node.body if isinstance(node, ast.ClassDef) else []

    @property
    def public(self) -> list[str]:
        node = self.defined.get("__all__")
        return list(ast.literal_eval(node.value)) if isinstance(node, ast.Assign) else []


source = functools.cache(Source)


def _flattened(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _flattened(node.body)
            yield from _flattened(node.orelse)
        else:
            yield node


def names_defined_by(node: ast.stmt) -> list[str]:
    """The names that a statement assigns, if it is a definition."""
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) else []
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    return []


def origin(module: str, name: str) -> Origin:
    """Where *name*, as seen in *module*, is defined; an empty name is the module itself."""
    if not name:
        return module, ""
    if module.partition(".")[0] in _FOLLOWED:
        here = source(module)
        if name in here.defined:
            return module, name
        if name in here.imports:
            return origin(*here.imports[name])
        if _is_module(f"{module}.{name}"):
            return f"{module}.{name}", ""
        if hasattr(builtins, name):
            return "builtins", name
        raise StubError(f"{module} uses {name!r}, which it neither defines nor imports")
    if module == "typing" and name in collections.abc.__all__:
        module = "collections.abc"
    return module, name


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def delegate_of(wrapper: type[Wrapper]) -> type:
    """The class of PyMongo's that *wrapper* stands for."""
    return original_of(wrapper.__delegate_class__)


def original_of(delegate: type) -> type:
    """The class of PyMongo's that *delegate* is, or that it is derived from."""
    mro = delegate.__mro__
    return next((c for c in mro if c.__module__.startswith(DRIVER)), mro[0])


def counterpart(wrapper: type[Wrapper]) -> type[Wrapper] | None:
    """The wrapper that *wrapper* stands for in a second family, if it is of one."""
    if wrapper.__wrappers__ is Wrapper.__wrappers__:
        return None
    return next((c for c in wrapper.__mro__ if c in Wrapper.__wrappers__.values()), None)


def counterparts(wrapper: type[Wrapper]) -> dict[Origin, type[Wrapper]]:
    """The family of *wrapper*, by where those are defined that its members stand for."""
    found = {counterpart(each): each for each in wrapper.__wrappers__.values()}
    return {(o.__module__, o.__name__): each for o, each in found.items() if o is not None}


def find_original(
    wrapper: type[Wrapper], name: str, *, pymongo_only: bool = False
) -> tuple[str, list[ast.stmt]]:
    """The module and the statements, more than one with overloads, that define *name*."""
    for cls in wrapper.__delegate_class__.__mro__:
        module = cls.__module__
        if module.startswith(DRIVER if pymongo_only else tuple(_FOLLOWED)):
            body = source(module).class_body(cls.__name__)
            if found := [node for node in body if name in names_defined_by(node)]:
                return module, found
    raise StubError(f"no source of {delegate_of(wrapper).__name__}.{name} was found")


class Imports:
    """What one stub imports, and which names of its own module it uses."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.local: set[str] = set()
        self._modules: dict[str, str] = {}
        self._aliases: dict[str, Origin] = {}

    def add(self, module: str, name: str) -> str:
        if module == self.module:
            self.local.add(name)
        elif module != "builtins" and self._modules.setdefault(name, module) != module:
            # Two modules' own: the second is known by its module, too.
            alias = f"{name}_of_{module.rpartition('.')[2]}"
            self._aliases[alias] = (module, name)
            return alias
        return name

    def lines(self) -> Iterator[str]:
        """Write them in ruff's order: standard library, others, motorlike's."""
        names: dict[tuple[int, str], list[str]] = {}
        for name, module in self._modules.items():
            top = module.partition(".")[0]
            group = 2 if top == "motorlike" else 0 if top in sys.stdlib_module_names else 1
            names.setdefault((group, module), []).append(name)
        for alias, (module, name) in self._aliases.items():
            names.setdefault((1, module), []).append(f"{name} as {alias}")
        last = -1
        for group, module in sorted(names):
            if group > last >= 0:
                yield ""
            last = group
            wanted = sorted(names[group, module], key=_import_order)
            yield from bracketed(f"from {module} import ", "()", wanted)


def _import_order(name: str) -> tuple[int, str]:
    bare = name.lstrip("_")
    return (0 if bare.isupper() else 1 if bare[:1].isupper() else 2, name)


class Annotations(ast.NodeTransformer):
    """Rewrites annotations of one module to stand in a stub.

    PyMongo's classes become their wrappers. All names are imported from where
    they are defined, and unions are written with ``|``.
    """

    def __init__(
        self,
        module: str,
        imports: Imports,
        wrapper: type[Wrapper] | None,
        replaced: Mapping[Origin, type[Wrapper]] | None = None,
    ) -> None:
        self.module = module
        self.imports = imports
        self.parameter = _parameter_of(wrapper) if wrapper else None
        registry = wrapper.__wrappers__ if wrapper else {}
        self.wrappers = {
            (original.__module__, original.__name__): w
            for delegate, w in registry.items()
            for original in (original_of(delegate),)
        }
        self.wrappers.update(replaced or {})
        self.wrapped: list[type[Wrapper]] = []

    def text(self, node: ast.expr) -> str:
        # A copy: a transformer changes what it visits, and a node is visited
        # once for each wrapper that inherits it.
        return ast.unparse(self.visit(copy.deepcopy(node)))

    def origin_of(self, node: ast.expr) -> Origin | None:
        """Where the name or dotted name *node* is defined."""
        if isinstance(node, ast.Name):
            return origin(self.module, node.id)
        if isinstance(node, ast.Attribute):
            base = self.origin_of(node.value)
            return origin(base[0], node.attr) if base and not base[1] else None
        return None

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._refer(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._refer(node)

    def _refer(self, node: ast.expr) -> ast.expr:
        found = self.origin_of(node)
        if found is None or not found[1]:
            raise StubError(f"{self.module}: cannot tell what {ast.unparse(node)} is")
        if wrapper := self.wrappers.get(found):
            self.wrapped.append(wrapper)
            found = (wrapper.__module__, wrapper.__name__)
        elif found == ("bson.typings", "_DocumentType") and self.parameter:
            found = self.parameter
        return ast.Name(self.imports.add(*found))

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str):
            quoted: ast.expr = self.visit(ast.parse(node.value, mode="eval").body)
            return quoted
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        found = self.origin_of(node.value)
        if found in {("typing", "Optional"), ("typing", "Union")}:
            members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            none = [ast.Constant(None)] if found == ("typing", "Optional") else []
            return _union([*(self.visit(member) for member in members), *none])
        value = self._refer(node.value)
        wrapper = self.wrappers.get(found) if found else None
        if wrapper is not None and not wrapper.__dict__.get("__parameters__"):
            return value
        kept = found == ("typing", "Literal")
        return ast.Subscript(value, node.slice if kept else self.visit(node.slice))


def _parameter_of(wrapper: type[Wrapper]) -> Origin:
    """What stands for PyMongo's document type in *wrapper*."""
    parameters = wrapper.__dict__.get("__parameters__", ())
    if not parameters:
        return "typing", "Any"
    return parameters[0].__module__, parameters[0].__name__


def _union(members: Sequence[ast.expr]) -> ast.expr:
    flat = ast.parse(" | ".join(ast.unparse(member) for member in members), mode="eval")
    return flat.body


def bracketed(start: str, brackets: str, items: Sequence[str], end: str = "") -> list[str]:
    """Lay out *items* as ruff does: on one line, on an inner line, or one a line."""
    is_import, is_definition = start.startswith("from"), start.lstrip().startswith(("def", "async"))
    opening, closing = ("", "") if is_import else tuple(brackets)
    line = f"{start}{opening}{', '.join(items)}{closing}{end}"
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(start) - len(start.lstrip()))
    inner = f"{indent}    {', '.join(items)}"
    body = [inner] if is_definition and len(inner) <= WIDTH else []
    body = body or [f"{indent}    {item}," for item in items]
    return [f"{start}{brackets[0]}", *body, f"{indent}{brackets[1]}{end}"]
