"""What TLS adds: certificates, names, sessions, and ends of its own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket as stdlib_socket
import ssl as stdlib_ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from motorlike.errors import NotInGreenlet
from motorlike.green import select, socket, ssl
from motorlike.green.hub import current_hub, sleep, spawn, wait


def receive_one(tls: Any) -> bytes:
    """One byte, or none if the client closes without having read our tickets."""
    try:
        return bytes(tls.recv(1))
    except ConnectionResetError:
        return b""


class Server:
    """Takes connections in a thread, one script each."""

    def __init__(self, script: Callable[..., Any], context: stdlib_ssl.SSLContext) -> None:
        self._script = script
        self.context = context
        self.listener = stdlib_socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(30)
        self.address = self.listener.getsockname()
        self._turn = threading.Event()
        self._turn.set()

    def serve(self, talk: Callable[[Any], Any] = receive_one) -> Any:
        mine, self._turn = self._turn, threading.Event()
        return self._script(self._serve, talk, mine, self._turn)

    def _serve(
        self, talk: Callable[[Any], Any], mine: threading.Event, next_one: threading.Event
    ) -> Any:
        mine.wait(30)
        plain, _ = self.listener.accept()
        next_one.set()
        plain.settimeout(30)
        with plain:
            try:
                tls = self.context.wrap_socket(plain, server_side=True)
            except OSError as exc:
                return exc
            with tls:
                return talk(tls)


@pytest.fixture
def server(script: Any, certificates: Any) -> Iterator[Server]:
    server = Server(script, certificates.server_context())
    yield server
    server.listener.close()


def open_files() -> set[str]:
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def connect(address: Any, context: Any, hostname: str = "localhost", **options: Any) -> Any:
    sock = socket.create_connection(address, timeout=20)
    try:
        return context.wrap_socket(sock, server_hostname=hostname, **options)
    except BaseException:
        sock.close()
        raise


# -- who the peer is --------------------------------------------------------


def test_a_name_that_is_not_in_the_certificate_is_refused(
    green: Any, server: Server, certificates: Any
) -> None:
    def check() -> None:
        before = open_files()
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            connect(server.address, certificates.client_context(), "elsewhere")
        assert current_hub().streams == {}
        assert len(open_files() - before) <= 1  # the server's, until it notices

    server.serve()
    green(check)


def test_an_unknown_authority_is_refused(green: Any, server: Server) -> None:
    def check() -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
            connect(server.address, ssl.create_default_context())

    server.serve()
    green(check)


def test_a_certificate_is_not_asked_for_where_the_context_says_so(
    green: Any, server: Server
) -> None:
    def check() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connect(server.address, context).close()
        sock = socket.create_connection(server.address)
        ssl.wrap_socket(sock).close()

    server.serve()
    server.serve()
    green(check)


def test_the_server_sees_the_name_and_the_clients_certificate(
    green: Any, server: Server, certificates: Any
) -> None:
    names: list[Any] = []
    server.context.sni_callback = lambda sock, name, context: names.append(name)
    server.context.verify_mode = stdlib_ssl.CERT_REQUIRED
    server.context.load_verify_locations(certificates.authority)

    def check() -> None:
        context = certificates.client_context()
        context.load_cert_chain(certificates.client)
        with connect(server.address, context) as sock:
            assert sock.server_hostname == "localhost"
            assert not sock.server_side
            assert sock.context is context
            sock.sendall(b"x")

    talking = server.serve(lambda tls: (tls.recv(1), tls.getpeercert()))
    green(check)
    received, certificate = talking.end()
    assert received == b"x"
    assert ("email", "client@example.org") in certificate["subjectAltName"]
    assert names == ["localhost"]


def test_what_the_connection_agreed_on_can_be_asked(
    green: Any, server: Server, certificates: Any
) -> None:
    server.context.set_alpn_protocols(["mine"])

    def check() -> None:
        context = certificates.client_context()
        context.set_alpn_protocols(["mine"])
        with connect(server.address, context) as sock:
            assert sock.version() == "TLSv1.3"
            assert sock.cipher()[1] == "TLSv1.3"
            assert sock.selected_alpn_protocol() == "mine"
            assert ("DNS", "localhost") in sock.getpeercert()["subjectAltName"]
            assert isinstance(sock.getpeercert(binary_form=True), bytes)
            assert sock.compression() is None
            assert sock.shared_ciphers() is None or sock.shared_ciphers()
            assert sock.get_channel_binding("tls-unique") is not None
            sock.sendall(b"x")

    server.serve()
    green(check)


@pytest.mark.parametrize("version", [stdlib_ssl.TLSVersion.TLSv1_2, stdlib_ssl.TLSVersion.TLSv1_3])
def test_a_session_can_be_resumed(
    green: Any, server: Server, certificates: Any, version: Any
) -> None:
    server.context.maximum_version = version

    def check() -> None:
        context = certificates.client_context()
        with connect(server.address, context) as sock:
            assert not sock.session_reused
            assert sock.recv(1) == b"t"  # the ticket came before
            session = sock.session
            sock.sendall(b"x")
        with connect(server.address, context, session=session) as sock:
            assert sock.session_reused
            sock.sendall(b"x")

    first = server.serve(lambda tls: (tls.sendall(b"t"), tls.recv(1)))
    server.serve()
    green(check)
    first.end()


def test_pending_counts_the_bytes_that_need_no_waiting(
    green: Any, server: Server, certificates: Any
) -> None:
    def check() -> None:
        with connect(server.address, certificates.client_context()) as sock:
            assert sock.pending() == 0
            assert sock.recv(4) == b"head"
            assert sock.pending() == 4
            assert sock.read(2) == b"bo"
            buffer = bytearray(2)
            assert sock.read(2, buffer) == 2
            assert buffer == b"dy"
            assert sock.pending() == 0
            assert sock.write(b"x") == 1

    server.serve(lambda tls: (tls.sendall(b"headbody"), tls.recv(1)))
    green(check)


# -- the handshake ----------------------------------------------------------


@pytest.fixture
def silent_server() -> Iterator[stdlib_socket.socket]:
    """Takes connections and never says a word."""
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_handshake_that_takes_too_long_is_a_time_out(
    green: Any, silent_server: Any, certificates: Any
) -> None:
    def check() -> None:
        before = open_files()
        sock = socket.create_connection(silent_server.getsockname())
        sock.settimeout(0.05)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="handshake operation timed out"):
            certificates.client_context().wrap_socket(sock, server_hostname="localhost")
        assert time.monotonic() - began < 5
        assert open_files() <= before
        assert current_hub().streams == {}

    green(check)


def test_a_handshake_may_be_tried_again_after_a_time_out(
    green: Any, server: Server, certificates: Any
) -> None:
    def check() -> None:
        sock = socket.create_connection(server.address)
        tls = certificates.client_context().wrap_socket(
            sock, server_hostname="localhost", do_handshake_on_connect=False
        )
        tls.settimeout(0.01)
        with pytest.raises(TimeoutError):
            tls.do_handshake()
        server.serve()
        tls.settimeout(20)
        tls.do_handshake()
        assert tls.version()
        with tls:
            tls.sendall(b"x")

    green(check)


def test_a_handshake_with_a_peer_that_closes_is_its_error(
    green: Any, silent_server: Any, certificates: Any, script: Any
) -> None:
    def talk() -> None:
        peer = silent_server.accept()[0]
        peer.recv(1000)
        peer.close()

    def check() -> None:
        closing = script(talk)
        before = open_files()
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            connect(silent_server.getsockname(), certificates.client_context())
        closing.end()
        assert open_files() <= before

    green(check)


def test_a_handshake_with_a_peer_that_speaks_something_else_is_an_ssl_error(
    green: Any, silent_server: Any, certificates: Any, script: Any
) -> None:
    def talk() -> None:
        peer = silent_server.accept()[0]
        peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        peer.recv(1000)
        peer.close()

    def check() -> None:
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record"):
            connect(silent_server.getsockname(), certificates.client_context())

    script(talk)
    green(check)


def test_a_cancelled_handshake_leaves_no_descriptor(
    green: Any, silent_server: Any, certificates: Any
) -> None:
    def check() -> None:
        before = open_files()
        context = certificates.client_context()
        sock = socket.create_connection(silent_server.getsockname())
        shaking = spawn(context.wrap_socket, sock, server_hostname="localhost")
        sleep(0)
        shaking.cancel()
        sleep(0)
        assert open_files() <= before
        assert current_hub().streams == {}
        assert sock.fileno() == -1

    green(check)


def test_a_non_blocking_handshake_says_what_it_wants(
    green: Any, server: Server, certificates: Any
) -> None:
    def check() -> None:
        sock = socket.create_connection(server.address)
        tls = certificates.client_context().wrap_socket(
            sock, server_hostname="localhost", do_handshake_on_connect=False
        )
        tls.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        server.serve()
        tls.do_handshake(block=True)
        tls.sendall(b"x")
        tls.close()

    green(check)


def test_the_first_recv_or_send_shakes_hands_if_nobody_did(
    green: Any, server: Server, certificates: Any
) -> None:
    def check() -> None:
        sock = socket.create_connection(server.address)
        with certificates.client_context().wrap_socket(
            sock, server_hostname="localhost", do_handshake_on_connect=False
        ) as tls:
            tls.sendall(b"x")
            assert tls.recv(2) == b"ok"

    server.serve(lambda tls: (tls.recv(1), tls.sendall(b"ok")))
    green(check)


def test_a_socket_may_be_wrapped_first_and_connected_then(
    green: Any, server: Server, certificates: Any
) -> None:
    def check() -> None:
        before = open_files()
        tls = certificates.client_context().wrap_socket(
            socket.socket(), server_hostname="localhost"
        )
        tls.settimeout(20)
        with tls:
            tls.connect(server.address)
            assert tls.version()
            assert tls.gettimeout() == 20
            tls.sendall(b"x")
        assert len(open_files() - before) <= 1

    server.serve()
    green(check)


def test_a_socket_that_was_wrapped_first_closes_when_it_cannot_connect(
    green: Any, certificates: Any
) -> None:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

    def check() -> None:
        before = open_files()
        tls = certificates.client_context().wrap_socket(
            socket.socket(), server_hostname="localhost"
        )
        with pytest.raises(ConnectionRefusedError):
            tls.connect(address)
        assert tls.fileno() == -1
        assert open_files() <= before

    green(check)


def test_a_tls_listener_accepts_tls_sockets(green: Any, certificates: Any) -> None:
    def check() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server)
        plain = socket.socket()
        plain.bind(("127.0.0.1", 0))
        plain.listen()
        with context.wrap_socket(plain, server_side=True) as listener:
            connecting = spawn(connect, listener.getsockname(), certificates.client_context())
            accepted, address = listener.accept()
            with accepted, wait(connecting) as client:
                assert accepted.server_side
                assert address == client.getsockname()
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"

    green(check)


# -- wrapping ---------------------------------------------------------------


def test_wrapping_uses_up_the_plain_socket(green: Any, server: Server, certificates: Any) -> None:
    def check() -> None:
        plain = socket.create_connection(server.address)
        plain.settimeout(7)
        with certificates.client_context().wrap_socket(plain, server_hostname="localhost") as tls:
            assert plain.fileno() == -1
            plain.close()
            assert tls.gettimeout() == 7
            tls.sendall(b"x")
            with pytest.raises(OSError, match="Bad file"):
                certificates.client_context().wrap_socket(plain, server_hostname="localhost")

    server.serve()
    green(check)


def test_wrapping_refuses_to_lose_bytes_that_were_read_ahead(green: Any, certificates: Any) -> None:
    def check() -> None:
        first, second = socket.socketpair()
        with first, second:
            second.sendall(b"abc")
            assert first.recv(1) == b"a"
            with pytest.raises(OSError, match="2 received bytes were not read"):
                certificates.client_context().wrap_socket(first, server_hostname="localhost")
            assert first.recv(2) == b"bc"
            second.sendall(b"go on")
            assert first.recv(5) == b"go on"

    green(check)


def test_a_wrap_that_is_refused_leaves_the_plain_socket_usable(
    green: Any, certificates: Any
) -> None:
    def check() -> None:
        before = open_files()
        first, second = socket.socketpair()
        first.sendall(b"x")
        with pytest.raises(ValueError, match="server_hostname"):
            certificates.client_context().wrap_socket(first)
        second.sendall(b"y")
        assert first.recv(1) == b"y"
        first.close()
        second.close()
        assert open_files() <= before

    green(check)


def test_a_wrap_that_fails_leaks_no_descriptor(green: Any, certificates: Any) -> None:
    def check() -> None:
        before = open_files()
        datagram = socket.socket(type=socket.SOCK_DGRAM)
        with pytest.raises(NotImplementedError):
            certificates.client_context().wrap_socket(datagram, server_hostname="localhost")
        datagram.close()
        assert open_files() <= before

    green(check)


# -- the end ----------------------------------------------------------------


def test_unwrap_returns_the_plain_socket(green: Any, server: Server, certificates: Any) -> None:
    def talk(tls: Any) -> None:
        plain = tls.unwrap()
        plain.sendall(b"plain")
        assert plain.recv(2) == b"ok"
        plain.close()

    def check() -> None:
        tls = connect(server.address, certificates.client_context())
        with tls.unwrap() as plain:
            assert type(plain) is socket.socket
            assert tls.fileno() == -1
            assert plain.gettimeout() == 20
            assert plain.recv(5) == b"plain"
            plain.sendall(b"ok")

    talking = server.serve(talk)
    green(check)
    talking.end()


def test_unwrap_times_out(green: Any, server: Server, certificates: Any) -> None:
    def check() -> None:
        with connect(server.address, certificates.client_context()) as tls:
            tls.settimeout(0.02)
            with pytest.raises(TimeoutError):
                tls.unwrap()

    done = threading.Event()
    server.serve(lambda tls: done.wait(20))
    green(check)
    done.set()


def test_an_end_without_notice_is_an_end_or_an_error_as_asked(
    green: Any, server: Server, certificates: Any
) -> None:
    def cut(tls: Any) -> None:
        os.close(tls.detach())

    def check(suppress: bool) -> bytes:
        with connect(
            server.address, certificates.client_context(), suppress_ragged_eofs=suppress
        ) as tls:
            return bytes(tls.recv(1))

    server.serve(cut)
    assert green(check, True) == b""
    server.serve(cut)
    with pytest.raises(ssl.SSLEOFError):
        green(check, False)


# -- contexts ---------------------------------------------------------------


def test_the_default_context_is_the_stdlibs_with_green_sockets() -> None:
    for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH):
        green_context = ssl.create_default_context(purpose)
        model = stdlib_ssl.create_default_context(purpose)
        assert type(green_context) is ssl.SSLContext
        for name in ("options", "verify_flags", "verify_mode", "check_hostname", "protocol"):
            assert getattr(green_context, name) == getattr(model, name)
        assert green_context.cert_store_stats() == model.cert_store_stats()


def test_the_key_log_of_the_environment_is_honoured(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert ssl.create_default_context().keylog_filename == str(tmp_path / "keys")


def test_names_that_do_no_io_are_the_stdlibs() -> None:
    assert ssl.SSLError is stdlib_ssl.SSLError
    assert ssl.CERT_REQUIRED is stdlib_ssl.CERT_REQUIRED
    assert issubclass(ssl.SSLContext, stdlib_ssl.SSLContext)
    with pytest.raises(AttributeError):
        assert ssl.no_such_name


def test_a_handshake_on_the_loop_itself_is_refused(
    run: Any, silent_server: Any, certificates: Any
) -> None:
    async def main() -> None:
        sock = await spawn(socket.create_connection, silent_server.getsockname())
        with pytest.raises(NotInGreenlet):
            certificates.client_context().wrap_socket(sock, server_hostname="localhost")
        assert sock.fileno() == -1

    run(main)


# -- pyOpenSSL --------------------------------------------------------------


def test_py_open_ssl_runs_over_a_green_socket(
    green: Any, server: Server, certificates: Any, script: Any
) -> None:
    """PyMongo prefers it where it is installed, and waits with `select`."""
    openssl = pytest.importorskip("OpenSSL.SSL")
    body = os.urandom(2_000_000)
    ticked = threading.Event()

    def wait_for(sock: Any, events: int) -> None:
        poller = select.poll()
        poller.register(sock, events)
        assert poller.poll(20_000)

    def insist(connection: Any, call: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                return call(*args)
            except openssl.WantReadError:
                wait_for(connection, select.POLLIN)
            except openssl.WantWriteError:
                wait_for(connection, select.POLLOUT)

    def check() -> bytes:
        context = openssl.Context(openssl.TLS_CLIENT_METHOD)
        context.load_verify_locations(str(certificates.authority))
        sock = socket.create_connection(server.address)
        connection = openssl.Connection(context, sock)
        connection.set_tlsext_host_name(b"localhost")
        connection.set_connect_state()
        insist(connection, connection.do_handshake)
        ticking = spawn(tick)
        view = memoryview(body)
        while view:
            view = view[insist(connection, connection.send, bytes(view[:16_000])) :]
        digest = bytes(insist(connection, connection.recv, 32))
        wait(ticking)
        sock.close()
        return digest

    def tick() -> None:
        for _ in range(5):
            sleep(0)
        ticked.set()

    def talk(tls: Any) -> None:
        digest = hashlib.sha256()
        got = 0
        while got < len(body):
            part = tls.recv(100_000)
            got += len(part)
            digest.update(part)
        assert ticked.wait(20), "the loop stood still while the greenlet waited"
        tls.sendall(digest.digest())

    server.serve(talk)
    assert green(check) == hashlib.sha256(body).digest()


def test_no_task_is_needed_for_a_handshake(green: Any, server: Server, certificates: Any) -> None:
    def check() -> None:
        sleep(0)
        assert asyncio.current_task() is None
        with connect(server.address, certificates.client_context()) as sock:
            sock.sendall(b"x")

    server.serve()
    green(check)
