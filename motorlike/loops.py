"""Where a client's operations start when no event loop runs yet.

Motor's callers write ``loop.run_until_complete(client.server_info())`` and pass
``io_loop=``. Here a client belongs to whichever loop runs; only while none does,
a loop that was given, or set as the current one, is asked to start operations.

Rule: a loop that runs always comes first.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import tornado
from tornado.ioloop import IOLoop

from motorlike import driver

__all__ = ["AsyncIOLoops", "LaterBinding", "Loops", "TornadoLoops"]


class Loops(Protocol):
    """What a family of wrappers calls an event loop."""

    platform: ClassVar[str]

    @staticmethod
    def check(io_loop: Any) -> asyncio.AbstractEventLoop:
        """Return the asyncio loop of *io_loop*, or raise `TypeError`."""

    @staticmethod
    def current() -> Any:
        """Return the current loop."""


class TornadoLoops:
    """Tornado's: `tornado.ioloop.IOLoop`."""

    platform: ClassVar[str] = f"Tornado {tornado.version}"

    @staticmethod
    def check(io_loop: Any) -> asyncio.AbstractEventLoop:
        """Return the asyncio loop of *io_loop*, or raise `TypeError`."""
        loop = getattr(io_loop, "asyncio_loop", None)
        if not isinstance(io_loop, IOLoop) or not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"io_loop must be an instance of IOLoop, not {io_loop!r}")
        return loop

    @staticmethod
    def current() -> IOLoop:
        """Return the current loop."""
        return IOLoop.current()


class AsyncIOLoops:
    """asyncio's: `asyncio.AbstractEventLoop`."""

    platform: ClassVar[str] = "asyncio"

    @staticmethod
    def check(io_loop: Any) -> asyncio.AbstractEventLoop:
        """Return the asyncio loop of *io_loop*, or raise `TypeError`."""
        if not isinstance(io_loop, asyncio.AbstractEventLoop):
            raise TypeError(f"io_loop must be an asyncio event loop, not {io_loop!r}")
        return io_loop

    @staticmethod
    def current() -> asyncio.AbstractEventLoop:
        """Return the current loop."""
        return _get_running_loop() or asyncio.get_event_loop_policy().get_event_loop()


class LaterBinding(driver.Binding):
    """A client's binding which, where no loop runs, lets operations start later.

    Args:
        client: PyMongo's client, run green.
        given: The loop that the user gave for it.
    """

    __slots__ = ("given",)

    def __init__(self, client: Any, given: asyncio.AbstractEventLoop | None) -> None:
        super().__init__(client)
        self.given = given

    def hub(self) -> Any:
        """Return what starts operations now: the running loop's hub, or a stand-in."""
        if _get_running_loop() is None:
            for loop in (self.given, self.loop, _set_loop()):
                if loop is not None and not loop.is_closed() and not loop.is_running():
                    return _Later(self, loop)
        return super().hub()


class _Later:
    """Stands in for the hub of a loop that will run: its tasks start operations."""

    def __init__(self, binding: LaterBinding, loop: asyncio.AbstractEventLoop) -> None:
        self._binding = binding
        self.loop = loop

    def spawn(
        self, function: Callable[..., Any], args: Any, kwargs: Any, owner: Any = None
    ) -> asyncio.Task[Any]:
        return self.loop.create_task(self._run(function, args, kwargs))

    async def _run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return await self._binding.spawn(function, args, kwargs)


def _set_loop() -> asyncio.AbstractEventLoop | None:
    # asyncio.get_event_loop() would make one where none is set. Private, but
    # every Unix policy, uvloop's too, keeps it there.
    policy_state = getattr(asyncio.get_event_loop_policy(), "_local", None)
    loop: asyncio.AbstractEventLoop | None = getattr(policy_state, "_loop", None)
    return loop
