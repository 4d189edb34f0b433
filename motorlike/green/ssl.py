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

from motorlike.green import socket as green_socket
from motorlike.green.stream import GreenStream
from motorlike.green.tls import TLSStream

__all__ = ["SSLContext", "SSLSocket", "create_default_context"]


def __getattr__(name: str) -> Any:
    return getattr(_stdlib, name)


class SSLSocket(green_socket.socket):
    """A green `ssl.SSLSocket`. `SSLContext.wrap_socket` makes them."""

    _sock: _stdlib.SSLSocket
    do_handshake_on_connect = True
    # The session to resume, for a socket that will be connected later.
    _session: _stdlib.SSLSession | None = None

    @classmethod
    def _over(cls, sock: green_socket.socket, tls: _stdlib.SSLSocket) -> SSLSocket:
        self = cls.__new__(cls)
        self._adopt(tls)
        self._timeout = sock.gettimeout()
        return self

    def _make_stream(self) -> GreenStream:
        return TLSStream(self._sock)

    @property
    def _tls(self) -> TLSStream:
        stream = self._stream
        assert isinstance(stream, TLSStream)
        return stream

    def do_handshake(self, block: bool = False) -> None:
        """Perform the TLS handshake, with certificate and host-name checks."""
        self._tls.shake_hands(None if block and self._timeout == 0 else self._timeout)

    def _shake_hands_if_due(self) -> None:
        if self.do_handshake_on_connect and _is_connected(self._sock):
            try:
                self.do_handshake()
            except BaseException:
                self.close()
                raise

    def connect(self, address: Any) -> None:  # `Any`: as the family has it
        """Connect a socket that was wrapped first, and shake hands.

        When it fails, the socket is closed.
        """
        unconnected = self._sock
        plain = green_socket.socket(fileno=unconnected.detach())
        plain.settimeout(self._timeout)
        self._closed = True
        try:
            plain.connect(address)
            # A stdlib SSLSocket learns only when it is made that it is connected.
            connected = self._wrap_alike(plain, unconnected, session=self._session)
        except BaseException:
            plain.close()
            raise
        self._take_over(connected)

    def _wrap_alike(
        self,
        plain: green_socket.socket,
        model: _stdlib.SSLSocket,
        session: _stdlib.SSLSession | None = None,
    ) -> SSLSocket:
        context = model.context
        assert isinstance(context, SSLContext)
        return context.wrap_socket(
            plain,
            server_side=model.server_side,
            do_handshake_on_connect=self.do_handshake_on_connect,
            suppress_ragged_eofs=vars(model)["suppress_ragged_eofs"],
            server_hostname=model.server_hostname,
            session=session,
        )

    def _take_over(self, other: SSLSocket) -> None:
        self._sock, self._opened, self._closed = other._sock, other._opened, False
        other._opened, other._closed = None, True

    def accept(self) -> tuple[SSLSocket, Any]:
        """Wait for a connection; return its TLS socket and the peer's address."""
        plain, address = super().accept()
        try:
            return self._wrap_alike(plain, self._sock), address
        except BaseException:
            plain.close()
            raise

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
        self._tls.unwrap(self._timeout)
        timeout = self._timeout
        plain = green_socket.socket(fileno=self.detach())
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
        self._session = self._sock.session = session

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
        if sock._opened is not None:
            sock._opened.release()
            sock._opened = None
        try:
            tls = super().wrap_socket(
                sock._sock,
                server_side=server_side,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=suppress_ragged_eofs,
                server_hostname=server_hostname,
                session=session,
            )
        finally:
            # What was refused before it was wrapped can go on unencrypted.
            sock._closed = sock._sock.fileno() < 0
        green = SSLSocket._over(sock, tls)
        green.do_handshake_on_connect = do_handshake_on_connect
        green._session = session
        green._shake_hands_if_due()
        return green


def _is_connected(sock: _stdlib.SSLSocket) -> bool:
    try:
        sock.getpeername()
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise
        return False
    return True


def create_default_context(
    purpose: _stdlib.Purpose = _stdlib.Purpose.SERVER_AUTH,
    *,
    cafile: str | None = None,
    capath: str | None = None,
    cadata: str | bytes | None = None,
) -> SSLContext:
    """As `ssl.create_default_context`, for green sockets."""
    context = _stdlib.create_default_context(purpose, cafile=cafile, capath=capath, cadata=cadata)
    # Made and set up by the standard library; only its sockets are green.
    context.__class__ = SSLContext
    assert isinstance(context, SSLContext)
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
