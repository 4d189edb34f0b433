"""What the frames of a child greenlet say: which operation it is, what it waits in.

`green.trace` reads them at each switch, its watchdog when the loop is held.

Rule: frames are read and let go. A local variable is looked at only in a frame
of a stand-in's: it may be copied into the frame, and would live as long.
"""

from __future__ import annotations

import inspect
import itertools
import linecache
import sys
from collections.abc import Callable
from operator import itemgetter
from pathlib import PurePath
from types import FrameType
from typing import Any

__all__ = ["Stack", "location", "operation", "routine", "stack_of", "stack_of_thread", "waits_in"]

# The frames of one greenlet, the outermost first, without the worker's own.
Stack = list[FrameType]

_GREEN = "motorlike.green"
# What lies between a wrapper's method and PyMongo's.
_BETWEEN = (_GREEN, *(f"motorlike.{room}" for room in ("declare", "driver", "pool", "wrappers")))
_PASSES_ALL_ON = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
# Stand-ins without an object, whose first argument tells most.
_TELLING = {"create_connection", "getaddrinfo", "gethostbyname", "sleep"}


def stack_of(frame: FrameType | None) -> Stack:
    """Return the stack whose innermost frame is *frame*."""
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return _without_worker(stack)


def stack_of_thread(thread: int) -> Stack:
    """Return the stack that the thread with this identifier runs now."""
    stack: Stack = []
    # One call, all of it in C: were the thread to switch greenlets half-way,
    # the rest of the chain would lead through memory that is another's by now.
    current = map(itemgetter(thread), itertools.starmap(sys._current_frames, [()]))
    walk = itertools.accumulate(itertools.chain(current, itertools.repeat("f_back")), getattr)
    try:
        stack.extend(walk)
    except (AttributeError, KeyError):
        # The end of the chain is None, which has no `f_back`; or the thread ended.
        del stack[-1:]
    return _without_worker(stack)


def _without_worker(stack: Stack) -> Stack:
    while stack and _is_in(stack[-1], _GREEN) and _name(stack[-1]).startswith("Worker."):
        stack.pop()
    stack.reverse()
    return stack


def operation(stack: Stack) -> str | None:
    """Return the name of the function that was spawned; ``None`` if there is none.

    For an operation of a wrapper's it is PyMongo's name, `Collection.insert_one`.
    """
    frames = [frame for frame in stack if not _is_in(frame, *_BETWEEN)] or stack
    for frame in frames:
        if not _is_decorators(frame):
            return _name(frame)
    return _name(frames[0]) if frames else None


def routine(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Return the name of what ``function(*args)`` is going to run."""
    for each in (function, *args):
        if inspect.isroutine(each) and not _is_between(getattr(each, "__module__", None)):
            return each.__qualname__
    return str(getattr(function, "__qualname__", function))


def waits_in(stack: Stack) -> str:
    """Return the stand-in's call in which a suspended greenlet waits, and from where."""
    outside = [index for index, frame in enumerate(stack) if not _is_in(frame, _GREEN)]
    called = stack[outside[-1] + 1 :] if outside else stack
    call = _describe(called[0]) if called else _source(stack[-1])
    return f"{call} at {location(stack[outside[-1]])}" if outside else call


def location(frame: FrameType) -> str:
    """Return the file, with its folder, and the line."""
    path = PurePath(frame.f_code.co_filename)
    return f"{'/'.join(path.parts[-2:])}:{frame.f_lineno}"


def _describe(frame: FrameType) -> str:
    name = _name(frame).replace(".__enter__", ".acquire")
    arguments = frame.f_code.co_varnames
    if name in _TELLING:
        return f"{name}({frame.f_locals[arguments[0]]!r})"
    if arguments[:1] == ("self",):
        return name + _peer(frame.f_locals)
    return name


def _peer(variables: Any) -> str:
    # `Any`: a mapping, of whatever a stand-in's method has.
    try:
        address = variables["self"].getpeername()
    except AttributeError:
        return ""
    except OSError:
        address = variables.get("address", "")
    if isinstance(address, tuple):
        address = ":".join(map(str, address[:2]))
    return f" on {address}" if address else ""


def _source(frame: FrameType) -> str:
    # The stand-in has no frame: it is compiled. The caller's text names it.
    code = frame.f_code
    positions = next(itertools.islice(code.co_positions(), frame.f_lasti // 2, None))
    first, last, start, end = positions
    line = linecache.getline(code.co_filename, frame.f_lineno).encode()
    if first != last or start is None or end is None:
        start, end = 0, len(line)
    return line[start:end].decode(errors="replace").strip() or _name(frame)


def _is_decorators(frame: FrameType) -> bool:
    code = frame.f_code
    passes_all_on = code.co_flags & _PASSES_ALL_ON == _PASSES_ALL_ON
    return passes_all_on and "<locals>" in code.co_qualname and bool(code.co_freevars)


def _name(frame: FrameType) -> str:
    return frame.f_code.co_qualname


def _is_between(module: object) -> bool:
    return isinstance(module, str) and _is_inside(module, _BETWEEN)


def _is_in(frame: FrameType, *rooms: str) -> bool:
    return _is_inside(frame.f_globals.get("__name__", ""), rooms)


def _is_inside(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)
