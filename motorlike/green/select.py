"""`select` for child greenlets: waiting for descriptors through the IOLoop.

For drivers that look at a socket's readiness themselves, PyMongo's liveness
check and its pyOpenSSL sockets among them.

Rule: the answer is always the kernel's, from a `poll` that does not wait.
"""

from __future__ import annotations

import select as _stdlib
import time
from collections.abc import Iterable
from typing import Any

from tornado.ioloop import IOLoop

from motorlike.green.hub import Hub, Waiter
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

_READS = POLLIN | POLLPRI


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
        ready = self._poll.poll(0)
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
            ready = self._poll.poll(0)
        return ready


def _descriptor(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())


def _wait_for_any(masks: dict[int, int], timeout: float | None) -> None:
    waiter = Waiter("poll()")
    hub = waiter.hub
    # The IOLoop takes a descriptor once, and a stream may hold that place.
    lent = [hub.streams[fd] for fd in masks if fd in hub.streams]
    streams = [stream for stream in lent if isinstance(stream, GreenStream)]
    for stream in streams:
        stream.stop_watching()
    loop = IOLoop.current()
    try:
        for fd, mask in masks.items():
            loop.add_handler(fd, lambda *_: waiter.wake(), _events(mask))
        waiter.wait(timeout)
    finally:
        _stop_watching(hub, loop, masks)


def _stop_watching(hub: Hub, loop: IOLoop, masks: dict[int, int]) -> None:
    if hub.loop.is_closed():
        return
    for fd in masks:
        loop.remove_handler(fd)


def _events(mask: int) -> int:
    return (IOLoop.READ if mask & _READS else 0) | (IOLoop.WRITE if mask & POLLOUT else 0)


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
    found = (POLLIN | POLLHUP | POLLERR, POLLOUT | POLLERR, POLLPRI)
    readable, writable, exceptional = (
        [each for each in objects if events.get(_descriptor(each), 0) & mask]
        for objects, mask in zip(wanted, found, strict=True)
    )
    return readable, writable, exceptional
