"""Key management services: credentials, callbacks and TLS, none on the loop's thread."""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pymongo.daemon
import pytest
from pymongo.errors import ConfigurationError

from motorlike import green
from motorlike.driver import encryption_options
from motorlike.driver.loader import make_loader
from motorlike.green import ssl as green_ssl


def test_credentials_for_a_kms_are_fetched_in_the_executor(
    probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pymongocrypt")
    real = importlib.import_module("pymongocrypt.synchronous.credentials")
    lib = importlib.import_module("pymongocrypt.binding").lib

    def fetch() -> dict[str, str]:
        probe.block("credentials")
        return {"accessToken": "secret"}

    monkeypatch.setattr(real, "_get_gcp_credentials", fetch)
    provided: list[Any] = []
    states = iter([lib.MONGOCRYPT_CTX_NEED_KMS_CREDENTIALS, lib.MONGOCRYPT_CTX_DONE])

    class Context:
        kms_providers = {"gcp": {}}
        provide_kms_providers = provided.append

        @property
        def state(self) -> int:
            return next(states)

    machine = make_loader().load("pymongocrypt.synchronous.auto_encrypter").run_state_machine
    probe.run(machine, Context(), SimpleNamespace(bson_encode=dict))

    assert provided == [{"gcp": {"accessToken": "secret"}}]
    assert probe.calls == ["credentials"]


def test_mongocryptd_is_started_in_the_executor(
    probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Popen:
        def __init__(self, args: list[str], **options: Any) -> None:
            probe.block("start")
            assert args[-1] == "--port=27020"

        def wait(self, timeout: float) -> int:
            probe.block("wait")
            return 0

    monkeypatch.setattr(pymongo.daemon.subprocess, "Popen", Popen)
    spawn = make_loader().load("pymongo.synchronous.encryption")._spawn_daemon

    probe.run(spawn, ["mongocryptd", "--port=27020"])

    assert probe.calls == ["start", "wait"]


def _green_callback(callback: Callable[[Any], Any]) -> Any:
    return encryption_options._Connect(callback)


def _connect_kms(callback: Callable[[Any], Any], context: Any) -> Any:
    kms = pytest.importorskip("pymongo.synchronous._kms_connect", reason="PyMongo 4.18 has none")
    assert kms is not None
    loader = make_loader()
    options = loader.load("pymongo.pool_options").PoolOptions(
        connect_timeout=10, socket_timeout=10, ssl_context=context
    )
    connect = loader.load("pymongo.synchronous._kms_connect")._connect_kms
    return connect(("kms.example.com", 443), options, _green_callback(callback), 10)


def test_the_socket_of_a_kms_connect_callback_is_wrapped_in_green_tls(probe: Any) -> None:
    # Before anything is started that only a connection would end.
    pytest.importorskip("pymongo.synchronous._kms_connect", reason="PyMongo 4.18 has none")
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("kms.example.com").configure_cert(server_context)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with (
            listener,
            listener.accept()[0] as plain,
            server_context.wrap_socket(plain, server_side=True) as tls,
        ):
            tls.sendall(tls.recv(5).upper())

    def callback(context: Any) -> socket.socket:
        probe.block("connect")
        assert (context.host, context.port) == ("kms.example.com", 443)
        return socket.create_connection(listener.getsockname())

    def talk() -> bytes:
        context = green_ssl.create_default_context()
        authority.configure_trust(context)
        connection = _connect_kms(callback, context)
        connection.sendall(b"hello")
        answer: bytes = connection.recv(5)
        connection.close()
        return answer

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    assert probe.run(talk) == b"HELLO"
    server.join()
    assert probe.calls == ["connect"]


@pytest.mark.parametrize("made", [None, "socket", "SSLSocket"])
def test_a_kms_connect_callback_that_returns_no_plain_socket_gives_pymongos_error(
    probe: Any, made: str | None
) -> None:
    def callback(context: Any) -> Any:
        if made != "SSLSocket":
            return made
        sock = socket.socket()
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(
            sock, do_handshake_on_connect=False, server_hostname="kms.example.com"
        )

    with pytest.raises(ConfigurationError, match="must return a connected, unwrapped"):
        probe.run(_connect_kms, callback, None)


@pytest.mark.parametrize("has_returned", [True, False])
def test_a_cancelled_kms_request_closes_the_socket_that_arrives_too_late(
    has_returned: bool,
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)

    def callback(context: Any) -> socket.socket:
        begun.set()
        assert may_end.wait(10)
        return ours

    async def main(pool: ThreadPoolExecutor) -> None:
        asyncio.get_running_loop().set_default_executor(pool)
        call = green.spawn(_green_callback(callback), None)
        assert begun.wait(10)
        if has_returned:
            # The only thread gets to this next, and the loop has run no turn.
            may_end.set()
            pool.submit(int).result(10)
        call.cancel()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert theirs.recv(1) == b""

    with theirs, ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))
    assert ours.fileno() == -1


def test_green_encryption_options_leave_the_users_untouched() -> None:
    pytest.importorskip("pymongocrypt")
    options = importlib.import_module("pymongo.encryption_options").AutoEncryptionOpts
    tls = {"kmip": {"tlsDisableOCSPEndpointCheck": True}}
    users = options({"local": {"key": b"\0" * 96}}, "keys.keys", kms_tls_options=tls)
    before = dict(vars(users))

    copy = encryption_options.AutoEncryptionOpts.of(users)

    assert isinstance(copy, options)
    assert encryption_options.AutoEncryptionOpts.of(copy) is copy
    context = copy._kms_ssl_contexts(True)["kmip"]
    assert isinstance(context, green_ssl.SSLContext) or "pyopenssl" in type(context).__module__
    assert context is copy._kms_ssl_contexts(True)["kmip"]
    assert vars(users) == before
    assert type(users._kms_ssl_contexts(True)["kmip"]) is not green_ssl.SSLContext
