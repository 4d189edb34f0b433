"""Tornado's IOStream, with greenlets where it has futures.

`green.socket` and, through `green.tls`, `green.ssl` do all their I/O with
these. A call is tried inline first; one that would block suspends its greenlet
until the event loop has an event for it: see `green.readiness`.

Small sends may wait for the end of the loop's turn: see `green.outbox`.

Rule: no state may change between registering for an event and waiting for it,
and a wait that ends early (a timeout, a cancel) leaves every byte in place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib_socket
import time
from typing import Any

from motorlike.green.readiness import EventStream, remaining_seconds

__all__ = ["GreenStream", "PlainStream"]

# Read ahead so much: a reply's header and body come in one call. Larger bodies go
# straight into the driver's own buffer.
_READ_AHEAD_BYTES = 16 * 1024
_SEND_CHUNK_BYTES = 256 * 1024

# A large transfer gives the loop its turn after so much. What is sent is still in the caches.
_TURN_BYTES = 1024 * 1024
_SEND_TURN_BYTES = 4 * 1024 * 1024

# What is held must find room in the kernel's buffer, however small that is.
_HELD_BYTES = 4 * 1024


class GreenStream(EventStream):
    """What plain and TLS streams share: inline I/O, and when to wait instead.

    Args:
        sock: A non-blocking socket, which the stream owns from now on.
    """

    __slots__ = (
        "_ahead",
        "_ahead_end",
        "_ahead_start",
        "_asked",
        "_held_bytes",
        "_is_drained",
        "_outbox",
        "_read_ahead_bytes",
        "_received_in_turn",
        "_short_read_drains",
        "_unsent",
    )

    _is_encrypted = False

    # `Any`: IOStream's own arguments, passed on.
    def __init__(self, sock: stdlib_socket.socket, *args: Any, **kwargs: Any) -> None:
        # Datagrams have borders, which reading ahead would lose.
        is_stream = sock.type == stdlib_socket.SOCK_STREAM
        self._read_ahead_bytes = _READ_AHEAD_BYTES if is_stream else 0
        # A short read empties the kernel's buffer, unless it ended with a
        # datagram or a TLS record.
        self._short_read_drains = is_stream and not self._is_encrypted
        # A datagram is sent or refused by itself: its error is not a later one's.
        self._held_bytes = _HELD_BYTES if is_stream else -1
        self._ahead = bytearray(self._read_ahead_bytes)
        self._ahead_start = 0
        self._ahead_end = 0
        # Whether the kernel's buffer was seen empty: then a read waits at
        # once, and saves a system call that would only say so again.
        self._is_drained = False
        self._received_in_turn = 0
        # What was sent and has not gone out: held, or more than the kernel took.
        # Or why it could not go out, for whoever uses the stream next.
        self._unsent: bytes | memoryview | OSError | None = None
        # 1 from a send on until somebody waits for the answer, or else 0.
        self._asked = 0
        super().__init__(sock, *args, **kwargs)
        self._outbox = self.hub.outbox

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
        """Whether bytes may be waiting where the loop cannot see them. TLS only."""
        return False

    def _would_block(self, *, to_read: bool) -> OSError:
        """Return the error of a socket that must not wait."""
        return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    # -- reading ----------------------------------------------------------

    @property
    def buffered(self) -> int:
        """How many received bytes wait to be read."""
        return self._ahead_end - self._ahead_start

    def peek(self, size: int) -> bytes:
        """Return up to *size* of the received bytes, and leave them there."""
        return bytes(self._ahead[self._ahead_start : self._ahead_end][:size])

    def recv_into(self, buffer: memoryview, timeout: float | None) -> int:
        """Receive at least one byte into *buffer*; 0 at the end of the stream.

        Args:
            buffer: Where the bytes go, of format ``B``.
            timeout: Seconds to wait; ``None`` without limit, 0 not at all.

        Raises:
            BlockingIOError: Nothing has arrived and *timeout* is 0.
            TimeoutError: Nothing arrived in time. No byte is lost.
        """
        size = len(buffer)
        start = self._ahead_start
        available = self._ahead_end - start
        if available:
            if size > available:
                size = available
            self._ahead_start = start + size
            buffer[:size] = self._ahead[start : start + size]
            return size
        if not size and self._read_ahead_bytes:
            return 0
        if not self._is_drained or timeout == 0 or (self._is_encrypted and self._has_more()):
            if self._unsent is not None:
                self.flush()
            count = self._receive_ahead(buffer, size)
            if count or self._is_at_end(count):
                return count or 0
            if timeout == 0:
                raise self._would_block(to_read=True)
        return self._receive_later(buffer, size, timeout)

    def _receive_later(self, buffer: memoryview, size: int, timeout: float | None) -> int:
        outbox = self._outbox
        if outbox.held is self:
            # What this waits for is the answer: the turn's end is early enough.
            outbox.held = None
        elif self._unsent is not None:
            self._raise_late_error()
        asked, self._asked = self._asked, 0
        outbox.awaited += asked
        remaining = timeout
        try:
            while True:
                try:
                    self.wait_readable(remaining)
                except TimeoutError:
                    # A loop that was busy may see the time-out before the bytes.
                    count = self._receive_ahead(buffer, size)
                    if count is None:
                        raise
                    return count
                count = self._receive_ahead(buffer, size)
                if count or self._is_at_end(count):
                    return count or 0
                if timeout is not None:
                    remaining = self._read_deadline - time.monotonic()
        finally:
            outbox.awaited -= asked

    def _is_at_end(self, count: int | None) -> bool:
        # A late error, too, is the end: nothing more will be answered.
        self._raise_late_error()
        return count is not None

    def _receive_ahead(self, buffer: memoryview, size: int) -> int | None:
        if self._closed or self._reader is not None:
            raise self._refusal("read")
        if size >= self._read_ahead_bytes:
            return self._receive_directly(buffer, size)
        count = self._receive(self._ahead)
        if not count:
            self._is_drained = count is None
            return count
        self._is_drained = self._short_read_drains and count < _READ_AHEAD_BYTES
        if size > count:
            size = count
        self._ahead_start = size
        self._ahead_end = count
        buffer[:size] = self._ahead[:size]
        return size

    def _receive_directly(self, buffer: memoryview, size: int) -> int | None:
        count = self._receive(buffer)
        if not count:
            self._is_drained = count is None
            return count
        # A peer that sends as fast as we read must not keep the loop from
        # its other work: after so much, wait for an event in any case.
        self._received_in_turn += count
        if self._received_in_turn >= _TURN_BYTES:
            self._received_in_turn = 0
            self._is_drained = True
        else:
            self._is_drained = self._short_read_drains and count < size
        return count

    # -- writing ----------------------------------------------------------

    def send(self, data: memoryview, timeout: float | None) -> int:
        """Send some of *data*; return how many bytes went out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._closed or self._writer is not None:
                raise self._refusal("write")
            if self._unsent is not None:
                self.send_unsent(timeout)
            count = self._transmit(data[:_SEND_CHUNK_BYTES])
            if count is not None:
                return count
            if timeout == 0:
                raise self._would_block(to_read=False)
            self.wait_writable(remaining_seconds(deadline))

    def send_all(self, data: bytes | memoryview, timeout: float | None) -> None:
        """Send all of *data*: inline where the kernel takes it at once, or in company.

        Raises:
            TimeoutError: It was not all sent in *timeout* seconds altogether.
        """
        if self._closed or self._writer is not None:
            raise self._refusal("write")
        if self._unsent is not None:
            timeout = self.send_unsent(timeout)
        size = len(data)
        # Nothing of a reply to what follows can have arrived yet.
        self._is_drained = True
        # What had no answer may still fill the kernel's buffer, and a `close`
        # that follows could not wait for room.
        is_first = not self._asked
        self._asked = 1
        outbox = self._outbox
        if (
            outbox.awaited >= outbox.company
            and size <= self._held_bytes
            and is_first
            and type(data) is bytes
            and timeout != 0
        ):
            self._unsent = data
            outbox.hold(self)
        elif size <= _SEND_CHUNK_BYTES:
            sent = self._transmit(data)
            if sent != size:
                self._send_rest(memoryview(data)[sent or 0 :], timeout)
        else:
            self._send_rest(memoryview(data), timeout)

    def _send_rest(self, data: memoryview, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        results = self.hub.results
        results.begin_send()
        try:
            while data := self._send_in_turn(data, timeout):
                # The loop has its turn also when the socket takes all as it comes.
                self.wait_writable(remaining_seconds(deadline))
                results.progress()
        finally:
            results.end_send()

    def _send_in_turn(self, data: memoryview, timeout: float | None) -> memoryview:
        """Send what the kernel takes and one turn of the loop may send; return the rest."""
        sent_in_turn = 0
        while data and (sent_in_turn < _SEND_TURN_BYTES or timeout == 0):
            sent = self._transmit(data[:_SEND_CHUNK_BYTES])
            if sent:
                data = data[sent:]
                sent_in_turn += sent
            elif timeout == 0:
                raise self._would_block(to_read=False)
            else:
                break
        return data

    def send_unsent(self, timeout: float | None) -> float | None:
        """Send what was held, all of it, and return what is left of *timeout*.

        A time-out or a cancel loses nothing: the rest still goes out.

        Raises:
            TimeoutError: The kernel did not take it in *timeout* seconds.
        """
        held = self._unsent
        if held is None:
            return timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.flush()
            if self._closed:
                raise self._refusal("write")
            self._raise_late_error()
            if self._unsent is None:
                return remaining_seconds(deadline) if timeout else timeout
            if timeout == 0:
                raise self._would_block(to_read=False)
            self.wait_writable(remaining_seconds(deadline))

    def flush(self) -> None:
        """Send what is held, as far as the kernel takes it; the rest when it takes more.

        An error is for whoever uses the stream next. Who waits for an answer
        reads what has arrived before it, which may tell more.
        """
        data = self._unsent
        if data is None or isinstance(data, OSError) or self._closed:
            return
        try:
            sent = self._transmit(data) or 0
        except OSError as exc:
            # Without the frames, which hold this stream: a cycle.
            self._unsent = exc.with_traceback(None)
            self._is_drained = False
            if self._reader is not None:
                self._reader.wake()
            return
        if sent == len(data):
            self._unsent = None
        else:
            self._unsent = memoryview(data)[sent:]
            self._watch_for_writing()

    def _raise_late_error(self) -> None:
        error = self._unsent
        if isinstance(error, OSError):
            self._unsent = None
            try:
                raise error
            finally:
                # Its traceback holds this frame: without it, no cycle.
                del error

    def _on_unasked_write_event(self) -> None:
        self.flush()
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._unsent is None or isinstance(self._unsent, OSError):
            super()._stop_writing()

    # -- closing ----------------------------------------------------------

    def close(self, exc_info: Any = False) -> None:  # `Any`: as IOStream.close declares it
        """Close the socket, after what is held was sent."""
        data, self._unsent = self._unsent, None
        if data is not None and not isinstance(data, OSError) and not self._closed:
            # As the kernel would do with what it had taken: nobody waits for
            # an answer any more.
            with contextlib.suppress(OSError):
                self._transmit(data)
        super().close(exc_info)

    def release(self) -> stdlib_socket.socket:
        """Stop watching the socket and return it, still open.

        Raises:
            OSError: Bytes that were read ahead would be lost.
        """
        self.send_unsent(None)
        if self.buffered:
            raise OSError(
                errno.EBUSY, f"{self.buffered} received bytes were not read before the hand-over"
            )
        return super().release()

    def _on_unasked_read_event(self) -> None:
        # Unasked-for bytes, or the end of an idle connection. Whoever reads
        # next finds them.
        self._is_drained = False

    def _unregister(self) -> None:
        # The next read then looks at the socket, and finds it closed.
        self._ahead_start = self._ahead_end = 0
        self._is_drained = False
        super()._unregister()


class PlainStream(GreenStream):
    """An unencrypted stream."""
