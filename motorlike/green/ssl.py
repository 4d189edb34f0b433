"""TLS for green sockets: `SSLContext.wrap_socket` answers with a green one.

The handshake and the encryption are OpenSSL's through the standard library's
`ssl.SSLSocket`; only the waiting is different.

Rule: what is checked (host names, certificates) is the standard library's to
decide; nothing here relaxes or repeats it.
"""

from __future__ import annotations

import errno
import os
import ssl as _stdlib
from typing import Any

from motorlike.green import hub
from motorlike.green import socket as green_socket
from motorlike.green.stream import TLSStream

__all__ = ["SSLContext", "SSLSocket", "create_default_context"]


def __getattr__(name: str) -> Any:
    return getattr(_stdlib, name)


class SSLSocket(green_socket.socket):
    """A green `ssl.SSLSocket`. `SSLContext.wrap_socket` makes them."""

    _sock: _stdlib.SSLSocket
    _opened: TLSStream | None

    @classmethod
    def _over(cls, sock: green_socket.socket, tls: _stdlib.SSLSocket) -> SSLSocket:
        self = cls.__new__(cls)
        self._adopt(tls)
        self._timeout = sock.gettimeout()
        return self

    def _start(self) -> None:
        # The stream begins the handshake by itself, so it is made for that.
        self._opened = TLSStream(self._sock, ssl_options=self._sock.context)

    def do_handshake(self, block: bool = False) -> None:
        """Perform the TLS handshake, with certificate and host-name checks."""
        hub.current_worker("do_handshake()")
        if self._opened is None:
            self._start()
        assert self._opened is not None
        self._opened.shake_hands(None if block and self._timeout == 0 else self._timeout)

    def connect(self, address: Any) -> None:
        """Connecting comes before wrapping: wrap a connected socket instead."""
        raise ValueError("connect the green socket first, then wrap it in TLS")

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002
        """Receive up to *len* bytes, or into *buffer*."""
        return self.recv(len) if buffer is None else self.recv_into(buffer, len)

    def write(self, data: Any) -> int:
        """Send some of *data*; return how many bytes."""
        return self.send(data)

    def pending(self) -> int:
        """Return how many decrypted bytes can be read without waiting."""
        buffered = self._opened.buffered if self._opened is not None else 0
        return buffered + (0 if self._closed else self._sock.pending())

    def unwrap(self) -> green_socket.socket:
        """End TLS in both directions; return the plain green socket."""
        while True:
            try:
                self._sock.unwrap()
                break
            except _stdlib.SSLWantReadError:
                self._stream.wait_readable(self._timeout)
            except _stdlib.SSLWantWriteError:
                self._stream.wait_writable(self._timeout)
        family, kind, proto = self.family, self.type, self.proto
        timeout = self._timeout
        plain = green_socket.socket(family, kind, proto, fileno=self.detach())
        plain.settimeout(timeout)
        return plain

    @property
    def context(self) -> _stdlib.SSLContext:
        """The context that wrapped this socket."""
        return self._sock.context

    @property
    def session(self) -> _stdlib.SSLSession | None:
        """The TLS session, to resume it on another connection."""
        return self._sock.session

    @session.setter
    def session(self, session: _stdlib.SSLSession) -> None:
        self._sock.session = session

    @property
    def session_reused(self) -> bool | None:
        """Whether the handshake resumed an earlier session."""
        return self._sock.session_reused

    @property
    def server_side(self) -> bool:
        """Whether this is the server's end."""
        return self._sock.server_side

    @property
    def server_hostname(self) -> str | None:
        """The host name sent by SNI and checked in the certificate."""
        return self._sock.server_hostname

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the peer's certificate, as `ssl.SSLSocket.getpeercert`."""
        return self._sock.getpeercert(binary_form)

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """Return the channel binding data of the connection."""
        return self._sock.get_channel_binding(cb_type)

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher's name, protocol version and secret bits."""
        return self._sock.cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """Return the ciphers that both ends support."""
        return self._sock.shared_ciphers()

    def compression(self) -> str | None:
        """Return the compression in use, or ``None``."""
        return self._sock.compression()

    def version(self) -> str | None:
        """Return the TLS version, such as ``"TLSv1.3"``."""
        return self._sock.version()

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that ALPN chose."""
        return self._sock.selected_alpn_protocol()

    def verify_client_post_handshake(self) -> None:
        """Ask the client for its certificate after the handshake."""
        self._sock.verify_client_post_handshake()


class SSLContext(_stdlib.SSLContext):
    """An `ssl.SSLContext` that wraps green sockets."""

    def wrap_socket(  # type: ignore[override]  # green sockets in, green sockets out
        self,
        sock: green_socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: _stdlib.SSLSession | None = None,
    ) -> SSLSocket:
        """Wrap a connected green *sock*, which is used up by it.

        Args: as `ssl.SSLContext.wrap_socket`.

        Raises:
            ssl.SSLCertVerificationError: The peer is not who it should be.
            ssl.SSLError: The handshake failed otherwise.
            TimeoutError: It took longer than the socket's time-out.
        """
        if sock._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        plain = sock._sock if sock._opened is None else sock._opened.release()
        sock._opened = None
        tls = super().wrap_socket(
            plain,
            server_side=server_side,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=suppress_ragged_eofs,
            server_hostname=server_hostname,
            session=session,
        )
        sock._closed = True
        green = SSLSocket._over(sock, tls)
        if do_handshake_on_connect:
            try:
                green.do_handshake()
            except BaseException:
                green.close()
                raise
        return green


def create_default_context(
    purpose: _stdlib.Purpose = _stdlib.Purpose.SERVER_AUTH,
    *,
    cafile: str | None = None,
    capath: str | None = None,
    cadata: str | bytes | None = None,
) -> SSLContext:
    """As `ssl.create_default_context`, for green sockets."""
    is_client = purpose == _stdlib.Purpose.SERVER_AUTH
    context = SSLContext(
        _stdlib.PROTOCOL_TLS_CLIENT if is_client else _stdlib.PROTOCOL_TLS_SERVER
    )
    template = _stdlib.create_default_context(purpose, cafile=cafile, capath=capath, cadata=cadata)
    context.options = template.options
    context.verify_flags = template.verify_flags
    context.verify_mode = template.verify_mode
    if cafile or capath or cadata:
        context.load_verify_locations(cafile, capath, cadata)
    elif context.verify_mode != _stdlib.CERT_NONE:
        context.load_default_certs(purpose)
    return context


def wrap_socket(sock: green_socket.socket, **options: Any) -> SSLSocket:
    """Wrap with a context of the given ``ca_certs``, ``certfile``, ``keyfile``."""
    context = SSLContext(_stdlib.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = options.pop("cert_reqs", _stdlib.CERT_NONE)
    if options.get("ca_certs"):
        context.load_verify_locations(options["ca_certs"])
    if options.get("certfile"):
        context.load_cert_chain(options["certfile"], options.get("keyfile"))
    for name in ("ca_certs", "certfile", "keyfile"):
        options.pop(name, None)
    return context.wrap_socket(sock, **options)
