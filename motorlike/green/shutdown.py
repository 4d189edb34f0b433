"""Learning that an event loop is about to close, without patching it.

Hubs use this to unwind their greenlets while the loop can still run.

Rule: nothing here keeps a loop open, or warns when it was closed otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

__all__ = ["Closeable", "ShutdownHook", "this_thread"]

_marks = threading.local()


def this_thread() -> object:
    """Return what stands for the running thread. Unlike its ident, it is never used again."""
    mark: object = vars(_marks).setdefault("mark", object())
    return mark


class Closeable(Protocol):
    """What a hub keeps until it ends, and then closes: its streams."""

    def close(self) -> None:
        """End all waiting with an error, and close the file descriptor."""

    def forget(self) -> None:
        """Close the descriptor alone, in a process that was forked."""


class ShutdownHook:
    """Calls *callback* once, when the running *loop* shuts down.

    `asyncio.run` closes all asynchronous generators before it closes the loop.
    The hook is one: the only notice that both asyncio and uvloop give.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._generator = _wait_for_close(callback)
        # Past that moment, as in the clean-up of an application's generator,
        # a new one would not be closed, only warned of.
        if getattr(loop, "_asyncgens_shutdown_called", False):
            return
        with contextlib.suppress(StopIteration, ResourceWarning):
            self._generator.__anext__().send(None)

    def finish(self) -> None:
        """Call the callback now, if it has not been called."""
        with contextlib.suppress(StopIteration):
            self._generator.aclose().send(None)


async def _wait_for_close(callback: Callable[[], None]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        callback()
