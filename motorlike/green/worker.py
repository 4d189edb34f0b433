"""The child greenlets themselves: their futures, and how one of them waits.

`green.hub` starts and resumes them. A `Worker` runs one callable after another
and settles a `GreenFuture` for each; a `Waiter` is one wait of one of them.

Rule: the traceback of what a callable raised may reach the callable's
arguments, never its future: that would be a cycle for every failed operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from motorlike.errors import LoopClosed, NotInGreenlet

if TYPE_CHECKING:
    from motorlike.green.hub import Hub

__all__ = [
    "Beginning",
    "GreenFuture",
    "Job",
    "Waiter",
    "Worker",
    "current_worker",
    "in_greenlet",
    "is_job_over",
]

_T = TypeVar("_T")

if TYPE_CHECKING:
    _FutureBase = asyncio.Future[_T]
else:
    # Not subscripted at run time: the C type keeps its fast paths.
    _FutureBase = asyncio.Future

# What to call: the callable, its arguments, its keyword arguments. `Any`: only
# the caller of `spawn` knows their types.
Job = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# A burst of operations may need many greenlets at once; more idle ones than
# this are let go when it is over.
_MAX_IDLE_WORKERS = 1000


class GreenFuture(_FutureBase[_T]):
    """The result of a callable that runs in a child greenlet.

    `cancel` marks the future cancelled at once and throws `CancelledError`
    into the greenlet where it waits, so that the code there cleans up.
    """

    _worker: Worker | None = None
    # On whose behalf the callable runs, where that is not the callable itself:
    # a task, say. `Any`: of whatever type that one's result is.
    owner: asyncio.Future[Any] | None = None

    # `Any`: as asyncio.Future.cancel declares it.
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

    Attributes:
        job: What to run next. It is handed over here and not by the switch:
            a greenlet keeps the arguments of its first one until it ends.
        future: What the callable that runs will settle.
        locals: What `green.local` keeps for the callable that runs.
    """

    # Not in the dict, which every greenlet has all the same: for one of a type
    # in C, the interpreter's quick look-up of attributes does not know the way.
    __slots__ = ("future", "hub", "job", "locals")

    def __init__(self, hub: Hub) -> None:
        super().__init__(parent=hub.greenlet)
        self.hub = hub
        self.job: Job | None = None
        # `Any`: one worker serves futures of all types.
        self.future: GreenFuture[Any] | None = None
        self.locals: Any = None  # `Any`: green.local alone looks inside

    def run(self) -> None:
        """Perform the job, then park for the next, until the hub ends."""
        hub = self.hub
        outbox = hub.outbox
        try:
            while True:
                self._perform()
                if outbox.held is not None:
                    outbox.flush_held()
                self.future = self.locals = None
                if hub.is_closed or len(hub.idle) >= _MAX_IDLE_WORKERS:
                    self.parent = hub.greenlet
                    return
                self.gr_context = None
                hub.idle.append(self)
                hub.greenlet.switch()
        finally:
            self.future = self.locals = None
            hub.workers.discard(self)

    def _perform(self) -> None:
        # A frame of its own: tracebacks keep it alive, not the loop above.
        # Nor may it have the future in a local variable.
        assert self.job is not None
        function, args, kwargs = self.job
        self.job = None
        try:
            result = function(*args, **kwargs)
        except (KeyboardInterrupt, SystemExit) as exc:
            self._end_loop(exc)
            raise
        except GreenletExit:
            self._settle(asyncio.Future.cancel)
            raise
        except BaseException as exc:  # noqa: BLE001 - the rest is for whoever awaits
            self._fail(exc)
        else:
            # `_settle`, written out: each operation passes here.
            future = self.future
            if self.hub.is_closed:
                self._settle(asyncio.Future.set_result, result)
            elif future is not None and not future.done():
                if self.hub.results.is_active:
                    self.hub.results.give(future, result)
                else:
                    future.set_result(result)

    def _settle(self, method: Callable[..., object], *args: object) -> None:
        future = self.future
        # On a closed loop callbacks can no longer be scheduled, and nobody is
        # left to run them.
        if (
            future is not None
            and not future.done()
            and not (self.hub.is_closed and self.hub.loop.is_closed())
        ):
            method(future, *args)

    def _fail(self, exc: BaseException) -> None:
        if isinstance(exc, asyncio.CancelledError) or self.hub.is_closed:
            self._settle(asyncio.Future.cancel)
        elif isinstance(exc, StopIteration):
            # A Future refuses it: it would end the coroutine that awaits.
            error = RuntimeError("a green callable raised StopIteration")
            error.__cause__ = exc
            self._settle(asyncio.Future.set_exception, error)
        else:
            self._settle(asyncio.Future.set_exception, exc)

    def _end_loop(self, exc: BaseException) -> None:
        # As from a task: the future gets it, and so does whoever runs the
        # loop, through the parent. That one hears of it in any case.
        self._settle(asyncio.Future.set_exception, exc)
        if self.future is not None and self.future.done() and not self.future.cancelled():
            self.future.exception()
        self.parent = self.hub.greenlet


class Waiter:
    """One wait of one child greenlet. It can be woken once, and by one event.

    A wake-up that comes late finds the waiter spent and does nothing, so it
    can never end a later wait of the same greenlet.

    Raises:
        NotInGreenlet: Made outside a child greenlet; *operation* names the
            call in the error.
        LoopClosed: The loop has ended, and nothing would end the wait.
    """

    __slots__ = ("_worker", "hub", "is_woken")

    def __init__(self, operation: str) -> None:
        worker = getcurrent()
        if type(worker) is not Worker:
            raise NotInGreenlet(operation)
        hub = self.hub = worker.hub
        if hub.is_closed:
            raise LoopClosed(operation)
        self._worker: Worker | None = worker
        self.is_woken = False

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

    def wake(self) -> bool:
        """Let the hub resume the greenlet soon, and return whether it will.

        It will not if the wait is over, or woken already, or if the loop has
        ended: what is handed over with a wake-up then goes to the next.
        """
        if self._worker is None or self.is_woken or self.hub.is_closed:
            return False
        self.is_woken = True
        self.hub.queue(self)
        return True


class Beginning(Protocol):
    """What the hub's queue may hold besides waiters: it has no greenlet yet."""

    _worker: None

    def begin(self) -> None:
        """Run until the end or the first wait. Called in the hub only."""


def in_greenlet() -> bool:
    """Tell whether the caller runs in a child greenlet, where it may wait."""
    return type(getcurrent()) is Worker


def is_job_over() -> bool:
    """Tell whether what the running child greenlet performs has been cancelled."""
    worker = getcurrent()
    return type(worker) is Worker and worker.future is not None and worker.future.done()


def current_worker(operation: str) -> Worker:
    """Return the running child greenlet.

    Raises:
        NotInGreenlet: There is none; *operation* names the call in the error.
    """
    worker = getcurrent()
    if type(worker) is not Worker:
        raise NotInGreenlet(operation)
    return worker
