"""OCSP through pyOpenSSL: the responder is asked in the executor, mid-handshake.

OpenSSL calls PyMongo's callback while it holds its own C frames, and the
greenlet waits from inside of those; other handshakes go on meanwhile.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from motorlike import green
from motorlike.driver.loader import make_loader

for needed in ("OpenSSL", "service_identity"):
    pytest.importorskip(needed)

x509: Any = pytest.importorskip("cryptography.x509")
ocsp: Any = importlib.import_module("cryptography.x509.ocsp")
oid: Any = importlib.import_module("cryptography.x509.oid")
hashes: Any = importlib.import_module("cryptography.hazmat.primitives.hashes")
serialization: Any = importlib.import_module("cryptography.hazmat.primitives.serialization")
ec: Any = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ec")

REQUESTS = """
    import blocking_probe

    class Response:
        status_code = 200

        def __init__(self, content):
            self._received, self._content = content, None

        @property
        def content(self):
            if self._content is None:
                blocking_probe.block("content")
                self._content = self._received
            return self._content

    def post(url, data, headers, timeout):
        blocking_probe.block("post")
        return Response(blocking_probe.respond(data))
"""

DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority with one server certificate and an OCSP responder."""

    def __init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, "test authority")])
        builder = self._builder(self.name, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.server_key = ec.generate_private_key(ec.SECP256R1())
        self.server = self._issue_to_server()
        self.status = ocsp.OCSPCertStatus.GOOD

    def _builder(self, name: Any, key: Any) -> Any:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - DAY)
            .not_valid_after(self.now + DAY)
        )

    def _issue_to_server(self) -> Any:
        name = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, "localhost")])
        responder = x509.AccessDescription(
            oid.AuthorityInformationAccessOID.OCSP,
            x509.UniformResourceIdentifier("http://ocsp.example.com"),
        )
        return (
            self._builder(name, self.server_key)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .add_extension(x509.AuthorityInformationAccess([responder]), False)
            .sign(self.key, hashes.SHA256())
        )

    def respond(self, request: bytes) -> bytes:
        """Answer an OCSP request with the status of the server's certificate."""
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        response = ocsp.OCSPResponseBuilder().add_response(
            self.server,
            self.certificate,
            ocsp.load_der_ocsp_request(request).hash_algorithm,
            self.status,
            this_update=self.now - DAY,
            next_update=self.now + DAY,
            revocation_time=self.now - DAY if revoked else None,
            revocation_reason=None,
        )
        signed = response.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
        return signed.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def write(self, folder: Path) -> tuple[str, str]:
        """Write the authority's certificate, and the server's with its key."""
        pem = serialization.Encoding.PEM
        key = self.server_key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "ca.pem").write_bytes(self.certificate.public_bytes(pem))
        (folder / "server.pem").write_bytes(key + self.server.public_bytes(pem))
        return str(folder / "ca.pem"), str(folder / "server.pem")


@contextlib.contextmanager
def _server(certificate: str) -> Iterator[tuple[str, int]]:
    """Echo one message on each TLS connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def serve(plain: socket.socket) -> None:
        # A client that finds the certificate revoked breaks off.
        with (
            contextlib.suppress(OSError),
            plain,
            context.wrap_socket(plain, server_side=True) as tls,
        ):
            tls.sendall(tls.recv(5))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(
                    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True)
                )
                threads[-1].start()

    threads.append(threading.Thread(target=accept, daemon=True))
    threads[0].start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join()


@pytest.fixture
def authority(probe: Any, install: Callable[..., None]) -> Authority:
    install("requests", REQUESTS, exceptions="class RequestException(Exception): ...")
    authority = Authority()
    probe.respond = authority.respond
    return authority


def _echo(loader: Any, ca: str, address: tuple[str, int]) -> bytes:
    support = loader.load("pymongo.ssl_support")
    assert support.HAVE_PYSSL
    context = support.get_ssl_context(None, None, ca, None, False, False, False, True)
    sock = importlib.import_module("motorlike.green.socket").create_connection(address, timeout=10)
    connection = context.wrap_socket(sock, server_hostname="localhost")
    try:
        connection.sendall(b"hello")
        answer: bytes = connection.recv(5)
        return answer
    finally:
        connection.close()


def test_handshakes_wait_for_the_responder_side_by_side(
    probe: Any, authority: Authority, tmp_path: Path
) -> None:
    ca, certificate = authority.write(tmp_path)
    loader = make_loader()

    def body(address: tuple[str, int]) -> list[bytes]:
        calls = [green.spawn(_echo, loader, ca, address) for _ in range(8)]
        return [green.wait(call) for call in calls]

    with _server(certificate) as address:
        assert probe.run(body, address) == [b"hello"] * 8
    assert probe.calls.count("post") == 8


def test_a_revoked_certificate_breaks_off_its_own_handshake_only(
    probe: Any, authority: Authority, tmp_path: Path
) -> None:
    ca, certificate = authority.write(tmp_path)
    loader = make_loader()
    statuses = itertools.cycle([ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED])

    def respond(request: bytes) -> bytes:
        authority.status = next(statuses)
        return authority.respond(request)

    probe.respond = respond

    def outcome(address: tuple[str, int]) -> str:
        try:
            return _echo(loader, ca, address).decode()
        except Exception as exc:  # noqa: BLE001 - pyOpenSSL's errors share no base with ssl's
            return str(exc)

    def body(address: tuple[str, int]) -> list[str]:
        calls = [green.spawn(outcome, address) for _ in range(8)]
        return sorted(green.wait(call) for call in calls)

    with _server(certificate) as address:
        outcomes = probe.run(body, address)
    assert outcomes[4:] == ["hello"] * 4
    assert all("invalid status response" in each for each in outcomes[:4]), outcomes
