"""Child greenlets and the hub that runs them: `spawn`, `wait`, `sleep`.

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
import threading
from asyncio import _get_running_loop
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from greenlet import GreenletExit, getcurrent, greenlet

from motorlike.errors import LoopClosed, NotInGreenlet

__all__ = [
    "GreenFuture",
    "Hub",
    "Waiter",
    "Worker",
    "current_hub",
    "current_worker",
    "in_greenlet",
    "offload",
    "sleep",
    "spawn",
    "wait",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

if TYPE_CHECKING:
    _FutureBase = asyncio.Future[_T]
else:
    # Not subscripted at run time: the C type keeps its fast paths.
    _FutureBase = asyncio.Future

# A burst of operations may need many greenlets at once; more idle ones than
# this are let go when it is over.
_MAX_IDLE_WORKERS = 1000


class Closeable(Protocol):
    """What a hub keeps until it ends, and then closes: its streams."""

    def close(self) -> None:
        """End all waiting with an error, and close the file descriptor."""

    def forget(self) -> None:
        """Close the descriptor alone, in a process that was forked."""


class GreenFuture(_FutureBase[_T]):
    """The result of a callable that runs in a child greenlet.

    `cancel` marks the future cancelled at once and throws `CancelledError`
    into the greenlet where it waits, so that the code there cleans up.
    """

    _worker: Worker | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the operation, and return whether it was still running."""
        if not super().cancel(msg):
            return False
        if self._worker is not None:
            self._worker.hub.interrupt(self._worker, self)
        return True


class Worker(greenlet):
    """A child greenlet that runs one callable after another.

    A new greenlet maps and unmaps memory for its interpreter stack, a fifth of
    the cost of a small operation; a parked one is reused instead.
    """

    def __init__(self, hub: Hub) -> None:
        super().__init__(parent=hub.greenlet)
        self.hub = hub
        self.future: GreenFuture[Any] | None = None
        # What `green.local` keeps for the callable that runs.
        self.locals: Any = None

    def run(self, *job: Any) -> None:
        """Perform *job*, then park for the next, until the hub ends."""
        while True:
            # A frame of its own: tracebacks keep it, not this loop's, alive.
            self._perform(*job)
            self.future = self.locals = None
            hub = self.hub
            if hub.is_closed or len(hub.idle) >= _MAX_IDLE_WORKERS:
                break
            self.gr_context = None
            hub.idle.append(self)
            job = hub.greenlet.switch()
        hub.workers.discard(self)
        self.parent = hub.greenlet

    def _perform(
        self,
        future: GreenFuture[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        try:
            result = function(*args, **kwargs)
        except (KeyboardInterrupt, SystemExit) as exc:
            _settle(future, asyncio.Future.set_exception, exc)
            self.parent = self.hub.greenlet
            raise
        except GreenletExit:
            _settle(future, asyncio.Future.cancel)
            raise
        # Everything else belongs to whoever awaits the future.
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError) or self.hub.is_closed:
                _settle(future, asyncio.Future.cancel)
            else:
                _settle(future, asyncio.Future.set_exception, _storable(exc))
        else:
            if not future.done():
                future.set_result(result)


def _storable(exc: BaseException) -> BaseException:
    # A Future refuses StopIteration: it would end the awaiting coroutine.
    if isinstance(exc, StopIteration):
        error = RuntimeError("a green callable raised StopIteration")
        error.__cause__ = exc
        return error
    return exc


def _settle(future: GreenFuture[Any], method: Callable[..., Any], *args: Any) -> None:
    if future.done():
        return
    if future.get_loop().is_closed():
        # Callbacks can no longer be scheduled, and nobody is left to run them.
        return
    method(future, *args)


class Waiter:
    """One wait of one child greenlet. It can be woken once, and by one event.

    A wake-up that comes late finds the waiter spent and does nothing, so it
    can never end a later wait of the same greenlet.
    """

    __slots__ = ("_worker", "hub", "is_woken")

    def __init__(self, operation: str) -> None:
        worker = getcurrent()
        if type(worker) is not Worker:
            raise NotInGreenlet(operation)
        self.hub: Hub = worker.hub
        if self.hub.is_closed:
            raise LoopClosed(operation)
        self._worker: Worker | None = worker
        self.is_woken = False

    @property
    def is_waiting(self) -> bool:
        """Whether nothing has ended this wait yet."""
        return self._worker is not None and not self.is_woken

    def wait(self, timeout: float | None = None) -> bool:
        """Suspend the greenlet; return whether it was woken in *timeout* seconds.

        Raises:
            asyncio.CancelledError: The operation was cancelled. `is_woken`
                then tells whether a wake-up was lost with it.
        """
        timer = None
        if timeout is not None:
            timer = self.hub.loop.call_later(max(timeout, 0), self.hub.resume, self, False)
        try:
            self.hub.greenlet.switch()
        finally:
            self._worker = None
            if timer is not None:
                timer.cancel()
        return self.is_woken

    def wake(self) -> None:
        """Let the hub resume the greenlet soon. A second call does nothing."""
        if self.is_waiting:
            self.is_woken = True
            self.hub.queue(self)


class Hub:
    """What one event loop needs to run child greenlets.

    Attributes:
        loop: The asyncio event loop.
        greenlet: The greenlet that runs it, as last seen.
        idle: Parked workers, ready for reuse.
        workers: All living workers, parked or not.
        streams: Open streams by file descriptor.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.greenlet: greenlet = getcurrent()
        # A greenlet with a parent may be anyone's; the first callback that
        # the loop runs shows which one is the hub.
        self._is_located = self.greenlet.parent is None
        self.idle: list[Worker] = []
        self.workers: set[Worker] = set()
        self.streams: dict[int, Closeable] = {}
        self.is_closed = False
        self._thread = threading.get_ident()
        self._ready: deque[Waiter] = deque()
        self._drain_is_scheduled = False
        self._until_shutdown = self._shut_down_with_the_loop()
        self._start_shutdown_hook()

    @property
    def suspended(self) -> int:
        """How many child greenlets are in the middle of a callable."""
        return len(self.workers) - len(self.idle)

    def spawn(
        self, function: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> GreenFuture[_T]:
        """Start ``function(*args, **kwargs)`` in a child greenlet."""
        if self.is_closed:
            raise LoopClosed("spawn()")
        future: GreenFuture[_T] = GreenFuture(loop=self.loop)
        if getcurrent() is self.greenlet and self._is_located:
            self.start(copy_context(), future, function, args, kwargs)
        else:
            # Inside a child, or a greenlet of somebody else's: switching from
            # here would suspend that one instead of the hub.
            self.start_soon(copy_context(), future, function, args, kwargs)
        return future

    def start_soon(
        self,
        context: Context,
        future: GreenFuture[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Start a worker on the loop's next turn, in *context*."""
        self.loop.call_soon(self._start_later, context, future, function, args, kwargs or {})

    def start(self, context: Context, future: GreenFuture[Any], *job: Any) -> None:
        """Switch into a worker with *job*. Called in the hub only."""
        if self.idle:
            worker = self.idle.pop()
        else:
            worker = Worker(self)
            self.workers.add(worker)
        worker.gr_context = context
        worker.future = future
        future._worker = worker
        worker.switch(future, *job)

    def _start_later(self, context: Context, future: GreenFuture[Any], *job: Any) -> None:
        self.greenlet = getcurrent()
        self._is_located = True
        if not future.cancelled():
            self.start(context, future, *job)

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

    def queue(self, waiter: Waiter) -> None:
        """Resume *waiter* soon: after the running greenlet lets go of the hub."""
        self._ready.append(waiter)
        if not self._drain_is_scheduled and not self.is_closed:
            self._drain_is_scheduled = True
            if _get_running_loop() is self.loop:
                self.loop.call_soon(self._drain_scheduled)
            else:
                self.loop.call_soon_threadsafe(self._drain_scheduled)

    def _drain_scheduled(self) -> None:
        self._drain_is_scheduled = False
        self._drain()
        if self._ready and not self._drain_is_scheduled:
            self._drain_is_scheduled = True
            self.loop.call_soon(self._drain_scheduled)

    def _drain(self) -> None:
        # Only those that are ready now: greenlets that wake one another in
        # turn must not keep the loop from its other work.
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

    def interrupt(self, worker: Worker, future: GreenFuture[Any]) -> None:
        """Throw `CancelledError` into *worker*, if it still runs *future*'s job."""
        if worker.future is not future or worker.dead or self.is_closed:
            return
        if getcurrent() is self.greenlet:
            worker.throw(asyncio.CancelledError())
        else:
            self.loop.call_soon(self._interrupt_later, worker, future)

    def _interrupt_later(self, worker: Worker, future: GreenFuture[Any]) -> None:
        self.greenlet = getcurrent()
        self.interrupt(worker, future)

    def _start_shutdown_hook(self) -> None:
        # asyncio.run() closes asynchronous generators before it closes the
        # loop: the one moment at which the greenlets can still be unwound.
        first_step = self._until_shutdown.__anext__()
        try:
            first_step.send(None)
        except StopIteration:
            pass

    async def _shut_down_with_the_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Cancel all child greenlets and close all streams. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        _hubs.pop(self.loop, None)
        if self._thread == threading.get_ident():
            self._unwind_workers()
        for stream in list(self.streams.values()):
            stream.close()

    def _unwind_workers(self) -> None:
        self.greenlet = getcurrent()
        for worker in list(self.workers):
            worker.parent = self.greenlet
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
# Hubs that a forked child inherited. Collecting their greenlets would run the
# parent's clean-up code in the child.
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


def _close_all_hubs() -> None:
    for hub in list(_hubs.values()):
        hub.close()


def _forget_inherited_hubs() -> None:
    for hub in list(_hubs.values()):
        hub.forget()
        _inherited.append(hub)
    _hubs.clear()


atexit.register(_close_all_hubs)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited_hubs)


def in_greenlet() -> bool:
    """Tell whether the caller runs in a child greenlet, where it may wait."""
    return type(getcurrent()) is Worker


def current_worker(operation: str) -> Worker:
    """Return the running child greenlet.

    Raises:
        NotInGreenlet: There is none; *operation* names the call in the error.
    """
    worker = getcurrent()
    if type(worker) is not Worker:
        raise NotInGreenlet(operation)
    return worker


def spawn(
    function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
) -> GreenFuture[_T]:
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
    if not future.done():
        future.add_done_callback(lambda _: hub.resume(waiter))
        try:
            waiter.wait()
        except BaseException:
            future.cancel()
            raise
    return future.result()


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
    worker = current_worker(f"{getattr(function, '__name__', function)}()")
    context = copy_context()

    def call() -> _T:
        return context.run(function, *args, **kwargs)

    return wait(cast("Awaitable[_T]", worker.hub.loop.run_in_executor(None, call)))
