"""`threading` for child greenlets: a thread is a greenlet on the loop.

Green drivers import this in place of the standard library's.

Rule: no operating-system thread is ever started here.
"""

from __future__ import annotations

import contextlib
import itertools
import threading as _stdlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context, ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from greenlet import getcurrent, greenlet

from motorlike.green import hub
from motorlike.green.hub import GreenFuture
from motorlike.green.local import local
from motorlike.green.locks import Condition, Lock, RLock, get_ident
from motorlike.green.signals import BoundedSemaphore, Event, Semaphore
from motorlike.green.worker import in_greenlet

__all__ = [
    "TIMEOUT_MAX",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
    "Thread",
    "ThreadError",
    "Timer",
    "active_count",
    "collect_starts",
    "current_thread",
    "enumerate",
    "get_ident",
    "get_native_id",
    "local",
    "main_thread",
]

TIMEOUT_MAX = _stdlib.TIMEOUT_MAX
ThreadError = RuntimeError
main_thread = _stdlib.main_thread
get_native_id = _stdlib.get_native_id
ExceptHookArgs = _stdlib.ExceptHookArgs
excepthook = _stdlib.excepthook

_names = itertools.count(1)
# The thread object of each greenlet that runs one.
_running: WeakKeyDictionary[greenlet, Thread] = WeakKeyDictionary()
# Where `collect_starts` gathers threads instead of starting them: in its own
# greenlet and operating-system thread only.
_collected: ContextVar[list[Thread] | None] = ContextVar("_collected", default=None)


class Thread:
    """A `threading.Thread` that is a greenlet on the running loop.

    It is always a daemon: it ends with the loop at the latest.
    """

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self.name = name or f"GreenThread-{next(_names)}"
        self.daemon = True if daemon is None else daemon
        self._future: GreenFuture[None] | None = None
        self._greenlet: greenlet | None = None
        self._ended = Event()

    @property
    def ident(self) -> int | None:
        """The identifier of the greenlet, once it runs."""
        return None if self._greenlet is None else id(self._greenlet)

    native_id = ident

    def start(self) -> None:
        """Run the thread from the loop's next turn on.

        Raises:
            RuntimeError: It was started before, or no loop is running.
        """
        if self._future is not None:
            raise RuntimeError("threads can only be started once")
        collected = _collected.get()
        if collected is not None:
            collected.append(self)
            return
        current = hub.current_hub()
        self._future = GreenFuture(loop=current.loop)
        # A new thread begins with an empty context, not with its starter's.
        current.start_soon(Context(), self._future, self._bootstrap)

    def _bootstrap(self) -> None:
        self._greenlet = getcurrent()
        _running[self._greenlet] = self
        try:
            self.run()
        except SystemExit:
            return
        except Exception as exc:  # noqa: BLE001 - as a thread's: nobody awaits it
            self._report(exc)
        finally:
            del _running[self._greenlet]
            self._ended.set()

    def _report(self, exc: Exception) -> None:
        worker = hub.current_worker("a green thread")
        if not worker.hub.is_closed:
            worker.hub.loop.call_exception_handler(
                {"message": f"green thread {self.name!r} ended by an exception", "exception": exc}
            )

    def run(self) -> None:
        """Call the target."""
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def is_alive(self) -> bool:
        """Return whether the thread was started and has not ended."""
        return self._future is not None and not self._ended.is_set()

    def interrupt(self) -> None:
        """Throw `CancelledError` into the thread where it waits. Not stdlib."""
        if self._future is None:
            return
        self._future.cancel()
        if self._greenlet is None:
            self._ended.set()

    def myself(self) -> Thread:
        """Return the thread itself, when called through a weak proxy. Not stdlib."""
        return self

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, at most *timeout* seconds.

        Outside a greenlet there is nothing to wait with: a thread whose loop
        does not run cannot end, so the call returns at once.
        """
        if self._future is None:
            raise RuntimeError("cannot join thread before it is started")
        if in_greenlet():
            self._ended.wait(timeout)

    def __repr__(self) -> str:
        state = "initial" if self._future is None else "started"
        if self._ended.is_set():
            state = "stopped"
        return f"<{type(self).__name__}({self.name}, {state})>"


class Timer(Thread):
    """A `threading.Timer`: calls *function* after *interval* seconds."""

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.interval = interval
        self.function = function
        self.args = tuple(args or ())
        self.kwargs = dict(kwargs or {})
        self.finished = Event()

    def cancel(self) -> None:
        """Stop the timer, if it has not gone off."""
        self.finished.set()

    def run(self) -> None:
        """Wait, then call the function."""
        self.finished.wait(self.interval)
        if not self.finished.is_set():
            self.function(*self.args, **self.kwargs)
        self.finished.set()


@contextlib.contextmanager
def collect_starts() -> Iterator[list[Thread]]:
    """Gather the threads started inside instead of starting them.

    For building a driver's objects where no loop runs yet.
    """
    threads: list[Thread] = []
    token = _collected.set(threads)
    try:
        yield threads
    finally:
        _collected.reset(token)


def current_thread() -> Thread | _stdlib.Thread:
    """Return the running green thread, else the operating system's."""
    return _running.get(getcurrent()) or _stdlib.current_thread()


def enumerate() -> list[Thread]:  # noqa: A001 - the stdlib's name
    """Return the green threads that are running."""
    return list(_running.values())


def active_count() -> int:
    """Return how many green threads are running."""
    return len(_running)


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"motorlike.green.threading has no {name!r}: a driver that needs it cannot run green"
    )
