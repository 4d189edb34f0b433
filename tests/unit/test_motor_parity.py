"""Every public class and member of the installed Motor is here, of the same kind.

Compared are names, kinds (a plain call, something to be awaited, a property,
an async iterator, an async context manager) and parameters, for both families.

Rule: a deliberate difference stands in `DIFFERENCES`, with its reason, and in
`docs/migration.md`.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import motorlike
from motorlike.declare import Async, Wrapper

core = pytest.importorskip("motor.core")
motor = importlib.import_module("motor")

FAMILIES = {
    "": ("motor.motor_tornado", "motorlike.motor_tornado"),
    "AsyncIO": ("motor.motor_asyncio", "motorlike.motor_asyncio"),
}

NOT_PUBLIC = "users get these from other objects, and never make one"

# By class, without "AsyncIO", and member.
DIFFERENCES: dict[tuple[str, str], str] = {
    ("MotorClient", "close"): "may be awaited, to know that nothing is left",
    ("MotorChangeStream", "__init__"): NOT_PUBLIC,
    ("MotorClientSession", "__init__"): NOT_PUBLIC,
    ("MotorCommandCursor", "__init__"): NOT_PUBLIC,
    ("MotorCursor", "__init__"): NOT_PUBLIC,
    ("MotorGridOutCursor", "__init__"): NOT_PUBLIC,
    ("MotorLatentCommandCursor", "__init__"): NOT_PUBLIC,
    ("MotorCollection", "__call__"): "calling one is a TypeError without it: it is not callable",
    ("MotorDatabase", "__call__"): "calling one is a TypeError without it: it is not callable",
    ("MotorChangeStream", "__enter__"): "`with` is Python's own TypeError",
    ("MotorChangeStream", "__exit__"): "`with` is Python's own TypeError",
    ("MotorClientEncryption", "__enter__"): "`with` is Python's own TypeError",
    ("MotorClientEncryption", "__exit__"): "`with` is Python's own TypeError",
    ("MotorClientSession", "__enter__"): "`with` is Python's own TypeError",
    ("MotorClientSession", "__exit__"): "`with` is Python's own TypeError",
}

# What Python itself gives every class says nothing about it.
_EVERYWHERE = set(dir(type("Empty", (), {}))) - {"__init__", "__eq__", "__hash__"}
_EVERYWHERE |= {"__class_getitem__", "__motor_class_name__", "__delegate_class__"}


def pairs() -> list[Any]:
    """Each class of Motor's, with the one here of the same name."""
    found = []
    for prefix, (theirs, ours) in FAMILIES.items():
        for name, cls in vars(importlib.import_module(theirs)).items():
            if inspect.isclass(cls) and name.startswith(f"{prefix}Motor"):
                own = getattr(importlib.import_module(ours), name, None)
                found.append(pytest.param(cls, own, id=name))
    return found


def plain_name(cls: type) -> str:
    return cls.__name__.removeprefix("AsyncIO")


def members(cls: type) -> list[str]:
    return [
        name
        for name in dir(cls)
        if name not in _EVERYWHERE and (name.startswith("__") or not name.startswith("_"))
    ]


def motor_kind(cls: Any, name: str) -> str:
    attribute = inspect.getattr_static(cls, name)
    if isinstance(attribute, property):
        if getattr(attribute.fget, "coroutine_annotation", False):
            return "awaitable property"
        # Motor hands on methods that do no I/O through a property.
        original = getattr(cls.__delegate_class__, name, None)
        return "call" if inspect.isroutine(original) else "property"
    if not inspect.isroutine(attribute):
        return "value"
    marks = ("is_async_method", "coroutine_annotation")
    if inspect.iscoroutinefunction(attribute) or any(hasattr(attribute, each) for each in marks):
        return "awaitable"
    return "call"


def own_kind(cls: type[Wrapper], name: str) -> str:
    attribute = inspect.getattr_static(cls, name, None)
    if attribute is None or (name in cls.__annotations__ and not callable(attribute)):
        # Set on each instance.
        return "property"
    if isinstance(attribute, property):
        returned = str(inspect.get_annotations(attribute.fget).get("return", ""))
        return "awaitable property" if returned.startswith("Future") else "property"
    if not inspect.isroutine(attribute):
        return "value"
    if isinstance(cls.__declarations__.get(name), Async) or inspect.iscoroutinefunction(attribute):
        return "awaitable"
    returned = str(inspect.get_annotations(attribute).get("return", ""))
    return "awaitable" if returned.startswith(("Future[", "Awaitable[")) else "call"


def has_member(cls: type, name: str) -> bool:
    # Not hasattr(): a class has its metaclass's `__call__` too.
    return any(name in vars(c) or name in inspect.get_annotations(c) for c in cls.__mro__)


def signature(cls: Any, name: str) -> inspect.Signature | None:
    attribute = inspect.getattr_static(cls, name)
    if isinstance(attribute, property):
        attribute = getattr(getattr(cls, "__delegate_class__", cls), name, None)
    if name == "__init__" and plain_name(cls) == "MotorClient":
        attribute = cls.__delegate_class__.__init__ if not issubclass(cls, Wrapper) else attribute
    if not inspect.isroutine(attribute):
        return None
    return inspect.signature(attribute)


def parameter_differences(theirs: inspect.Signature, ours: inspect.Signature) -> list[str]:
    """What a call that Motor takes would run into here."""
    found = []
    own = list(ours.parameters.values())
    takes_any = any(each.kind is each.VAR_POSITIONAL for each in own)
    takes_names = any(each.kind is each.VAR_KEYWORD for each in own)
    for index, (name, parameter) in enumerate(theirs.parameters.items()):
        if index == 0 or name.startswith("_"):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name not in ours.parameters:
            if not (takes_names or takes_any):
                found.append(f"{name} is missing")
            continue
        mine = ours.parameters[name]
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and own.index(mine) != index:
            found.append(f"{name} is at {own.index(mine)}, in Motor at {index}")
        if parameter.default is not parameter.empty and mine.default is mine.empty:
            found.append(f"{name} must be given")
    known = theirs.parameters
    extra = [n for n, p in ours.parameters.items() if n not in known and p.default is p.empty]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    accepts = any(each.kind in variadic for each in known.values())
    if not accepts:
        for name in extra[1:] if extra[:1] == ["self"] and "self" not in known else extra:
            if ours.parameters[name].kind not in variadic:
                found.append(f"{name} must be given, and Motor has no such parameter")
    return found


@pytest.mark.parametrize(("theirs", "ours"), pairs())
def test_class_is_here(theirs: type, ours: type | None) -> None:
    assert ours is not None
    assert ours.__name__ == theirs.__name__


def all_differences(theirs: type, ours: type[Wrapper]) -> dict[str, str]:
    """What differs, by member: it is missing, of another kind, or takes other arguments."""
    found = {}
    for name in members(theirs):
        if not has_member(ours, name):
            found[name] = "is missing"
        elif name.startswith("__") and name != "__init__":
            continue
        elif (kinds := (motor_kind(theirs, name), own_kind(ours, name)))[0] != kinds[1]:
            found[name] = f"is {kinds[0]} in Motor and {kinds[1]} here"
        elif hasattr(ours, name):
            wanted, given = signature(theirs, name), signature(ours, name)
            if wanted and given and (wrong := parameter_differences(wanted, given)):
                found[name] = ", ".join(wrong)
    return found


@pytest.mark.parametrize(("theirs", "ours"), pairs())
def test_members_kinds_and_parameters_are_the_same(theirs: type, ours: type[Wrapper]) -> None:
    found = all_differences(theirs, ours)
    expected = {member for name, member in DIFFERENCES if name == plain_name(theirs)}
    # Both ways: a difference that has gone leaves the table.
    assert {k: v for k, v in found.items() if k not in expected} == {}
    assert expected <= found.keys()


@pytest.mark.parametrize(("theirs", "ours"), pairs())
def test_what_is_awaited_is_a_future_or_a_coroutine(theirs: type, ours: type[Wrapper]) -> None:
    futures = [n for n, d in ours.__declarations__.items() if isinstance(d, Async)]
    for name in futures:
        returned = inspect.signature(getattr(ours, name)).return_annotation
        assert "Future[" in returned, name


@pytest.mark.parametrize(("theirs", "ours"), pairs())
def test_iterators_and_context_managers_are_the_same(theirs: type, ours: type) -> None:
    protocols = ("__aiter__", "__anext__", "__aenter__", "__aexit__", "__getitem__", "__getattr__")
    assert [each for each in protocols if hasattr(theirs, each) and not hasattr(ours, each)] == []


def test_client_takes_motors_arguments_and_its_own() -> None:
    shown = inspect.signature(motorlike.MotorClient.__init__).parameters
    original = inspect.signature(core.AgnosticClient.__delegate_class__.__init__).parameters
    assert [*original] == [each for each in shown if each not in ("io_loop", "auto_start_request")]
    assert shown["io_loop"].default is None


@pytest.mark.parametrize("family", FAMILIES)
def test_module_has_motors_names(family: str) -> None:
    theirs, ours = map(importlib.import_module, FAMILIES[family])
    assert set(theirs.__all__) <= set(ours.__all__)


@pytest.mark.parametrize("module", ["core", "motor_gridfs"])
def test_the_names_that_stand_for_both_families_are_there(module: str) -> None:
    theirs = vars(importlib.import_module(f"motor.{module}"))
    ours = importlib.import_module(f"motorlike.{module}")
    names = {
        each for each, cls in theirs.items() if getattr(cls, "__module__", "") == f"motor.{module}"
    }
    # What others inherit from is nobody's type hint.
    names = {each for each in names if each.startswith("Agnostic") and "Base" not in each}
    assert names == set(ours.__all__)
    for name in names:
        family_name = name.replace("Agnostic", "AsyncIOMotor")
        assert issubclass(getattr(motorlike.motor_asyncio, family_name), getattr(ours, name))


def test_package_has_motors_top_level_names() -> None:
    # motor's version is not motorlike's; a few of its modules are its own.
    own = {"motor_tornado", "motor_asyncio", "motor_common", "motor_gridfs", "core"}
    own |= {"docstrings", "frameworks", "metaprogramming", "tornado", "web", "aiohttp"}
    names = {name for name in vars(motor) if not name.startswith("_")} - own
    assert {name for name in names if not hasattr(motorlike, name)} == set()


@pytest.mark.parametrize("name", ["db", "a", "insertOne", "nope", "open_sync"])
def test_unknown_attributes_are_never_callable(name: str) -> None:
    client: Any = motorlike.MotorClient()
    for target in (client, client.db, client.db.items):
        assert not callable(getattr(target, name))
        with pytest.raises(TypeError, match=r"no method has the name .* not callable"):
            getattr(target, name)()
