"""`select` for child greenlets: waiting for descriptors through the IOLoop.

For drivers that look at a socket's readiness themselves, PyMongo's liveness
check and its pyOpenSSL sockets among them.

Rule: the answer is the kernel's, from a `poll` that does not wait, with the
bytes that green sockets have read already.
"""

from __future__ import annotations

import errno
import os
import select as _stdlib
import time
from asyncio import _get_running_loop
from collections.abc import Iterable
from typing import Any

from tornado.ioloop import IOLoop

from motorlike.green.hub import Hub, Waiter, current_hub
from motorlike.green.stream import GreenStream

__all__ = [
    "POLLERR",
    "POLLHUP",
    "POLLIN",
    "POLLNVAL",
    "POLLOUT",
    "POLLPRI",
    "error",
    "poll",
    "select",
]

POLLIN = _stdlib.POLLIN
POLLPRI = _stdlib.POLLPRI
POLLOUT = _stdlib.POLLOUT
POLLERR = _stdlib.POLLERR
POLLHUP = _stdlib.POLLHUP
POLLNVAL = _stdlib.POLLNVAL
error = OSError


class poll:  # noqa: N801 - the stdlib's name
    """A `select.poll` object whose `poll` suspends the greenlet."""

    def __init__(self) -> None:
        self._poll = _stdlib.poll()
        self._masks: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = POLLIN | POLLPRI | POLLOUT) -> None:
        """Watch *fd*, a descriptor or an object with `fileno`."""
        self._poll.register(fd, eventmask)
        self._masks[_descriptor(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int) -> None:
        """Watch *fd* for other events."""
        self._poll.modify(fd, eventmask)
        self._masks[_descriptor(fd)] = eventmask

    def unregister(self, fd: Any) -> None:
        """Watch *fd* no longer."""
        self._poll.unregister(fd)
        self._masks.pop(_descriptor(fd), None)

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait for events.

        Args:
            timeout: Milliseconds; ``None`` or negative waits without limit.

        Returns:
            Pairs of descriptor and event mask, none if the time ran out.
        """
        _flush_held()
        ready = self._poll_now()
        if ready or timeout == 0:
            return ready
        deadline = None
        if timeout is not None and timeout >= 0:
            deadline = time.monotonic() + timeout / 1000
        while not ready:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            _wait_for_any(self._masks, remaining)
            ready = self._poll_now()
        return ready

    def _poll_now(self) -> list[tuple[int, int]]:
        ready = self._poll.poll(0)
        read_ahead = _read_ahead(self._masks)
        if read_ahead:
            events = dict(ready)
            for fd in read_ahead:
                events[fd] = events.get(fd, 0) | POLLIN
            ready = list(events.items())
        return ready


def _descriptor(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())


def _flush_held() -> None:
    # Without waiting for the turn's end: who polls may not wait, but poll again.
    if _get_running_loop() is not None:
        current_hub().outbox.flush_held()


def _read_ahead(masks: dict[int, int]) -> list[int]:
    # The bytes that a green socket has read ahead are not the kernel's to
    # tell of any more, but they can be read.
    if _get_running_loop() is None:
        return []
    streams = current_hub().streams
    return [
        fd
        for fd, mask in masks.items()
        if mask & POLLIN and isinstance(stream := streams.get(fd), GreenStream) and stream.buffered
    ]


def _wait_for_any(masks: dict[int, int], timeout: float | None) -> None:
    waiter = Waiter("poll()")
    loop = IOLoop.current()
    # The IOLoop takes each descriptor once, and a stream or another greenlet
    # that polls may hold its place: so a duplicate is watched.
    duplicates: list[int] = []

    def on_event(fd: int, events: int) -> None:
        waiter.wake()

    try:
        for fd, mask in masks.items():
            events = _events(mask)
            if events:
                duplicates.append(os.dup(fd))
                loop.add_handler(duplicates[-1], on_event, events)
        waiter.wait(timeout)
    finally:
        _stop_watching(waiter.hub, loop, duplicates)


def _stop_watching(hub: Hub, loop: IOLoop, duplicates: list[int]) -> None:
    for fd in duplicates:
        if not hub.loop.is_closed():
            loop.remove_handler(fd)
        os.close(fd)


def _events(mask: int) -> int:
    # Nothing for POLLPRI alone: the IOLoop cannot tell urgent bytes from others.
    return (IOLoop.READ if mask & POLLIN else 0) | (IOLoop.WRITE if mask & POLLOUT else 0)


def select(
    rlist: Iterable[Any],
    wlist: Iterable[Any],
    xlist: Iterable[Any],
    timeout: float | None = None,
) -> tuple[list[Any], list[Any], list[Any]]:
    """As `select.select`, with no limit to the descriptors' numbers."""
    wanted = (list(rlist), list(wlist), list(xlist))
    masks: dict[int, int] = {}
    for objects, mask in zip(wanted, (POLLIN, POLLOUT, POLLPRI), strict=True):
        for each in objects:
            masks[_descriptor(each)] = masks.get(_descriptor(each), 0) | mask
    poller = poll()
    for fd, mask in masks.items():
        poller.register(fd, mask)
    events = dict(poller.poll(None if timeout is None else timeout * 1000))
    if any(mask & POLLNVAL for mask in events.values()):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    found = (POLLIN | POLLHUP | POLLERR, POLLOUT | POLLERR, POLLPRI)
    readable, writable, exceptional = (
        [each for each in objects if events.get(_descriptor(each), 0) & mask]
        for objects, mask in zip(wanted, found, strict=True)
    )
    return readable, writable, exceptional
