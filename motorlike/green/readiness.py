"""Waiting for a socket's events: the half of a green stream that suspends.

`green.stream` and `green.tls` add the bytes. Reading, which every operation
does, is registered with the event loop itself, and stays so from one operation
to the next; writing, which seldom waits, and closing are Tornado's IOStream's.
The greenlet is resumed by a one-shot `Waiter`.

Rule: nothing that is registered with the loop keeps an operation alive after
its end: no context, no waiter, no timer of its own for each read.
"""

from __future__ import annotations

import errno
import os
import select
import socket as stdlib_socket
import time
from asyncio import TimerHandle
from contextvars import Context
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from motorlike.errors import ConcurrentUse, LoopMismatch
from motorlike.green.hub import Hub, Waiter, current_hub
from motorlike.green.slice import SLICE_SECONDS

__all__ = ["EventStream", "bad_descriptor", "remaining_seconds"]

_WRITE = IOLoop.WRITE


class EventStream(IOStream):
    """A socket whose readiness a child greenlet can wait for.

    Args:
        sock: A non-blocking socket, which the stream owns from now on.

    Attributes:
        hub: The hub of the loop that watches the socket.
    """

    # With IOStream's own attributes there are more than a dictionary shares
    # with those of other instances, and those lookups are slower.
    __slots__ = (
        "_descriptor",
        "_is_watched",
        "_read_deadline",
        "_read_timer",
        "_read_timer_at",
        "_reader",
        "_writer",
        "hub",
    )

    socket: stdlib_socket.socket

    # `Any`: IOStream's own arguments, passed on.
    def __init__(self, sock: stdlib_socket.socket, *args: Any, **kwargs: Any) -> None:
        self.hub: Hub = current_hub()
        self._descriptor = sock.fileno()
        self._is_watched = False
        self._reader: Waiter | None = None
        self._writer: Waiter | None = None
        self._read_deadline = 0.0
        self._read_timer: TimerHandle | None = None
        self._read_timer_at = 0.0
        super().__init__(sock, *args, **kwargs)
        self.hub.streams[self._descriptor] = self

    def wait_readable(self, timeout: float | None = None, operation: str = "recv()") -> None:
        """Suspend the greenlet until the socket is readable or at its end.

        Raises:
            TimeoutError: It was not, in *timeout* seconds.
            ConcurrentUse: Another greenlet is waiting for this already.
            LoopMismatch: Another loop watches the socket.
        """
        if self._closed or self._reader is not None:
            raise self._refusal("read")
        waiter = Waiter(operation)
        if waiter.hub is not self.hub:
            raise self._elsewhere(operation)
        if not self._is_watched:
            self._watch()
        if timeout is None:
            self._read_deadline = 0.0
        else:
            deadline = self._read_deadline = time.monotonic() + timeout
            if self._read_timer is None or self._read_timer_at > deadline:
                self._arm_read_timer(deadline, timeout)
        self._reader = waiter
        try:
            self.hub.greenlet.switch()
        finally:
            waiter._worker = None
            self._reader = None
        if not waiter.is_woken:
            raise _timed_out()
        if self._closed:
            raise bad_descriptor()

    def _arm_read_timer(self, deadline: float, timeout: float) -> None:
        # Drivers set a deadline for every read, most of which end long before
        # it. One timer a socket is left armed across reads, unless a read must
        # end before it; when it fires too early for the current one, it is set
        # again.
        if self._read_timer is not None:
            self._read_timer.cancel()
        self._set_read_timer(deadline, max(timeout, 0))

    def _set_read_timer(self, deadline: float, delay: float) -> None:
        # In a context of its own: it may outlive the operation by far.
        self._read_timer_at = deadline
        self._read_timer = self.hub.loop.call_later(delay, self._on_read_timer, context=Context())

    def _on_read_timer(self) -> None:
        self._read_timer = None
        waiter = self._reader
        if waiter is None or not self._read_deadline:
            return
        remaining = self._read_deadline - time.monotonic()
        if remaining > 0:
            self._set_read_timer(self._read_deadline, remaining)
        elif self._is_event_due():
            self._set_read_timer(self._read_deadline, SLICE_SECONDS)
        else:
            self.hub.resume(waiter, False)

    def _is_event_due(self) -> bool:
        # A loop that was busy may come to the timer before the event, which has its
        # place among the others and is put off if they have had their time. Until it
        # comes, others that share the socket may take what there is to read.
        if not self._is_watched:
            return False
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        return any(not events & select.POLLNVAL for _, events in poller.poll(0))

    def wait_writable(self, timeout: float | None = None, operation: str = "send()") -> None:
        """Suspend the greenlet until the socket takes bytes again.

        Raises:
            TimeoutError: It did not, in *timeout* seconds.
            ConcurrentUse: Another greenlet is waiting for this already.
            LoopMismatch: Another loop watches the socket.
        """
        if self._closed or self._writer is not None:
            raise self._refusal("write")
        waiter = Waiter(operation)
        if waiter.hub is not self.hub:
            raise self._elsewhere(operation)
        self._watch_for_writing()
        self._writer = waiter
        try:
            if not waiter.wait(timeout):
                raise _timed_out()
        finally:
            self._writer = None
            self._stop_writing()
        if self._closed:
            raise bad_descriptor()

    # -- events -----------------------------------------------------------

    def _add_io_state(self, state: int) -> None:
        # The loop keeps the context in which a handler was added: an empty one,
        # and not one that all share, which its callbacks may have entered now.
        Context().run(super()._add_io_state, state)

    def _watch_for_writing(self) -> None:
        self._add_io_state(_WRITE)

    def _watch(self) -> None:
        # Not through the IOLoop, which would be one call more for each reply.
        self._is_watched = True
        Context().run(self.hub.loop.add_reader, self._descriptor, self._on_readable)

    def _unwatch(self) -> None:
        if self._is_watched and not self.hub.loop.is_closed():
            self.hub.loop.remove_reader(self._descriptor)
        self._is_watched = False

    def _on_readable(self) -> None:
        waiter = self._reader
        if waiter is not None:
            hub = self.hub
            if not hub.slice.is_over:
                started = time.monotonic()
                hub.resume(waiter)
                hub.slice.use(time.monotonic() - started)
        else:
            # Until somebody asks, the event would repeat.
            self._on_unasked_read_event()
            self._unwatch()

    def _on_unasked_read_event(self) -> None:
        pass

    def _handle_events(self, fd: object, events: int) -> None:
        if self._writer is not None:
            self.hub.resume(self._writer)
        else:
            self._on_unasked_write_event()

    def _on_unasked_write_event(self) -> None:
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._closed or not self._state or self.hub.loop.is_closed():
            return
        self._state &= ~_WRITE
        self.io_loop.update_handler(self.fileno(), self._state)

    # -- connecting and closing -------------------------------------------

    def open(self, address: Any, timeout: float | None) -> None:  # `Any`: as the family has it
        """Connect the socket, and wait until it is.

        Not IOStream's `connect`, which closes the socket when it fails.

        Raises:
            OSError: It failed; the socket stays open, as the stdlib's does.
        """
        try:
            self.socket.connect(address)
        except BlockingIOError:
            self.wait_writable(timeout, "connect()")
            code = self.socket.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code)) from None

    def close(self, exc_info: Any = False) -> None:  # `Any`: as IOStream.close declares it
        """Close the socket. Greenlets that wait for it get `OSError`."""
        if self.hub.loop.is_closed():
            self.forget()
            return
        self._unregister()
        self._unwatch()
        super().close(exc_info)
        self._wake_all()

    def forget(self) -> None:
        """Close the descriptor only: the loop that watched it is not ours."""
        self._unregister()
        if not self._closed:
            self._closed = True
            self.close_fd()

    def release(self) -> stdlib_socket.socket:
        """Stop watching the socket and return it, still open."""
        sock = self.socket
        self._unregister()
        self._unwatch()
        if self._state is not None and not self.hub.loop.is_closed():
            self.io_loop.remove_handler(sock)
        self._state = None
        self._closed = True
        self._wake_all()
        return sock

    def _wake_all(self) -> None:
        for waiter in (self._reader, self._writer):
            if waiter is not None:
                waiter.wake()

    def _unregister(self) -> None:
        if self.hub.streams.get(self._descriptor) is self:
            del self.hub.streams[self._descriptor]
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _elsewhere(self, operation: str) -> LoopMismatch:
        return LoopMismatch(
            f"{operation} was called on another event loop than the one that watches the socket "
            f"with file descriptor {self._descriptor}. Use each socket on one loop."
        )

    def _refusal(self, direction: str) -> OSError | ConcurrentUse:
        if self._closed:
            return bad_descriptor()
        return ConcurrentUse(
            f"two greenlets wait to {direction} on the socket with file descriptor "
            f"{self._descriptor}. Give each its own connection, or take turns with a lock."
        )


# A new instance for each error: a shared one would gather tracebacks.


def _timed_out() -> TimeoutError:
    return TimeoutError("timed out")


def bad_descriptor() -> OSError:
    """Return the error of a socket that is closed."""
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


def remaining_seconds(deadline: float | None) -> float | None:
    """Return the seconds until *deadline*, on the monotonic clock.

    Raises:
        TimeoutError: It has passed.
    """
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise _timed_out()
    return remaining
