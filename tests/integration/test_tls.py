"""TLS, logins, Unix sockets and compression against a real server."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from motorlike import MotorClient
from motorlike.driver import load
from motorlike.green.hub import current_hub
from motorlike.testing.certificates import write_certificates
from motorlike.testing.mongod import Deployment, standalone
from tests.integration.support import CommandLog, assert_pool_is_at_rest, run

SOON: dict[str, Any] = {"serverSelectionTimeoutMS": 1500}


async def exchange(client: MotorClient, name: str = "tls_test") -> None:
    """Send and receive small and large documents, many at a time."""
    items = client[name].items
    large = "x" * 3_000_000
    await items.insert_many([{"_id": i, "text": f"text {i}"} for i in range(50)])
    await asyncio.gather(
        *(items.insert_one({"_id": f"large {i}", "text": large}) for i in range(4))
    )
    found = await asyncio.gather(*(items.find_one({"_id": i}) for i in range(50)))
    assert [document["text"] for document in found] == [f"text {i}" for i in range(50)]
    async for document in items.find({"_id": {"$regex": "^large"}}):
        assert document["text"] == large
    await client.drop_database(name)
    assert_pool_is_at_rest(client)


def test_a_server_with_tls_and_a_login_is_spoken_to(tls_mongod: Deployment) -> None:
    async def main() -> None:
        async with MotorClient(tls_mongod.uri) as client:
            await exchange(client)
            stream = next(iter(current_hub().streams.values()))
            # PyMongo encrypts by itself where pyOpenSSL is installed.
            by_pyopenssl = load("pymongo.ssl_support").HAVE_PYSSL
            assert isinstance(stream.socket, ssl.SSLSocket) != by_pyopenssl  # type: ignore[attr-defined]  # a stream
            status = await client.admin.command("connectionStatus")
            assert status["authInfo"]["authenticatedUsers"] == [{"user": "root", "db": "admin"}]

    run(main())


def test_a_server_whose_authority_is_unknown_is_refused(tls_mongod: Deployment) -> None:
    options = {**tls_mongod.client_options}
    del options["tlsCAFile"]

    async def main() -> None:
        async with MotorClient(*tls_mongod.address, **options, **SOON) as client:
            with pytest.raises(ServerSelectionTimeoutError, match=r"(?i)certificate.verify.failed"):
                await client.admin.command("ping")

    run(main())


def test_a_server_of_another_authority_is_refused(tls_mongod: Deployment, tmp_path: Path) -> None:
    options = {**tls_mongod.client_options, "tlsCAFile": write_certificates(tmp_path).ca_file}

    async def main() -> None:
        async with MotorClient(*tls_mongod.address, **options, **SOON) as client:
            with pytest.raises(ServerSelectionTimeoutError, match=r"(?i)certificate.verify.failed"):
                await client.admin.command("ping")

    run(main())


# Loopback addresses that the server's certificate does not name.
OTHER_HOST = "127.0.0.2"


@pytest.fixture(scope="module")
def everywhere() -> Any:
    """A server that also listens where its certificate does not say."""

    with standalone(tls=True, extra_args=["--bind_ip", f"127.0.0.1,{OTHER_HOST}"]) as server:
        yield server


def test_a_certificate_for_another_host_is_refused(everywhere: Deployment) -> None:
    async def main() -> None:
        options = {**everywhere.client_options, **SOON}
        async with MotorClient(OTHER_HOST, everywhere.port, **options) as client:
            with pytest.raises(
                ServerSelectionTimeoutError, match=r"(?i)(mismatch|doesn't match|not valid for)"
            ):
                await client.admin.command("ping")

    run(main())


@pytest.mark.parametrize("option", ["tlsAllowInvalidHostnames", "tlsInsecure"])
def test_a_certificate_for_another_host_is_accepted_on_request(
    option: str, everywhere: Deployment
) -> None:
    async def main() -> None:
        options = {**everywhere.client_options, **SOON, option: True}
        if option == "tlsInsecure":
            del options["tlsCAFile"]
        async with MotorClient(OTHER_HOST, everywhere.port, **options) as client:
            assert (await client.admin.command("ping"))["ok"] == 1

    run(main())


def test_a_client_certificate_is_shown_where_the_server_wants_one(
    strict_tls_mongod: Deployment,
) -> None:
    async def main() -> None:
        async with MotorClient(strict_tls_mongod.uri) as client:
            await exchange(client)
        options = {**strict_tls_mongod.client_options, **SOON}
        del options["tlsCertificateKeyFile"]
        async with MotorClient(*strict_tls_mongod.address, **options) as client:
            with pytest.raises(ServerSelectionTimeoutError):
                await client.admin.command("ping")

    run(main())


def test_a_plain_client_of_a_tls_server_fails_with_a_reason(tls_mongod: Deployment) -> None:
    async def main() -> None:
        async with MotorClient(*tls_mongod.address, **SOON) as client:
            with pytest.raises(ServerSelectionTimeoutError, match=r"closed|reset"):
                await client.admin.command("ping")

    run(main())


def test_a_tls_client_of_a_plain_server_fails_with_a_reason(mongod: Deployment) -> None:
    async def main() -> None:
        async with MotorClient(mongod.uri, tls=True, **SOON) as client:
            with pytest.raises(ServerSelectionTimeoutError, match=r"(?i)ssl|closed|reset|eof"):
                await client.admin.command("ping")

    run(main())


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1", None])
def test_scram_logs_in_over_tls(mechanism: str | None, tls_mongod: Deployment) -> None:
    options = dict(tls_mongod.client_options)
    if mechanism is not None:
        options["authMechanism"] = mechanism

    async def main() -> None:
        async with MotorClient(*tls_mongod.address, **options) as client:
            assert (await client.admin.command("ping"))["ok"] == 1
            assert await client.list_database_names()

    run(main())


def test_a_wrong_password_is_an_operation_failure(tls_mongod: Deployment) -> None:
    options = {**tls_mongod.client_options, "password": "wrong"}

    async def main() -> None:
        async with MotorClient(*tls_mongod.address, **options) as client:
            with pytest.raises(OperationFailure, match="Authentication failed") as caught:
                await client.db.items.find_one()
            assert caught.value.code == 18
            assert_pool_is_at_rest(client)

    run(main())


def test_a_unix_socket_is_spoken_to_plainly(mongod: Deployment) -> None:
    async def main() -> None:
        async with MotorClient(mongod.unix_socket_uri) as client:
            await exchange(client, "unix_test")
            assert await client.admin.command("ping")
            assert client.address == (mongod.unix_socket, None)

    run(main())


def test_a_unix_socket_is_spoken_to_over_tls(tls_mongod: Deployment) -> None:
    async def main() -> None:
        async with MotorClient(tls_mongod.unix_socket_uri) as client:
            await exchange(client)

    run(main())


def test_messages_are_compressed_on_request(mongod: Deployment) -> None:
    async def main() -> None:
        log = CommandLog()
        async with MotorClient(mongod.uri, compressors="zlib", event_listeners=[log]) as client:
            await exchange(client, "zlib_test")
            status = await client.admin.command("serverStatus")
            assert status["network"]["compression"]["zlib"]["decompressor"]["bytesIn"] > 0

    run(main())
