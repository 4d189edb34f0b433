"""Which event loop a client runs on.

A client is made where no loop runs. Its first operation binds it to the
running loop; on a later loop, and in a forked child, it opens itself anew.

Rule: one loop at a time. Two that are both running is an error that says so.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any

from motorlike.driver.client import MongoClient, reopen
from motorlike.driver.turns import Turns
from motorlike.errors import LoopMismatch
from motorlike.green.hub import GreenFuture, Hub, current_hub
from motorlike.request_map import current_owner

__all__ = ["Binding"]


class Binding:
    """The tie between one client and the loop that it runs on.

    Attributes:
        client: PyMongo's client, run green.
        loop: The loop it is bound to, ``None`` before the first operation.
    """

    __slots__ = ("_hub", "_lock", "_requests", "_turns", "client", "loop")

    def __init__(self, client: MongoClient) -> None:
        self.client = client
        self.loop: asyncio.AbstractEventLoop | None = None
        self._hub: Hub | None = None
        self._lock = threading.Lock()
        self._requests = client.requests
        self._turns = Turns(client)

    def hub(self) -> Hub:
        """Return the running loop's hub, bound to it from now on.

        Raises:
            RuntimeError: No event loop is running.
            LoopMismatch: The client's loop is another, and running too.
        """
        hub = self._hub
        if hub is not None and self.loop is _get_running_loop() and not hub.is_closed:
            return hub
        with self._lock:
            return self._bind()

    def spawn(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> GreenFuture[Any]:
        """Start an operation in a child greenlet, on behalf of the caller."""
        hub = self._hub
        if hub is None or self.loop is not _get_running_loop() or hub.is_closed:
            hub = self.hub()
        if not self._requests.is_used:
            return hub.spawn(function, args, kwargs)
        owner = current_owner()
        if owner is not None:
            self._requests.enter(owner)
        return hub.spawn(function, args, kwargs, owner)

    def spawn_in_turn(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        collection: Any,  # `Any`: PyMongo's
    ) -> GreenFuture[Any]:
        """Start an operation of *collection*'s, once there may be a connection for it.

        It names no session and no read preference.
        """
        hub = self._hub
        if (
            hub is not None
            and self._turns.has_line()
            and self.loop is _get_running_loop()
            and not hub.is_closed
        ):
            future = self._turns.enlist(hub, (function, args, kwargs), collection)
            if future is not None:
                return future
        return self.spawn(function, args, kwargs)

    @property
    def is_open_here(self) -> bool:
        """Whether the client is bound to the loop that is running."""
        hub = self._hub
        return hub is not None and self.loop is _get_running_loop() and not hub.is_closed

    def _bind(self) -> Hub:
        running = _get_running_loop()
        if running is None:
            raise RuntimeError(
                "no event loop is running: call and await the client's operations in a "
                "coroutine, such as one started by asyncio.run() or by a Tornado handler."
            )
        hub = current_hub()
        if self._hub is not None and self._hub is not hub:
            self._leave(self._hub, running)
        self.loop, self._hub = running, hub
        return hub

    def _leave(self, hub: Hub, running: asyncio.AbstractEventLoop) -> None:
        is_alive = not (hub.is_closed or hub.loop.is_closed())
        if is_alive and hub.loop.is_running():
            raise LoopMismatch(
                f"this client runs on {hub.loop!r}, which is running, and was used from "
                f"{running!r}. Make one client for each event loop."
            )
        reopen(self.client, loop_is_alive=is_alive)
