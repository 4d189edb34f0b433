"""`green.trace`: a log of what greenlets wait for, and of what holds the loop.

For finding out why a program is slow or stands still. It sees switches by the
hook of the greenlet package, so that the green layer itself has none.

Rule: tracing changes nothing but the log. What goes wrong in it ends it, and
never reaches the greenlet that was about to run.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from types import CodeType, FrameType, TracebackType
from typing import Literal

from greenlet import getcurrent, gettrace, greenlet, settrace

from motorlike.green.hub import Hub, current_hub
from motorlike.green.shutdown import ShutdownHook
from motorlike.green.trace_frames import Stack, operation, routine, stack_of, waits_in
from motorlike.green.trace_watchdog import Turn, Watchdog
from motorlike.green.worker import Worker

__all__ = ["Trace", "trace"]

_LOGGER = "motorlike.trace"

# The trace of each thread that has one.
_running: dict[int, Trace] = {}


class _Operation:
    """One callable that runs in a child greenlet, as far as the trace saw it.

    Attributes:
        number: Tells two operations of one name apart.
        name: What was spawned; ``None`` while that is unknown.
        held: For how many seconds it has held the loop.
        left: When it was last suspended, ``None`` if that was not seen.
        waits_in: What it was suspended in.
    """

    __slots__ = ("held", "left", "name", "number", "waits_in")

    def __init__(self, number: int, name: str | None) -> None:
        self.number = number
        self.name = name
        self.held = 0.0
        self.left: float | None = None
        self.waits_in = "something"

    def __str__(self) -> str:
        return f"{self.name or 'a green function'} #{self.number}"


class Trace:
    """A trace that runs; `trace` starts one.

    Attributes:
        is_running: Whether it has not been stopped.
    """

    def __init__(self, slow_seconds: float | None, logger: logging.Logger) -> None:
        self._hub: Hub = current_hub()
        self._thread = threading.get_ident()
        _check_untraced(self._thread)
        self._logger = logger
        self._operations: dict[Worker, _Operation] = {}
        self._count = 0
        self._is_logging = False
        self._turn = Turn(self._worker(getcurrent()), time.monotonic())
        self.is_running = True
        _running[self._thread] = self
        self._watchdog = None
        if slow_seconds is not None:
            self._watchdog = Watchdog(self._hub.loop, slow_seconds, logger, lambda: self._turn)
        self._hook = ShutdownHook(self._hub.loop, self._end)
        self._previous = gettrace()
        # Kept, for its identity: each look-up of a method makes another.
        self._function = self._on_switch
        settrace(self._function)

    def stop(self) -> None:
        """End the trace. It may have ended already, with its loop.

        Raises:
            RuntimeError: Called in another thread than the loop's.
        """
        if self.is_running and threading.get_ident() != self._thread:
            raise RuntimeError(
                f"the trace was started in thread {self._thread}, and stopped in thread "
                f"{threading.get_ident()}. Stop it on its loop: "
                "loop.call_soon_threadsafe(trace.stop)."
            )
        self._end()
        self._hook.finish()

    def _end(self) -> None:
        if not self.is_running:
            return
        self._forget()
        if self._watchdog is not None:
            self._watchdog.end()

    def _forget(self) -> None:
        self.is_running = False
        # If somebody has set another since, that one calls ours, which only
        # passes on from now.
        if gettrace() is self._function:
            settrace(self._previous)
        if _running.get(self._thread) is self:
            del _running[self._thread]
        self._operations.clear()

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- switches ---------------------------------------------------------

    def _on_switch(
        self, event: Literal["switch", "throw"], between: tuple[greenlet, greenlet]
    ) -> None:
        # Called in the greenlet that was switched to, before it runs on.
        if self._previous is not None:
            self._previous(event, between)
        if not self.is_running:
            return
        try:
            self._note(event, *between)
        except Exception as exc:  # noqa: BLE001 - it would be raised in the greenlet
            self._fail(exc)

    def _note(self, event: str, origin: greenlet, target: greenlet) -> None:
        if self._hub.loop.is_closed():
            self._end()
            return
        entered = self._worker(target)
        # A log handler that waits in a greenlet would be traced by itself.
        if self._logger.isEnabledFor(logging.DEBUG) and not self._is_logging:
            self._is_logging = True
            try:
                self._log_switch(event, self._worker(origin), entered)
            finally:
                self._is_logging = False
        self._turn = Turn(entered, time.monotonic())

    def _log_switch(self, event: str, left: Worker | None, entered: Worker | None) -> None:
        now = time.monotonic()
        if left is not None:
            self._leave(left, now)
        if entered is not None:
            self._enter(entered, event, now)

    def _worker(self, each: greenlet) -> Worker | None:
        return each if isinstance(each, Worker) and each.hub is self._hub else None

    def _leave(self, worker: Worker, now: float) -> None:
        held = now - self._turn.since
        stack = [] if worker.dead else stack_of(worker.gr_frame)
        known = self._operations.get(worker)
        if worker.dead or (not stack and worker.future is None):
            if known is not None:
                del self._operations[worker]
                self._log("%s ended; it held the loop for %.1f ms", known, known.held + held)
            return
        each = known or self._new_operation(worker, stack)
        if each.left is None:
            each.name = operation(stack) or each.name
        each.held += held
        each.left = now
        each.waits_in = waits_in(stack) if stack else each.waits_in
        self._log("%s waits in %s; it held the loop for %.1f ms", each, each.waits_in, held)

    def _enter(self, worker: Worker, event: str, now: float) -> None:
        known = self._operations.get(worker)
        if known is None:
            # Where the trace's own frames end, the greenlet's begin.
            stack = stack_of(_frame_below(Trace._on_switch.__code__))
            if stack or event != "throw":
                self._new_operation(worker, stack)
        elif known.left is not None:
            verb = "was interrupted" if event == "throw" else "goes on"
            message = f"%s {verb}, after %.1f ms in %s"
            self._log(message, known, now - known.left, known.waits_in)

    def _new_operation(self, worker: Worker, stack: Stack) -> _Operation:
        self._count += 1
        name = operation(stack)
        if name is None and worker.job is not None:
            name = routine(worker.job[0], worker.job[1])
        each = self._operations[worker] = _Operation(self._count, name)
        return each

    def _log(self, message: str, each: _Operation, *details: object) -> None:
        shown = (d * 1000 if isinstance(d, float) else d for d in details)
        self._logger.debug(message, each, *shown)

    def _fail(self, exc: Exception) -> None:
        self._end()
        if not self._hub.loop.is_closed():
            context = {"message": "green.trace() ended by an exception", "exception": exc}
            self._hub.loop.call_soon(self._hub.loop.call_exception_handler, context)


def _frame_below(code: CodeType) -> FrameType | None:
    # None in a greenlet that is about to run for the first time.
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else frame.f_back


def _check_untraced(thread: int) -> None:
    running = _running.get(thread)
    if running is None:
        return
    if not running._hub.loop.is_closed():
        raise RuntimeError(
            f"this thread is traced already, on {running._hub.loop!r}. One trace runs in a "
            "thread at a time: stop that one first."
        )
    # Closed by hand, the loop told nobody.
    running._end()


def trace(slow_seconds: float | None = 0.1, logger: logging.Logger | None = None) -> Trace:
    """Log what the running loop's greenlets wait for, until stopped.

    Each switch is a DEBUG record: which operation, what it waits in or waited
    in, how long it was suspended or held the loop. When one greenlet, or the
    loop itself, runs for longer than *slow_seconds*, a WARNING with its stack
    comes at once. To be used as ``with green.trace():``, or by itself and ended
    by its `stop`; it ends with the loop at the latest.

    Each record is made before the greenlet runs on, which slows a program down.

    Args:
        slow_seconds: How long the loop may be held; ``None`` starts no watchdog.
        logger: Where records go; ``logging.getLogger("motorlike.trace")`` if not given.

    Raises:
        RuntimeError: No event loop is running, or the thread is traced already.
    """
    if slow_seconds is not None and not slow_seconds > 0:
        raise ValueError(f"slow_seconds must be positive or None, not {slow_seconds!r}")
    return Trace(slow_seconds, logger or logging.getLogger(_LOGGER))


def _forget_inherited() -> None:
    # In a forked child: no watchdog, and another thread's hook, are there.
    for each in list(_running.values()):
        each._forget()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)
