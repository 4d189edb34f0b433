"""A socket whose blocking calls switch greenlets instead.

A green driver holds these in place of `socket.socket`. Every method that
could block goes through a `GreenStream`; names that do no I/O are the standard
library's own.

Rule: what a caller sees (results, exceptions, time-outs) is what the standard
library's blocking socket would have shown.
"""

from __future__ import annotations

import errno
import os
import socket as _stdlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from motorlike.green import hub
from motorlike.green.descriptor import Descriptor
from motorlike.green.names import (
    getaddrinfo,
    resolve,
)
from motorlike.green.readiness import remaining_seconds
from motorlike.green.stream import GreenStream, PlainStream

_T = TypeVar("_T")
_Buffer = bytes | bytearray | memoryview

# Constants, exceptions and conversions do no I/O; they are the stdlib's own.
# Blocking calls without a green form are left out, so that a driver which
# needs one fails at once instead of stopping the loop.
_BLOCKING = {"create_server", "fromshare", "send_fds", "recv_fds"}

# For drivers that write `from socket import *`.
__all__ = [name for name in _stdlib.__all__ if name not in _BLOCKING]


def __getattr__(name: str) -> Any:
    if name in _BLOCKING:
        raise AttributeError(f"motorlike.green.socket has no {name}(): it would block the IOLoop")
    return getattr(_stdlib, name)


error = OSError
timeout = TimeoutError


class socket(Descriptor):  # noqa: N801 - the stdlib's name
    """A `socket.socket` for child greenlets.

    Args: as `socket.socket`.

    Raises:
        NotInGreenlet: A method would have to wait, outside a child greenlet.
    """

    def __init__(
        self,
        family: int = -1,
        type: int = -1,  # noqa: A002 - the stdlib's name
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        self._adopt(_stdlib.socket(family, type, proto, fileno))

    @classmethod
    def _wrap(cls, sock: _stdlib.socket) -> socket:
        self = cls.__new__(cls)
        self._adopt(sock)
        return self

    def _adopt(self, sock: _stdlib.socket) -> None:
        self._timeout = sock.gettimeout()
        sock.setblocking(False)
        self._sock = sock
        self._opened: GreenStream | None = None
        self._closed = False
        self._io_refs = 0

    @property
    def _stream(self) -> GreenStream:
        # Made at the first wait: a socket may be created where no loop runs.
        stream = self._opened
        if stream is None:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            hub.current_worker("a socket's first use")
            stream = self._opened = self._make_stream()
        return stream

    def _make_stream(self) -> GreenStream:
        return PlainStream(self._sock)

    # -- sending and receiving --------------------------------------------

    def sendall(self, data: _Buffer, flags: int = 0) -> None:
        """Send all of *data*, or raise."""
        if flags:
            _refuse_flags(flags)
        if type(data) is not bytes:
            data = _bytes_of(data)
        (self._opened or self._stream).send_all(data, self._timeout)

    def send(self, data: _Buffer, flags: int = 0) -> int:
        """Send some of *data*; return how many bytes."""
        _refuse_flags(flags)
        return self._stream.send(_bytes_of(data), self._timeout)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a writable *buffer*; return how many bytes, 0 at the end."""
        if flags:
            return self._receive_with_flags(_sized(_bytes_of(buffer), nbytes), flags)
        if type(buffer) is memoryview and buffer.format == "B":
            view = buffer
        else:
            view = _bytes_of(buffer)
        if nbytes:
            view = _sized(view, nbytes)
        return (self._opened or self._stream).recv_into(view, self._timeout)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive up to *bufsize* bytes; ``b""`` at the end."""
        buffer = memoryview(bytearray(bufsize))
        if flags:
            return bytes(buffer[: self._receive_with_flags(buffer, flags)])
        return bytes(buffer[: self._stream.recv_into(buffer, self._timeout)])

    def _receive_with_flags(self, buffer: memoryview, flags: int) -> int:
        stream = self._opened
        if stream is not None and stream.buffered:
            if flags & ~_stdlib.MSG_PEEK:
                raise OSError(errno.EOPNOTSUPP, "flags cannot be used on bytes already received")
            data = stream.peek(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        return self._retry(lambda: self._sock.recv_into(buffer, 0, flags))

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """Receive a datagram; return it and the sender's address."""
        if self._is_read_ahead:
            return self.recv(bufsize, flags), None
        return self._retry(lambda: self._sock.recvfrom(bufsize, flags))

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive a datagram into *buffer*; return its size and the sender's address."""
        if self._is_read_ahead:
            return self.recv_into(buffer, nbytes, flags), None
        return self._retry(lambda: self._sock.recvfrom_into(buffer, nbytes, flags))

    @property
    def _is_read_ahead(self) -> bool:
        return self._opened is not None and self._opened.buffered > 0

    def sendto(self, data: _Buffer, *args: Any) -> int:
        """Send a datagram to an address; return how many bytes."""
        if not args:
            raise TypeError("sendto() takes the data, flags if any, and an address")
        target = (*args[:-1], resolve(self._sock, args[-1]))
        return self._retry(lambda: self._sock.sendto(data, *target), for_writing=True)

    def accept(self) -> tuple[socket, Any]:
        """Wait for a connection; return its green socket and the peer's address."""
        # Not self._sock.accept: a TLS socket's own would shake hands, blocking.
        sock, address = self._retry(lambda: _stdlib.socket.accept(self._sock))
        sock.settimeout(_stdlib.getdefaulttimeout())
        return socket._wrap(sock), address

    def _retry(self, call: Callable[[], _T], *, for_writing: bool = False) -> _T:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._flush()
        while True:
            try:
                return call()
            except BlockingIOError:
                if self._timeout == 0:
                    raise
            remaining = remaining_seconds(deadline)
            if for_writing:
                self._stream.wait_writable(remaining)
            else:
                self._stream.wait_readable(remaining)

    # -- connecting -------------------------------------------------------

    def bind(self, address: Any) -> None:
        """Bind to a local *address*."""
        self._sock.bind(resolve(self._sock, address))

    def connect(self, address: Any) -> None:
        """Connect to *address*; a host name is looked up without blocking.

        The time-out includes the look-up.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        if self._timeout == 0:
            self._sock.connect(resolve(self._sock, address))
            return
        hub.current_worker("connect()")
        if self._sock.family == getattr(_stdlib, "AF_UNIX", None):
            self._connect_unix(address, deadline)
        else:
            resolved = resolve(self._sock, address)
            self._stream.open(resolved, remaining_seconds(deadline))

    def _connect_unix(self, address: Any, deadline: float | None) -> None:
        # A full backlog is EAGAIN here, and no event tells when it has room.
        while True:
            try:
                self._sock.connect(address)
                return
            except BlockingIOError:
                remaining = remaining_seconds(deadline)
                hub.sleep(0.01 if remaining is None else min(remaining, 0.01))

    def connect_ex(self, address: Any) -> int:
        """Connect; return an errno instead of raising `OSError`."""
        try:
            self.connect(address)
        except OSError as exc:
            if isinstance(exc, _stdlib.gaierror):
                raise
            if exc.errno is not None:
                return exc.errno
            if isinstance(exc, TimeoutError):
                return errno.EAGAIN
            raise
        return 0

    # -- the end ----------------------------------------------------------

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        self._flush()
        return -1 if self._closed else self._sock.fileno()

    def shutdown(self, how: int) -> None:
        """Shut down one or both directions, after what is held was sent."""
        if self._opened is not None:
            self._opened.send_unsent(self._timeout)
        self._sock.shutdown(how)

    # makefile() is written in terms of the methods above; the stdlib's own
    # function serves a green socket as well.
    makefile = _stdlib.socket.makefile

    def detach(self) -> int:
        """Close the socket without its descriptor, and return that."""
        if self._opened is not None and not self._closed:
            self._opened.release()
        self._closed = True
        fd = self._sock.detach()
        if fd >= 0 and self._timeout is None:
            # As the standard library's socket would have left it.
            os.set_blocking(fd, True)
        return fd

    def _flush(self) -> None:
        # Before anything is done with the socket past its stream.
        if self._opened is not None:
            self._opened.flush()

    def dup(self) -> socket:
        """Return a green socket on a duplicate of the descriptor."""
        self._flush()
        copy = socket._wrap(self._sock.dup())
        copy.settimeout(self._timeout)
        return copy

    def close(self) -> None:
        """Close the socket, once the files made from it are closed too."""
        self._closed_by_user = True
        if self._io_refs <= 0:
            self._real_close()

    def _decref_socketios(self) -> None:
        self._io_refs = max(self._io_refs - 1, 0)
        if self._closed_by_user:
            self.close()

    _closed_by_user = False

    def _real_close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._opened is not None:
            self._opened.close()
        self._sock.close()

    def __enter__(self) -> socket:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A watched descriptor would stay open: the loop holds its stream. It
        # is the loop that must let go, and this may run on any thread.
        stream = self.__dict__.get("_opened")
        if stream is None or self._closed or stream.closed():
            return
        loop = stream.hub.loop
        try:
            loop.call_soon_threadsafe(stream.close)
        except RuntimeError:
            # The loop is closed: no waiting, and nothing to tell it.
            stream.forget()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fd={self._sock.fileno()}"
        return f"<green socket {state} timeout={self._timeout}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")


SocketType = socket


def _bytes_of(buffer: Any) -> memoryview:
    return memoryview(buffer).cast("B")


def _sized(view: memoryview, nbytes: int) -> memoryview:
    if nbytes < 0:
        raise ValueError("negative buffersize in recv_into")
    if nbytes > len(view):
        raise ValueError("buffer too small for requested bytes")
    return view[:nbytes] if nbytes else view


def _refuse_flags(flags: int) -> None:
    if flags:
        raise OSError(errno.EOPNOTSUPP, f"green sockets send without flags, not {flags:#x}")


# The mark that drivers pass on for "no time-out was named".
_GLOBAL_DEFAULT_TIMEOUT: Any = vars(_stdlib)["_GLOBAL_DEFAULT_TIMEOUT"]


def create_connection(
    address: tuple[Any, Any],
    timeout: Any = _GLOBAL_DEFAULT_TIMEOUT,
    source_address: Any = None,
    *,
    all_errors: bool = False,
) -> socket:
    """Connect to the first of the host's addresses that answers.

    Raises:
        OSError: None did: the last error, or with *all_errors* an
            `ExceptionGroup` of them all.
    """
    errors: list[Exception] = []
    for family, kind, proto, _, resolved in getaddrinfo(*address, type=_stdlib.SOCK_STREAM):
        try:
            return _connected(socket(family, kind, proto), resolved, timeout, source_address)
        except OSError as exc:
            errors.append(exc)
    try:
        if all_errors and errors:
            raise ExceptionGroup("create_connection failed", errors)
        raise errors[-1] if errors else OSError("getaddrinfo returns an empty list")
    finally:
        # Their tracebacks hold this frame: without them, no cycle.
        errors.clear()


def _connected(sock: socket, address: Any, timeout: Any, source_address: Any) -> socket:
    try:
        if timeout is not _GLOBAL_DEFAULT_TIMEOUT:
            sock.settimeout(timeout)
        if source_address:
            sock.bind(source_address)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def socketpair(*args: Any) -> tuple[socket, socket]:
    """Return two connected green sockets."""
    first, second = _stdlib.socketpair(*args)
    return socket._wrap(first), socket._wrap(second)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:  # noqa: A002 - the stdlib's
    """Return a green socket on a duplicate of *fd*."""
    return socket._wrap(_stdlib.fromfd(fd, family, type, proto))
