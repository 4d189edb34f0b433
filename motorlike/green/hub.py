"""The hub that runs child greenlets on an event loop: `spawn`, `wait`, `sleep`.

The *hub* is the greenlet that runs the event loop. `spawn` starts a
synchronous callable in a child greenlet; where that must wait, a one-shot
`Waiter` switches to the hub, and the event that it waits for switches back.

Rule: only the hub switches into a child. A child that wakes another one puts
it in the hub's queue, so no greenlet ever resumes its starter by accident.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar, cast

from greenlet import getcurrent, greenlet

from motorlike.errors import LoopClosed, NotInGreenlet
from motorlike.green.outbox import Outbox
from motorlike.green.results import Results
from motorlike.green.shutdown import Closeable, ShutdownHook, this_thread
from motorlike.green.slice import Slice
from motorlike.green.worker import (
    Beginning,
    GreenFuture,
    Job,
    Waiter,
    Worker,
    current_worker,
)

__all__ = [
    "GreenFuture",
    "Hub",
    "Waiter",
    "current_hub",
    "current_worker",
    "offload",
    "open_hubs",
    "sleep",
    "spawn",
    "wait",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Hub:
    """What one event loop needs to run child greenlets.

    Attributes:
        loop: The asyncio event loop.
        greenlet: The greenlet that runs it, as last seen.
        idle: Parked workers, ready for reuse.
        workers: All living workers, parked or not.
        streams: Open streams by file descriptor.
        context: Empty, for what the loop keeps longer than the operation that registers it.
        is_closed: Whether the hub has ended.
        slice: How long events may go on resuming greenlets.
        outbox: The streams that hold bytes until the end of the loop's turn.
        results: What greenlets have made while large sends wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.greenlet: greenlet = getcurrent()
        # With a parent it may be anyone's; the loop's first callback shows the hub.
        self._is_located = self.greenlet.parent is None
        self.idle: list[Worker] = []
        self.workers: set[Worker] = set()
        self.streams: dict[int, Closeable] = {}
        self.context = Context()
        self.is_closed = False
        self.slice = Slice(loop)
        self.outbox = Outbox(loop)
        self.results = Results(loop)
        self._thread = this_thread()
        self._ready: deque[Waiter | Beginning] = deque()
        self._drain_is_scheduled = False
        self._hook = ShutdownHook(loop, self._end)

    @property
    def suspended(self) -> int:
        """How many child greenlets are in the middle of a callable."""
        return len(self.workers) - len(self.idle)

    # -- starting ---------------------------------------------------------

    def spawn(
        self,
        function: Callable[..., _T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],  # `Any`: the callable's own, as in Job
        owner: asyncio.Future[Any] | None = None,  # `Any`: a task of any type
    ) -> GreenFuture[_T]:
        """Start ``function(*args, **kwargs)`` in a child greenlet, for *owner*."""
        if self.is_closed:
            raise LoopClosed("spawn()")
        future: GreenFuture[_T] = GreenFuture(loop=self.loop)
        if owner is not None:
            future.owner = owner
        job = (function, args, kwargs)
        if getcurrent() is self.greenlet and self._is_located:
            # `start`, written out: each operation passes here.
            worker = self.idle.pop() if self.idle else self._new_worker()
            worker.gr_context = copy_context()
            worker.future = future
            worker.job = job
            future._worker = worker
            worker.switch()
        else:
            # Inside a child, or a greenlet of somebody else's: switching from
            # here would suspend that one instead of the hub.
            self.loop.call_soon(self._start_later, copy_context(), future, job)
        return future

    def start_soon(
        self, context: Context, future: GreenFuture[_T], function: Callable[[], _T]
    ) -> None:
        """Start a worker on the loop's next turn, in *context*."""
        self.loop.call_soon(self._start_later, context, future, (function, (), {}))

    def start(self, context: Context, future: GreenFuture[Any], job: Job) -> None:
        """Switch into a worker with *job*. Called in the hub only."""
        worker = self.idle.pop() if self.idle else self._new_worker()
        worker.gr_context = context
        worker.future = future
        worker.job = job
        future._worker = worker
        worker.switch()

    def _new_worker(self) -> Worker:
        worker = Worker(self)
        self.workers.add(worker)
        return worker

    def _start_later(self, context: Context, future: GreenFuture[Any], job: Job) -> None:
        self.greenlet = getcurrent()
        self._is_located = True
        if self.is_closed:
            future.cancel()
        elif not future.done():
            self.start(context, future, job)

    # -- waking -----------------------------------------------------------

    def resume(self, waiter: Waiter, woken: bool = True) -> None:
        """Switch into the greenlet of *waiter*, if it still waits. Hub only."""
        worker = waiter._worker
        if worker is None or (waiter.is_woken and not woken):
            return
        waiter._worker = None
        waiter.is_woken = woken
        self.greenlet = getcurrent()
        worker.switch()
        if self._ready:
            self._drain()

    def queue(self, waiter: Waiter | Beginning) -> None:
        """Resume or begin *waiter* soon: after the running greenlet lets go of the hub."""
        self._ready.append(waiter)
        if not self._drain_is_scheduled:
            self._schedule_drain()

    def _schedule_drain(self) -> None:
        if self.is_closed or self.loop.is_closed():
            return
        self._drain_is_scheduled = True
        if _get_running_loop() is self.loop:
            self.loop.call_soon(self._drain_scheduled)
        else:
            self.loop.call_soon_threadsafe(self._drain_scheduled)

    def _drain_scheduled(self) -> None:
        self._drain_is_scheduled = False
        try:
            self._drain()
        finally:
            if self._ready and not self._drain_is_scheduled:
                self._schedule_drain()

    def _drain(self) -> None:
        # Only those that are ready now: greenlets may go on waking one another.
        self.greenlet = getcurrent()
        ready = self._ready
        for _ in range(len(ready)):
            if not ready:
                return
            waiter = ready.popleft()
            worker = waiter._worker
            if worker is not None:
                waiter._worker = None
                worker.switch()
            elif not isinstance(waiter, Waiter):
                waiter.begin()

    def interrupt(self, worker: Worker, future: GreenFuture[Any]) -> None:
        """Throw `CancelledError` into *worker*, if it still runs *future*'s job."""
        if worker.future is not future or worker.dead or self.is_closed:
            return
        if getcurrent() is self.greenlet:
            worker.throw(asyncio.CancelledError())
        elif not self.loop.is_closed():
            self.loop.call_soon(self._interrupt_later, worker, future)

    def _interrupt_later(self, worker: Worker, future: GreenFuture[Any]) -> None:
        self.greenlet = getcurrent()
        self.interrupt(worker, future)

    # -- ending -----------------------------------------------------------

    def close(self) -> None:
        """Cancel all child greenlets and close all streams. Idempotent."""
        if self.is_closed:
            return
        self._end()
        self._hook.finish()

    def _end(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        if _hubs.get(self.loop) is self:
            del _hubs[self.loop]
        if self.is_of_this_thread:
            self.results.give_all()
            self._unwind_workers()
            self._drain()
        for stream in list(self.streams.values()):
            stream.close()

    @property
    def is_of_this_thread(self) -> bool:
        """Whether the caller's thread may switch into the hub's greenlets."""
        return self._thread is this_thread()

    def _unwind_workers(self) -> None:
        current = self.greenlet = getcurrent()
        for worker in list(self.workers):
            if worker is current:
                continue
            worker.parent = current
            if worker.future is None:
                worker.throw()
            else:
                worker.throw(asyncio.CancelledError())
        self.workers.clear()
        self.idle.clear()

    def forget(self) -> None:
        """Drop everything, in a forked child: the parent still uses it."""
        self.is_closed = True
        for stream in list(self.streams.values()):
            stream.forget()


# The hub of each event loop that has run green code and is still open.
_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
# A parent process's: collecting their greenlets would run its clean-up code here.
_inherited: list[Hub] = []


def current_hub() -> Hub:
    """Return the hub of the running event loop.

    Raises:
        RuntimeError: No event loop is running.
    """
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        _close_hubs_of_closed_loops()
        hub = _hubs[loop] = Hub(loop)
    return hub


def open_hubs() -> Iterator[Hub]:
    """Yield the hubs whose loops have not ended."""
    yield from list(_hubs.values())


def _close_hubs_of_closed_loops() -> None:
    # A loop that was closed without asyncio.run() told nobody.
    for loop, hub in list(_hubs.items()):
        if loop.is_closed():
            hub.close()


def _close_hubs_at_exit() -> None:
    for hub in list(_hubs.values()):
        # A loop that a daemon thread still runs ends with the process.
        if hub.is_of_this_thread or not hub.loop.is_running():
            hub.close()


def _forget_inherited_hubs() -> None:
    for hub in list(_hubs.values()):
        hub.forget()
        _inherited.append(hub)
    _hubs.clear()


atexit.register(_close_hubs_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited_hubs)


def spawn(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> GreenFuture[_T]:
    """Start a synchronous callable at once in a child greenlet.

    It runs in a copy of the caller's context until it first has to wait.
    Called inside a child greenlet, it starts on the loop's next turn.

    Returns:
        A future of the callable's result. Cancelling it throws
        `asyncio.CancelledError` into the greenlet where it waits.

    Raises:
        RuntimeError: No event loop is running.
    """
    return current_hub().spawn(function, args, kwargs)


def wait(awaitable: Awaitable[_T]) -> _T:
    """Suspend the child greenlet until *awaitable* is done; return its result.

    A coroutine runs as a task of its own. When the greenlet is cancelled, the
    awaitable is cancelled too, as ``await`` would.

    Raises:
        NotInGreenlet: Called outside a child greenlet.
    """
    try:
        waiter = Waiter("wait()")
    except (NotInGreenlet, LoopClosed):
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise
    hub = waiter.hub
    future: asyncio.Future[_T] = asyncio.ensure_future(awaitable, loop=hub.loop)
    try:
        if not future.done():
            future.add_done_callback(lambda _: hub.resume(waiter))
            _suspend_until_done(future, waiter)
        return future.result()
    finally:
        # The traceback of what the future raised holds this frame: without
        # them, no cycle.
        del future, awaitable


def _suspend_until_done(future: asyncio.Future[_T], waiter: Waiter) -> None:
    try:
        waiter.wait()
    except BaseException:
        if not waiter.hub.loop.is_closed():
            future.cancel()
        raise


def sleep(seconds: float) -> None:
    """Suspend the child greenlet for *seconds*; others run meanwhile.

    Raises:
        NotInGreenlet: Called outside a child greenlet.
    """
    if seconds < 0:
        raise ValueError(f"sleep length must be non-negative, not {seconds!r}")
    Waiter("sleep()").wait(seconds)


def offload(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run a call that blocks in the loop's default executor, and wait for it.

    For libraries that cannot run green. The call sees the caller's context.
    Outside a child greenlet with no loop running, it is simply made.

    Raises:
        NotInGreenlet: Called on a running loop outside a child greenlet.
    """
    if _get_running_loop() is None:
        return function(*args, **kwargs)
    hub = current_worker(f"{getattr(function, '__name__', function)}()").hub
    if hub.is_closed:
        raise LoopClosed("a call in the loop's executor")
    context = copy_context()

    def call() -> _T:
        return context.run(function, *args, **kwargs)

    return wait(cast("Awaitable[_T]", hub.loop.run_in_executor(None, call)))
