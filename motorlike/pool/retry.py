"""`retry`: tenacity's decorator, with green sleeping and sober defaults.

Rule: this module alone knows tenacity, and imports it when it is first used.
"""

from __future__ import annotations

import inspect
import time
from asyncio import _get_running_loop
from collections.abc import Callable
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, overload

from tornado.gen import is_coroutine_function

from motorlike import green

__all__ = ["retry"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def retry(function: Callable[P, T], /) -> Callable[P, T]: ...


# `Any`: tenacity's own options, which it checks.
@overload
def retry(
    *, on: type[Exception] | tuple[type[Exception], ...] = ..., attempts: int = ..., **options: Any
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...


def retry(
    function: Callable[..., Any] | None = None,
    /,
    *,
    on: type[Exception] | tuple[type[Exception], ...] = (OSError,),
    attempts: int = 5,
    **options: Any,
) -> Any:
    """Call again a function that failed for a reason that may pass.

    ``@retry`` and ``@retry(...)`` both decorate a synchronous function, which
    sleeps green between attempts, or a coroutine function. A connection should
    be reserved inside the function, so that each attempt gets one that works.

    Args:
        on: The exceptions after which to try again. Never a cancel.
        attempts: How often to try in all.
        options: tenacity's own: ``stop=``, ``wait=``, ``before_sleep=`` and
            the rest. ``retry=`` takes the place of *on*, ``stop=`` that of
            *attempts*. By default the waits grow from up to 0.1 s to up to 5 s,
            at random, and at the end the function's own error is raised.

    Raises:
        ImportError: tenacity is not installed.
    """
    tenacity = _tenacity()
    settings = {
        "retry": tenacity.retry_if_exception_type(on),
        "stop": tenacity.stop_after_attempt(attempts),
        "wait": tenacity.wait_random_exponential(multiplier=0.1, max=5),
        "reraise": True,
        **options,
    }

    def decorate(function: Callable[..., Any]) -> Any:
        # For coroutines tenacity has a sleep of its own, which it awaits.
        sleep = {} if _is_asynchronous(function) else {"sleep": _sleep}
        return tenacity.retry(**{**sleep, **settings})(function)

    return decorate if function is None else decorate(function)


def _tenacity() -> ModuleType:
    try:
        import tenacity
    except ImportError as exc:
        raise ImportError(
            "motorlike.pool.retry needs tenacity 9: pip install 'motorlike[retry]'"
        ) from exc
    return tenacity


# `Any`: any function.
def _is_asynchronous(function: Callable[..., Any]) -> bool:
    return (
        inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(type(function).__call__)
        or is_coroutine_function(function)
    )


def _sleep(seconds: float) -> None:
    # In a script, with no loop to hold up, the function may be called plainly.
    if _get_running_loop() is None:
        time.sleep(seconds)
    else:
        green.sleep(seconds)
