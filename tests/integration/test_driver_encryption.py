"""Client-side encryption on the loaded driver, with a key management service over TLS."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bson.codec_options import CodecOptions
from pymongo.encryption import Algorithm

from motorlike import green
from motorlike.driver import MongoClient, load

pytest.importorskip("pymongocrypt")
trustme = pytest.importorskip("trustme")

KEYS = "encryption_keys.data_keys"
AWS = {"aws": {"accessKeyId": "id", "secretAccessKey": "secret"}}


class KeyService(threading.Thread):
    """Answers as AWS does, over TLS; its encryption leaves a key as it is.

    It answers only once the client's loop has run meanwhile.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(daemon=True)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.loop: asyncio.AbstractEventLoop | None = None
        self.requests: list[str] = []

    def run(self) -> None:
        with self._listener:
            while True:
                plain, _ = self._listener.accept()
                with plain:
                    if self.loop is None:
                        return
                    with self._context.wrap_socket(plain, server_side=True) as tls:
                        self._answer(tls)

    def stop(self) -> None:
        self.loop = None
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.join()

    def _answer(self, tls: ssl.SSLSocket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += tls.recv(4096)
        head, _, body = head.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b":", 1) for line in head.splitlines()[1:] if b":" in line)
        while len(body) < int(lines[b"content-length"]):
            body += tls.recv(4096)
        ran = threading.Event()
        assert self.loop is not None
        self.loop.call_soon_threadsafe(ran.set)
        assert ran.wait(10), "the loop stood still"
        request = json.loads(body)
        self.requests.append("decrypt" if "CiphertextBlob" in request else "encrypt")
        key = request.get("CiphertextBlob") or request["Plaintext"]
        answer = json.dumps({"CiphertextBlob": key, "Plaintext": key}).encode()
        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


@pytest.fixture
def key_service(tmp_path: Path) -> Iterator[tuple[KeyService, dict[str, Any]]]:
    """A key service, and the ``kms_tls_options`` that trust it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    service = KeyService(context)
    service.start()
    yield service, {"aws": {"tlsCAFile": str(tmp_path / "ca.pem")}}
    service.stop()


def _encryption(client: Any, tls: Any, **options: Any) -> Any:
    return load("pymongo.encryption").ClientEncryption(
        AWS, KEYS, client, CodecOptions(), kms_tls_options=tls, **options
    )


def _encrypt(client: Any, service: KeyService, tls: Any, **options: Any) -> Any:
    master = {"region": "eu-west-1", "key": "arn", "endpoint": f"127.0.0.1:{service.port}"}
    with _encryption(client, tls, **options) as encryption:
        key = encryption.create_data_key("aws", master_key=master)
        algorithm = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Random
        secret = encryption.encrypt("a secret", algorithm, key_id=key)
        assert encryption.decrypt(secret) == "a secret"
        return secret


def test_explicit_encryption_talks_to_the_key_service_over_green_tls(
    mongod_uri: str, key_service: tuple[KeyService, Any]
) -> None:
    service, tls = key_service

    async def main() -> Any:
        service.loop = asyncio.get_running_loop()
        client = MongoClient(mongod_uri)
        try:
            return await green.spawn(_encrypt, client, service, tls)
        finally:
            await green.spawn(client.drop_database, "encryption_keys")
            await green.spawn(client.close)

    assert asyncio.run(main()).subtype == 6
    assert service.requests == ["encrypt", "decrypt"]


def test_automatic_decryption_uses_a_green_copy_of_the_users_options(
    mongod_uri: str, key_service: tuple[KeyService, Any]
) -> None:
    from pymongo.encryption_options import AutoEncryptionOpts

    service, tls = key_service
    options = AutoEncryptionOpts(AWS, KEYS, bypass_auto_encryption=True, kms_tls_options=tls)

    def body(plain: Any, client: Any) -> Any:
        secret = _encrypt(plain, service, tls)
        plain["encryption"].things.insert_one({"_id": 1, "secret": secret})
        try:
            return client["encryption"].things.find_one()
        finally:
            plain.drop_database("encryption")
            plain.drop_database("encryption_keys")
            client.close()
            plain.close()

    async def main() -> Any:
        service.loop = asyncio.get_running_loop()
        client = MongoClient(mongod_uri, auto_encryption_opts=options)
        return await green.spawn(body, MongoClient(mongod_uri), client)

    assert asyncio.run(main()) == {"_id": 1, "secret": "a secret"}
    assert service.requests == ["encrypt", "decrypt", "decrypt"]
    assert options._sync_kms_ssl_contexts is None


def test_a_kms_connect_callback_connects_in_the_executor(
    mongod_uri: str, key_service: tuple[KeyService, Any]
) -> None:
    pytest.importorskip("pymongo.synchronous._kms_connect", reason="PyMongo 4.18 has none")
    service, tls = key_service
    threads = []

    def connect(context: Any) -> socket.socket:
        threads.append(threading.current_thread())
        return socket.create_connection((context.host, context.port), context.timeout)

    async def main() -> Any:
        service.loop = asyncio.get_running_loop()
        client = MongoClient(mongod_uri)
        try:
            return await green.spawn(
                lambda: _encrypt(client, service, tls, kms_connect_callback=connect)
            )
        finally:
            await green.spawn(client.drop_database, "encryption_keys")
            await green.spawn(client.close)

    assert asyncio.run(main()).subtype == 6
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_a_local_key_needs_no_key_service(mongod_uri: str) -> None:
    providers = {"local": {"key": b"k" * 96}}

    def body(client: Any) -> Any:
        kind = load("pymongo.encryption").ClientEncryption
        with kind(providers, KEYS, client, CodecOptions()) as encryption:
            key = encryption.create_data_key("local")
            algorithm = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Deterministic
            return encryption.decrypt(encryption.encrypt(7, algorithm, key_id=key))

    async def main() -> Any:
        client = MongoClient(mongod_uri)
        try:
            return await green.spawn(body, client)
        finally:
            await green.spawn(client.drop_database, "encryption_keys")
            await green.spawn(client.close)

    assert asyncio.run(main()) == 7
