"""The stream under a green TLS socket: Tornado's SSLIOStream, with greenlets.

`green.ssl` makes one for each `ssl.SSLSocket` that it wraps.

Rule: OpenSSL may ask for the other direction in the middle of either; a wait
then waits for what it asked.
"""

from __future__ import annotations

import ssl as stdlib_ssl
import time
from collections.abc import Callable

from tornado.iostream import SSLIOStream

from motorlike.green.readiness import remaining_seconds
from motorlike.green.stream import GreenStream

__all__ = ["TLSStream"]


class TLSStream(GreenStream, SSLIOStream):
    """A stream over an `ssl.SSLSocket` that is connected."""

    socket: stdlib_ssl.SSLSocket
    _is_encrypted = True
    _read_wants_write = False
    _write_wants_read = False

    def __init__(self, sock: stdlib_ssl.SSLSocket) -> None:
        super().__init__(sock, ssl_options=sock.context)
        # The handshake is done by `shake_hands`, not by SSLIOStream.
        self._ssl_accepting = False

    def _has_more(self) -> bool:
        # Decrypted bytes wait inside OpenSSL, where poll() cannot see them.
        return not self._closed and self.socket.pending() > 0

    def _receive(self, buffer: memoryview | bytearray) -> int | None:
        try:
            return self.socket.recv_into(buffer)
        except stdlib_ssl.SSLWantReadError:
            return None
        except stdlib_ssl.SSLWantWriteError:
            self._read_wants_write = True
            return None

    def _transmit(self, data: bytes | memoryview) -> int | None:
        try:
            return self.socket.send(data)
        except stdlib_ssl.SSLWantWriteError:
            return None
        except stdlib_ssl.SSLWantReadError:
            self._write_wants_read = True
            return None

    def _would_block(self, *, to_read: bool) -> OSError:
        if to_read:
            return stdlib_ssl.SSLWantReadError(
                stdlib_ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)"
            )
        return stdlib_ssl.SSLWantWriteError(
            stdlib_ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)"
        )

    def wait_readable(self, timeout: float | None = None, operation: str = "recv()") -> None:
        """Wait until reading can go on, as `GreenStream.wait_readable`."""
        if self._read_wants_write:
            self._read_wants_write = False
            # For the deadline of a read that takes several waits.
            self._read_deadline = time.monotonic() + (timeout or 0)
            super().wait_writable(timeout, operation)
        else:
            super().wait_readable(timeout, operation)

    def wait_writable(self, timeout: float | None = None, operation: str = "send()") -> None:
        """Wait until writing can go on, as `GreenStream.wait_writable`."""
        if self._write_wants_read:
            self._write_wants_read = False
            super().wait_readable(timeout, operation)
        else:
            super().wait_writable(timeout, operation)

    def shake_hands(self, timeout: float | None) -> None:
        """Perform the TLS handshake.

        Raises:
            ssl.SSLError: It failed; as `ssl.SSLSocket.do_handshake` raises.
            TimeoutError: It took longer than *timeout* seconds.
        """
        try:
            self._retry(self.socket.do_handshake, timeout, "do_handshake()")
        except TimeoutError as exc:
            if exc.errno is not None:
                raise
            raise TimeoutError("_ssl.c: The handshake operation timed out") from exc

    def unwrap(self, timeout: float | None) -> None:
        """Exchange the messages that end TLS."""
        self._retry(self.socket.unwrap, timeout, "unwrap()")

    def _retry(self, call: Callable[[], object], timeout: float | None, operation: str) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        self.send_unsent(timeout)
        while True:
            try:
                call()
                return
            except stdlib_ssl.SSLWantReadError:
                if timeout == 0:
                    raise
                wait = super().wait_readable
            except stdlib_ssl.SSLWantWriteError:
                if timeout == 0:
                    raise
                wait = super().wait_writable
            wait(remaining_seconds(deadline), operation)
