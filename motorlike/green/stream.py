"""Tornado's IOStream, with greenlets where it has futures in the hot path.

`green.socket` and `green.ssl` do all their I/O through these. Connecting and
the TLS handshake are IOStream's own. Bytes are sent and received inline
first; a call that would block registers with the IOLoop through IOStream and
suspends its greenlet with a one-shot `Waiter`.

Rule: no state may change between registering for an event and waiting for it,
and a wait that ends early (a timeout, a cancel) leaves every byte in place.
"""

from __future__ import annotations

import errno
import os
import socket as stdlib_socket
import ssl as stdlib_ssl
import time
from asyncio import TimerHandle
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from motorlike.errors import ConcurrentUse
from motorlike.green.hub import Hub, Waiter, current_hub

__all__ = ["GreenStream", "PlainStream", "TLSStream"]

_READ = IOLoop.READ
_WRITE = IOLoop.WRITE

# Read ahead up to this much: a reply's header and body come in one system
# call. Larger bodies go straight into the driver's own buffer.
_READ_AHEAD_BYTES = 16 * 1024

# A large send gives the loop its turn after this much.
_SEND_CHUNK_BYTES = 256 * 1024


def _timed_out() -> TimeoutError:
    return TimeoutError("timed out")


def _bad_descriptor() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


class GreenStream(IOStream):
    """What plain and TLS streams share: inline I/O, and waiting for events.

    Args:
        sock: A non-blocking socket, which the stream owns from now on.
    """

    socket: stdlib_socket.socket

    def __init__(self, sock: stdlib_socket.socket, *args: Any, **kwargs: Any) -> None:
        self.hub: Hub = current_hub()
        self.hub.streams[sock.fileno()] = self
        self._descriptor = sock.fileno()
        self._reader: Waiter | None = None
        self._writer: Waiter | None = None
        self._read_deadline = 0.0
        self._read_timer: TimerHandle | None = None
        self._read_timer_at = 0.0
        self._ahead = bytearray(_READ_AHEAD_BYTES)
        self._ahead_start = 0
        self._ahead_end = 0
        # Whether the kernel's buffer was seen empty: then a read waits at
        # once, and saves a system call that would only say so again.
        self._is_drained = False
        super().__init__(sock, *args, **kwargs)

    # -- overridden by TLSStream ------------------------------------------

    def _receive(self, buffer: memoryview | bytearray) -> int | None:
        """Receive once; ``None`` if that would block."""
        try:
            return self.socket.recv_into(buffer)
        except BlockingIOError:
            return None

    def _transmit(self, data: bytes | memoryview) -> int | None:
        """Send once; ``None`` if that would block."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return None

    def _has_more(self) -> bool:
        """Whether bytes may be waiting where the IOLoop cannot see them."""
        return False

    @property
    def _is_handshaking(self) -> bool:
        return False

    # -- reading ----------------------------------------------------------

    @property
    def buffered(self) -> int:
        """How many received bytes wait to be read."""
        return self._ahead_end - self._ahead_start

    def recv_into(self, buffer: memoryview, timeout: float | None) -> int:
        """Receive at least one byte into *buffer*; 0 at the end of the stream.

        Args:
            buffer: Where the bytes go, of format ``B``.
            timeout: Seconds to wait; ``None`` without limit, 0 not at all.

        Raises:
            BlockingIOError: Nothing has arrived and *timeout* is 0.
            TimeoutError: Nothing arrived in time. No byte is lost.
        """
        if self._ahead_end != self._ahead_start:
            return self._take_ahead(buffer)
        size = len(buffer)
        if not size:
            return 0
        while True:
            if not self._is_drained or timeout == 0 or self._has_more():
                count = self._receive_ahead(buffer, size)
                if count is not None:
                    return count
                if timeout == 0:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self.wait_readable(timeout)
            self._is_drained = False

    def _receive_ahead(self, buffer: memoryview, size: int) -> int | None:
        if self._closed:
            raise _bad_descriptor()
        if size >= _READ_AHEAD_BYTES:
            count = self._receive(buffer)
            self._is_drained = count is None or 0 < count < size
            return count
        count = self._receive(self._ahead)
        if not count:
            self._is_drained = count is None
            return count
        self._is_drained = count < _READ_AHEAD_BYTES
        self._ahead_start = 0
        self._ahead_end = count
        return self._take_ahead(buffer)

    def _take_ahead(self, buffer: memoryview) -> int:
        start = self._ahead_start
        count = min(len(buffer), self._ahead_end - start)
        buffer[:count] = self._ahead[start : start + count]
        self._ahead_start = start + count
        return count

    def wait_readable(self, timeout: float | None = None) -> None:
        """Suspend the greenlet until the socket is readable or at its end.

        Raises:
            TimeoutError: It was not, in *timeout* seconds.
            ConcurrentUse: Another greenlet is waiting for this already.
        """
        if self._closed:
            raise _bad_descriptor()
        if self._reader is not None:
            raise ConcurrentUse(_concurrent("read", self))
        waiter = Waiter("recv()")
        state = self._state
        if state is None or not state & _READ:
            self._add_io_state(_READ)
        if timeout is not None:
            self._arm_read_timer(timeout)
        else:
            self._read_deadline = 0.0
        self._reader = waiter
        try:
            self.hub.greenlet.switch()
        finally:
            waiter._worker = None
            self._reader = None
        if not waiter.is_woken:
            raise _timed_out()
        if self._closed:
            raise _bad_descriptor()

    def _arm_read_timer(self, timeout: float) -> None:
        # Drivers set a deadline for every read, most of which end long before
        # it. One timer a socket is left armed across reads; when it fires too
        # early for the current one, it is set again.
        deadline = self._read_deadline = time.monotonic() + timeout
        if self._read_timer is not None:
            if self._read_timer_at <= deadline:
                return
            self._read_timer.cancel()
        self._read_timer_at = deadline
        self._read_timer = self.hub.loop.call_later(max(timeout, 0), self._on_read_timer)

    def _on_read_timer(self) -> None:
        self._read_timer = None
        waiter = self._reader
        if waiter is None or not self._read_deadline:
            return
        remaining = self._read_deadline - time.monotonic()
        if remaining > 0:
            self._read_timer_at = self._read_deadline
            self._read_timer = self.hub.loop.call_later(remaining, self._on_read_timer)
        else:
            self.hub.resume(waiter, False)

    # -- writing ----------------------------------------------------------

    def send(self, data: memoryview, timeout: float | None) -> int:
        """Send some of *data*; return how many bytes went out."""
        while True:
            if self._closed:
                raise _bad_descriptor()
            count = self._transmit(data[:_SEND_CHUNK_BYTES])
            if count is not None:
                return count
            if timeout == 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self.wait_writable(timeout)

    def send_all(self, data: bytes | memoryview, timeout: float | None) -> None:
        """Send all of *data*, inline where the kernel takes it at once.

        Raises:
            TimeoutError: It was not all sent in *timeout* seconds altogether.
        """
        if self._closed:
            raise _bad_descriptor()
        size = len(data)
        # Nothing of a reply to what follows can have arrived yet.
        self._is_drained = True
        if size <= _SEND_CHUNK_BYTES:
            sent = self._transmit(data)
            if sent == size:
                return
            self._send_rest(memoryview(data)[sent or 0 :], timeout)
        else:
            self._send_rest(memoryview(data), timeout)

    def _send_rest(self, data: memoryview, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while data:
            # Waiting for an event also gives the loop its turn, even when
            # the socket takes everything as fast as it comes.
            self.wait_writable(None if deadline is None else deadline - time.monotonic())
            sent = self._transmit(data[:_SEND_CHUNK_BYTES])
            if sent:
                data = data[sent:]

    def wait_writable(self, timeout: float | None = None) -> None:
        """Suspend the greenlet until the socket takes bytes again.

        Raises:
            TimeoutError: It did not, in *timeout* seconds.
            ConcurrentUse: Another greenlet is waiting for this already.
        """
        if self._closed:
            raise _bad_descriptor()
        if self._writer is not None:
            raise ConcurrentUse(_concurrent("write", self))
        waiter = Waiter("send()")
        self._add_io_state(_WRITE)
        self._writer = waiter
        try:
            if not waiter.wait(timeout):
                raise _timed_out()
        finally:
            self._writer = None
            self._stop_listening(_WRITE)
        if self._closed:
            raise _bad_descriptor()

    # -- events -----------------------------------------------------------

    def _handle_events(self, fd: Any, events: int) -> None:
        if self._connecting or self._is_handshaking:
            super()._handle_events(fd, events)
            return
        if events & _READ:
            if self._reader is not None:
                self.hub.resume(self._reader)
            else:
                # Unasked-for bytes, or the end of an idle connection. Whoever
                # reads next finds them; until then the event would repeat.
                self._is_drained = False
                self._stop_listening(_READ)
        if events & _WRITE:
            if self._writer is not None:
                self.hub.resume(self._writer)
            else:
                self._stop_listening(_WRITE)

    def _stop_listening(self, state: int) -> None:
        if self._closed or self._state is None or not self._state & state:
            return
        self._state &= ~state
        self.io_loop.update_handler(self.fileno(), self._state)

    def stop_watching(self) -> None:
        """Take the socket from the IOLoop; the next wait puts it back."""
        if self._state is not None:
            self.io_loop.remove_handler(self.fileno())
            self._state = None

    # -- connecting and closing -------------------------------------------

    def open(self, address: Any, timeout: float | None) -> None:
        """Connect the socket, and wait until it is."""
        connected = self.connect(address)
        waiter = Waiter("connect()")
        connected.add_done_callback(lambda _: self.hub.resume(waiter))
        if not waiter.wait(timeout):
            raise _timed_out()
        try:
            connected.result()
        except StreamClosedError as exc:
            raise (exc.real_error or _bad_descriptor()) from exc

    def close(self, exc_info: Any = False) -> None:
        """Close the socket. Greenlets that wait for it get `OSError`."""
        self._unregister()
        if not self._closed and self.hub.loop.is_closed():
            self.forget()
            return
        super().close(exc_info)
        for waiter in (self._reader, self._writer):
            if waiter is not None:
                waiter.wake()

    def forget(self) -> None:
        """Close the descriptor only: the loop that watched it is not ours."""
        self._closed = True
        self.close_fd()

    def release(self) -> stdlib_socket.socket:
        """Stop watching the socket and return it, still open."""
        if self.buffered:
            raise OSError(
                errno.EBUSY, f"{self.buffered} received bytes were not read before the hand-over"
            )
        sock = self.socket
        self._unregister()
        self.stop_watching()
        self._closed = True
        return sock

    def _unregister(self) -> None:
        if self.hub.streams.get(self._descriptor) is self:
            del self.hub.streams[self._descriptor]
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None


class PlainStream(GreenStream):
    """An unencrypted stream."""


class TLSStream(GreenStream, SSLIOStream):
    """A stream over an `ssl.SSLSocket` that is connected."""

    socket: stdlib_ssl.SSLSocket

    @property
    def _is_handshaking(self) -> bool:
        return self._ssl_accepting

    def _has_more(self) -> bool:
        # Decrypted bytes wait inside OpenSSL, where poll() cannot see them.
        return self.socket.pending() > 0

    def _receive(self, buffer: memoryview | bytearray) -> int | None:
        try:
            return self.socket.recv_into(buffer)
        except stdlib_ssl.SSLWantReadError:
            return None
        except stdlib_ssl.SSLWantWriteError:
            self.wait_writable()
            return None

    def _transmit(self, data: bytes | memoryview) -> int | None:
        try:
            return self.socket.send(data)
        except stdlib_ssl.SSLWantWriteError:
            return None
        except stdlib_ssl.SSLWantReadError:
            self.wait_readable()
            return None

    def _do_ssl_handshake(self) -> None:
        # As SSLIOStream's, without its log lines: the error goes to whoever
        # waits for the handshake.
        self._handshake_reading = self._handshake_writing = False
        try:
            self.socket.do_handshake()
        except stdlib_ssl.SSLWantReadError:
            self._handshake_reading = True
        except stdlib_ssl.SSLWantWriteError:
            self._handshake_writing = True
        except OSError as exc:
            self.close(exc_info=exc)
        else:
            self._ssl_accepting = False
            self._finish_ssl_connect()

    def shake_hands(self, timeout: float | None) -> None:
        """Wait for the TLS handshake.

        Raises:
            ssl.SSLError: It failed; as `ssl.SSLSocket.do_handshake` raises.
            TimeoutError: It took longer than *timeout* seconds.
        """
        done = self.wait_for_handshake()
        waiter = Waiter("do_handshake()")
        done.add_done_callback(lambda _: self.hub.resume(waiter))
        if not waiter.wait(timeout):
            raise TimeoutError("_ssl.c: The handshake operation timed out")
        try:
            done.result()
        except StreamClosedError as exc:
            raise ConnectionResetError(
                errno.ECONNRESET, "the connection was closed during the TLS handshake"
            ) from exc


def _concurrent(direction: str, stream: GreenStream) -> str:
    return (
        f"two greenlets wait to {direction} on the socket with file descriptor "
        f"{stream._descriptor}. Give each its own connection, or take turns with a lock."
    )
