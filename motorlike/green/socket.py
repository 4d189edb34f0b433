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
from motorlike.green.stream import GreenStream, PlainStream

_T = TypeVar("_T")
_Buffer = bytes | bytearray | memoryview

# Constants, exceptions and conversions do no I/O; they are the stdlib's own.
# Blocking calls without a green form are left out, so that a driver which
# needs one fails at once instead of stopping the loop.
_BLOCKING = {"create_server", "fromshare", "send_fds", "recv_fds"}


def __getattr__(name: str) -> Any:
    if name in _BLOCKING:
        raise AttributeError(f"motorlike.green.socket has no {name}(): it would block the IOLoop")
    return getattr(_stdlib, name)


error = OSError
timeout = TimeoutError


class socket:  # noqa: N801 - the stdlib's name
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
        self._timeout: float | None = sock.gettimeout()
        sock.setblocking(False)
        self._sock: _stdlib.socket = sock
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
            stream = self._opened = PlainStream(self._sock)
        return stream

    # -- sending and receiving --------------------------------------------

    def sendall(self, data: _Buffer, flags: int = 0) -> None:
        """Send all of *data*, or raise."""
        _refuse_flags(flags)
        if not isinstance(data, bytes):
            data = memoryview(data).cast("B")
        (self._opened or self._stream).send_all(data, self._timeout)

    def send(self, data: _Buffer, flags: int = 0) -> int:
        """Send some of *data*; return how many bytes."""
        _refuse_flags(flags)
        return self._stream.send(memoryview(data).cast("B"), self._timeout)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a writable *buffer*; return how many bytes, 0 at the end."""
        if flags:
            return self._receive_with_flags(buffer, nbytes, flags)
        view = buffer if type(buffer) is memoryview else memoryview(buffer).cast("B")
        if nbytes:
            view = view[:nbytes]
        return (self._opened or self._stream).recv_into(view, self._timeout)

    def _receive_with_flags(self, buffer: Any, nbytes: int, flags: int) -> int:
        data = self.recv(nbytes or len(memoryview(buffer).cast("B")), flags)
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive up to *bufsize* bytes; ``b""`` at the end."""
        if flags:
            if self._opened is not None and self._opened.buffered:
                raise OSError(errno.EOPNOTSUPP, "flags cannot be used on bytes already received")
            return self._retry(lambda: self._sock.recv(bufsize, flags))
        buffer = memoryview(bytearray(bufsize))
        return bytes(buffer[: self._stream.recv_into(buffer, self._timeout)])

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """Receive a datagram; return it and the sender's address."""
        return self._retry(lambda: self._sock.recvfrom(bufsize, flags))

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive a datagram into *buffer*; return its size and the sender's address."""
        return self._retry(lambda: self._sock.recvfrom_into(buffer, nbytes, flags))

    def sendto(self, data: _Buffer, *args: Any) -> int:
        """Send a datagram to an address; return how many bytes."""
        return self._retry(lambda: self._sock.sendto(data, *args), for_writing=True)

    def accept(self) -> tuple[socket, Any]:
        """Wait for a connection; return its green socket and the peer's address."""
        sock, address = self._retry(self._sock.accept)
        sock.settimeout(_stdlib.getdefaulttimeout())
        return socket._wrap(sock), address

    def _retry(self, call: Callable[[], _T], *, for_writing: bool = False) -> _T:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            try:
                return call()
            except BlockingIOError:
                if self._timeout == 0:
                    raise
            remaining = None if deadline is None else deadline - time.monotonic()
            stream = self._stream
            (stream.wait_writable if for_writing else stream.wait_readable)(remaining)

    # -- connecting -------------------------------------------------------

    def connect(self, address: Any) -> None:
        """Connect to *address*; a host name is looked up without blocking."""
        if self._timeout == 0:
            self._sock.connect(address)
            return
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        hub.current_worker("connect()")
        if self._sock.family == getattr(_stdlib, "AF_UNIX", None):
            self._connect_unix(address, deadline)
        else:
            resolved = self._resolve(address)
            self._stream.open(resolved, _remaining(deadline))

    def _connect_unix(self, address: Any, deadline: float | None) -> None:
        # A full backlog is EAGAIN here, and no event tells when it has room.
        while True:
            try:
                self._sock.connect(address)
                return
            except BlockingIOError:
                remaining = _remaining(deadline)
                hub.sleep(0.01 if remaining is None else min(remaining, 0.01))

    def _resolve(self, address: Any) -> Any:
        host, port, *rest = address
        found = getaddrinfo(host, port, self._sock.family, self._sock.type, self._sock.proto)
        return (*found[0][4][:2], *rest) if rest else found[0][4]

    def connect_ex(self, address: Any) -> int:
        """Connect; return an errno instead of raising `OSError`."""
        try:
            self.connect(address)
        except TimeoutError:
            return errno.EAGAIN
        except OSError as exc:
            if exc.errno is None or isinstance(exc, _stdlib.gaierror):
                raise
            return exc.errno
        return 0

    # -- time-outs --------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        """Set the seconds a call may wait: ``None`` without limit, 0 not at all."""
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = value

    def gettimeout(self) -> float | None:
        """Return the seconds that a call may wait."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """The seconds that a call may wait."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Wait without limit, or not at all."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Return whether calls may wait."""
        return self._timeout != 0

    # -- the rest is the descriptor's -------------------------------------

    @property
    def family(self) -> int:
        """The address family."""
        return self._sock.family

    @property
    def type(self) -> int:
        """The socket type."""
        return self._sock.type

    @property
    def proto(self) -> int:
        """The protocol number."""
        return self._sock.proto

    def bind(self, address: Any) -> None:
        """Bind to a local *address*."""
        self._sock.bind(address)

    def listen(self, *backlog: int) -> None:
        """Take connections."""
        self._sock.listen(*backlog)

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return -1 if self._closed else self._sock.fileno()

    def getpeername(self) -> Any:
        """Return the peer's address."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """Return the socket's own address."""
        return self._sock.getsockname()

    def getsockopt(self, *args: Any) -> Any:
        """Return a socket option."""
        return self._sock.getsockopt(*args)

    def setsockopt(self, *args: Any) -> None:
        """Set a socket option."""
        self._sock.setsockopt(*args)

    def get_inheritable(self) -> bool:
        """Return whether child processes inherit the descriptor."""
        return self._sock.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        """Set whether child processes inherit the descriptor."""
        self._sock.set_inheritable(inheritable)

    def shutdown(self, how: int) -> None:
        """Shut down one or both directions."""
        self._sock.shutdown(how)

    # makefile() is written in terms of the methods above; the stdlib's own
    # function serves a green socket as well.
    makefile = _stdlib.socket.makefile

    def detach(self) -> int:
        """Close the socket without its descriptor, and return that."""
        if self._opened is not None and not self._closed:
            self._opened.release()
        self._closed = True
        return self._sock.detach()

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
        if loop.is_closed():
            stream.close()
        else:
            loop.call_soon_threadsafe(stream.close)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fd={self._sock.fileno()}"
        return f"<green socket {state} timeout={self._timeout}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")


SocketType = socket


def _refuse_flags(flags: int) -> None:
    if flags:
        raise OSError(errno.EOPNOTSUPP, f"green sockets send without flags, not {flags:#x}")


def _remaining(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("timed out")
    return remaining


# -- names, looked up without blocking ------------------------------------


def getaddrinfo(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0  # noqa: A002
) -> list[Any]:
    """As `socket.getaddrinfo`; a name goes through the loop's executor."""
    try:
        # An address needs no look-up, and so no thread.
        return _stdlib.getaddrinfo(
            host, port, family, type, proto, flags | _stdlib.AI_NUMERICHOST
        )
    except _stdlib.gaierror:
        return hub.offload(_stdlib.getaddrinfo, host, port, family, type, proto, flags)


def gethostbyname(hostname: str) -> str:
    """As `socket.gethostbyname`, in the loop's executor."""
    return hub.offload(_stdlib.gethostbyname, hostname)


def gethostbyname_ex(hostname: str) -> Any:
    """As `socket.gethostbyname_ex`, in the loop's executor."""
    return hub.offload(_stdlib.gethostbyname_ex, hostname)


def gethostbyaddr(ip_address: str) -> Any:
    """As `socket.gethostbyaddr`, in the loop's executor."""
    return hub.offload(_stdlib.gethostbyaddr, ip_address)


def getnameinfo(sockaddr: Any, flags: int) -> tuple[str, str]:
    """As `socket.getnameinfo`, in the loop's executor."""
    return hub.offload(_stdlib.getnameinfo, sockaddr, flags)


def getfqdn(name: str = "") -> str:
    """As `socket.getfqdn`, in the loop's executor."""
    return hub.offload(_stdlib.getfqdn, name)


_DEFAULT_TIMEOUT: Any = object()


def create_connection(
    address: tuple[str, int],
    timeout: Any = _DEFAULT_TIMEOUT,
    source_address: Any = None,
    *,
    all_errors: bool = False,
) -> socket:
    """Connect to the first of the host's addresses that answers.

    Raises:
        OSError: None did: the first error, or with *all_errors* an
            `ExceptionGroup` of them all.
    """
    errors: list[Exception] = []
    for family, kind, proto, _, resolved in getaddrinfo(*address, type=_stdlib.SOCK_STREAM):
        sock = None
        try:
            sock = socket(family, kind, proto)
            if timeout is not _DEFAULT_TIMEOUT:
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(resolved)
            return sock
        except OSError as exc:
            errors.append(exc)
            if sock is not None:
                sock.close()
    if all_errors and errors:
        raise ExceptionGroup("create_connection failed", errors)
    raise errors[0] if errors else OSError("getaddrinfo returns an empty list")


def socketpair(*args: Any) -> tuple[socket, socket]:
    """Return two connected green sockets."""
    first, second = _stdlib.socketpair(*args)
    return socket._wrap(first), socket._wrap(second)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:  # noqa: A002
    """Return a green socket on a duplicate of *fd*."""
    return socket._wrap(_stdlib.fromfd(fd, family, type, proto))
