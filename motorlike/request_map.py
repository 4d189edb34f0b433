"""The greenlet-local request map: which connections belong to whom.

In place of thread-locals, a map keeps what a *socket request* holds by its
owner: the task that awaits operations, or in synchronous code run green the
callable that makes them. It knows no driver; a pool binds what it likes.

Rule: whatever is bound to a request is let go when the request ends, and a
request ends with its owner at the latest.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Hashable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary, finalize, ref

from greenlet import getcurrent

from motorlike.green.worker import Worker

__all__ = ["Held", "Holdings", "Request", "RequestMap", "current_owner"]

# A task, or the future of a callable that runs green.
Owner = asyncio.Future[Any]


class Held(Protocol):
    """What a request holds: a connection, say, to one server."""

    def release(self) -> None:
        """Give it back, at once or when its present use is over."""


def current_owner() -> Owner | None:
    """Return on whose behalf the running code works.

    In a child greenlet this is the task whose operation it runs, or else the
    callable itself; outside, the running task. A plain callback is nobody's.
    """
    worker = getcurrent()
    if isinstance(worker, Worker):
        future = worker.future
        return None if future is None else future.owner or future
    return None if _get_running_loop() is None else asyncio.current_task()


class Holdings:
    """What requests hold together: those of tasks that share, else one's own.

    Attributes:
        held: What is held, by what it is bound to.
        members: Where operations went, first ones first; they go there again.
            `Any`: a driver puts there what it likes.
        users: How many requests have not ended.
    """

    __slots__ = ("held", "members", "users")

    def __init__(self) -> None:
        self.held: dict[Hashable, Held] = {}
        self.members: list[Any] = []
        self.users = 0

    def leave(self) -> None:
        """Take one user off; the last one lets go of everything."""
        self.users -= 1
        while self.held and self.users <= 0:
            _, each = self.held.popitem()
            each.release()


class Request:
    """One socket request of one owner, and how deeply it is nested.

    Use it with ``with`` or ``async with``, or end it by `RequestMap.end`.

    Args:
        outer: The shared request of another task that the owner takes part
            in. A shared one joins it; after an exclusive one it goes on.
    """

    def __init__(
        self, requests: RequestMap, owner: Owner, shared: bool, outer: Request | None
    ) -> None:
        self._requests = requests
        self._owner = ref(owner)
        self.is_shared = shared
        self.outer = outer
        self.has_ended = False
        self.depth = 0
        self.holdings: Holdings = outer.holdings if shared and outer is not None else Holdings()
        self.holdings.users += 1
        owner.add_done_callback(self._end_with_owner)
        # A task that is collected before it is done tells nobody else.
        self._finalizer = finalize(owner, _end_soon, owner.get_loop(), self)
        self._finalizer.atexit = False

    def end(self) -> None:
        """Let go of everything, however deep the nesting. Idempotent."""
        if self.has_ended:
            return
        self.has_ended = True
        self._finalizer.detach()
        owner = self._owner()
        if owner is not None:
            owner.remove_done_callback(self._end_with_owner)
            self._requests._forget(owner)
        self.holdings.leave()

    def _end_with_owner(self, _: Owner) -> None:
        self.end()

    def __enter__(self) -> Request:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._requests._leave(self)

    async def __aenter__(self) -> Request:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._requests._leave(self)


def _end_soon(loop: asyncio.AbstractEventLoop, request: Request) -> None:
    # The collector may run this anywhere, inside a lock too: it only schedules.
    request.has_ended = True
    if not loop.is_closed():
        loop.call_soon_threadsafe(request.holdings.leave)


class RequestMap:
    """The requests of one client, by owner.

    Args:
        starts_by_itself: Whether each task gets a request at its first use.
    """

    def __init__(self, starts_by_itself: bool = False) -> None:
        self.starts_by_itself = starts_by_itself
        # Read for each operation: whether there is anything to look up.
        self.is_used = starts_by_itself
        self._by_owner: WeakKeyDictionary[Owner, Request] = WeakKeyDictionary()
        self._shared: ContextVar[Request | None] = ContextVar("shared_request", default=None)

    def start(self, *, shared: bool = False) -> Request:
        """Start a request for the caller, or nest one more in its present one.

        Args:
            shared: Let tasks that are started from here on take part.

        Raises:
            RuntimeError: Nobody's code is running: there is no task. Or the
                caller is in a request of the other kind.
        """
        owner = current_owner()
        if owner is None:
            raise RuntimeError(
                "a socket request belongs to a task or to a green callable, and neither is "
                "running. Call start_request() inside a coroutine or a green.spawn() callable."
            )
        self.is_used = True
        request = self._by_owner.get(owner)
        if request is None:
            request = self._new(owner, shared)
        elif request.is_shared != shared:
            raise _kinds_differ(request)
        request.depth += 1
        return request

    def _new(self, owner: Owner, shared: bool) -> Request:
        request = Request(self, owner, shared, self._shared_with_caller())
        self._by_owner[owner] = request
        if shared:
            self._shared.set(request)
        return request

    def end(self) -> None:
        """End the caller's innermost request. Ending none does nothing."""
        request = self._own(current_owner())
        if request is not None:
            self._leave(request)

    def current(self) -> Request | None:
        """Return the request that the caller is in, if any."""
        return self._own(current_owner()) or self._shared_with_caller()

    def _own(self, owner: Owner | None) -> Request | None:
        return None if owner is None else self._by_owner.get(owner)

    def _shared_with_caller(self) -> Request | None:
        request = self._shared.get()
        while request is not None and request.has_ended:
            request = request.outer
        return request

    def enter(self, owner: Owner) -> None:
        """Note that *owner* makes an operation: it may get a request by itself."""
        if not self.starts_by_itself or owner in self._by_owner:
            return
        if self._shared_with_caller() is None:
            self._new(owner, False).depth = 1

    def end_all(self, *, apart_from: asyncio.AbstractEventLoop | None = None) -> None:
        """End every request, apart from those on one loop."""
        for owner, request in list(self._by_owner.items()):
            if owner.get_loop() is not apart_from:
                request.end()

    def abandon_all(self, *, apart_from: asyncio.AbstractEventLoop | None = None) -> None:
        """Forget requests without giving anything back: the pools are gone."""
        for owner, request in list(self._by_owner.items()):
            if owner.get_loop() is not apart_from:
                request.holdings.held.clear()
                request.end()

    def _leave(self, request: Request) -> None:
        request.depth -= 1
        if request.depth <= 0:
            request.end()

    def _forget(self, owner: Owner) -> None:
        self._by_owner.pop(owner, None)


def _kinds_differ(present: Request) -> RuntimeError:
    kinds = ("a shared", "an exclusive") if present.is_shared else ("an exclusive", "a shared")
    return RuntimeError(
        f"this task is in {kinds[0]} socket request and cannot nest {kinds[1]} one in it. "
        "Call end_request() before."
    )
