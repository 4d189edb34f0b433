"""`async_unsafe` for a database backend that runs green.

Django guards the methods of its backends with this decorator: they would block
an event loop. A green backend blocks none while it runs in a greenlet, and the
guard here is the same but for that. `green_django.mysql.driver` gives it to
the backend in place of `django.utils.asyncio`.

Rule: on the loop itself the guard stands, as in Django.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.core.exceptions import SynchronousOnlyOperation

from motorlike import green

__all__ = ["async_unsafe"]

Method = TypeVar("Method", bound=Callable[..., Any])

_REMEDY = "Call it in a greenlet, as in `await green.spawn(function)`."


def async_unsafe(message: Any) -> Any:  # both forms of a decorator, as Django's
    """Let a method run in a greenlet or where no loop runs; refuse it on the loop.

    Raises:
        SynchronousOnlyOperation: By the method, where it is refused.
    """
    if callable(message):
        return _guarded(message, f"{message.__name__}() would block the event loop. {_REMEDY}")
    return lambda method: _guarded(method, f"{message} {_REMEDY}")


def _guarded(method: Method, message: str) -> Method:
    @wraps(method)
    def inner(*args: Any, **kwargs: Any) -> Any:
        if _is_on_loop():
            raise SynchronousOnlyOperation(message)
        return method(*args, **kwargs)

    return inner


def _is_on_loop() -> bool:
    if green.in_greenlet():
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
