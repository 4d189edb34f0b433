"""Calls into Kerberos, AWS, DNS and HTTP libraries: none may block the loop.

The libraries are fakes on `sys.path`; PyMongo's functions are the real ones, as
the green driver has loaded them.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.binary import Binary
from pymongo import auth_shared
from pymongo.errors import ConfigurationError, OperationFailure

from motorlike.driver.loader import make_loader
from motorlike.errors import NotInGreenlet

# -- GSSAPI -----------------------------------------------------------------

KERBEROS = """
    import blocking_probe

    GSS_C_MUTUAL_FLAG, AUTH_GSS_COMPLETE, __version__ = 2, 1, "1.0"

    class KrbError(Exception):
        pass

    def authGSSClientInit(service, **options):
        blocking_probe.block("init")
        if service.startswith("broken"):
            raise KrbError("no ticket")
        return AUTH_GSS_COMPLETE, [service]

    def authGSSClientStep(ctx, challenge):
        blocking_probe.block("step")
        ctx.append(challenge)
        return 1 if challenge else 0

    def authGSSClientResponse(ctx):
        blocking_probe.block("response")
        return "response"

    def authGSSClientUnwrap(ctx, challenge):
        blocking_probe.block("unwrap")
        return 1

    def authGSSClientWrap(ctx, data, user):
        blocking_probe.block("wrap")
        return 1

    def authGSSClientClean(ctx):
        blocking_probe.block("clean")
        return 1
"""


def _gssapi_credentials(service: str) -> Any:
    options = {"authmechanismproperties": {"SERVICE_NAME": service}}
    return auth_shared._build_credentials_tuple("GSSAPI", None, "ann@REALM", "pw", options, None)


def test_every_gssapi_call_runs_in_the_executor(
    connect: Any, probe: Any, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("kerberos", KERBEROS)
    monkeypatch.setitem(sys.modules, "winkerberos", None)
    auth = make_loader().load("pymongo.synchronous.auth")
    challenge = {"payload": "challenge", "conversationId": 7, "done": False}
    connection = connect(challenge, challenge, {**challenge, "done": True})

    probe.run(auth._authenticate_gssapi, _gssapi_credentials("mongodb"), connection)

    assert set(probe.calls) == {"init", "step", "response", "unwrap", "wrap", "clean"}
    assert connection.commands[0]["payload"] == "response"


def test_a_gssapi_error_reaches_pymongo_as_the_librarys_own_class(
    connect: Any, probe: Any, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("kerberos", KERBEROS)
    monkeypatch.setitem(sys.modules, "winkerberos", None)
    auth = make_loader().load("pymongo.synchronous.auth")

    with pytest.raises(OperationFailure, match="no ticket"):
        probe.run(auth._authenticate_gssapi, _gssapi_credentials("broken"), connect())


def test_an_absent_kerberos_is_absent_for_the_driver_too(
    connect: Any, probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kerberos", "winkerberos"):
        monkeypatch.setitem(sys.modules, name, None)
    auth = make_loader().load("pymongo.synchronous.auth")

    with pytest.raises(ConfigurationError, match="kerberos"):
        probe.run(auth._authenticate_gssapi, _gssapi_credentials("mongodb"), connect())


# -- AWS --------------------------------------------------------------------

AWS = """
    import blocking_probe
    from pymongo_auth_aws.auth import AwsCredential, AwsSaslContext

    __version__ = "1.0"
    blocking_probe.block("import")

    class PyMongoAuthAwsError(Exception):
        pass
"""
AWS_AUTH = """
    import blocking_probe

    cached = []

    def set_use_cached_credentials(value):
        pass

    def set_cached_credentials(credentials):
        cached.append(credentials)

    class AwsCredential:
        def __init__(self, username, password, token):
            self.username = username

    class AwsSaslContext:
        def __init__(self, credentials):
            self.credentials = credentials

        def step(self, payload):
            blocking_probe.block("step")
            if self.credentials.username == "nobody":
                import pymongo_auth_aws
                raise pymongo_auth_aws.PyMongoAuthAwsError("no credentials")
            if payload is not None:
                assert self.bson_decode(payload) == {"s": 1}
            return self.binary_type()(self.bson_encode({"user": self.credentials.username}))
"""


def _aws_credentials(user: str) -> Any:
    return auth_shared._build_credentials_tuple("MONGODB-AWS", None, user, "pw", {}, None)


def test_every_aws_step_and_the_import_run_in_the_executor(
    connect: Any, probe: Any, install: Callable[..., None]
) -> None:
    install("pymongo_auth_aws", AWS, auth=AWS_AUTH)
    auth_aws = make_loader().load("pymongo.synchronous.auth_aws")
    reply = {"payload": bson.encode({"s": 1}), "conversationId": 7, "done": True}
    connection = connect(reply, reply)

    probe.run(auth_aws._authenticate_aws, _aws_credentials("ann"), connection)

    assert probe.calls == ["import", "step", "step"]
    payload = connection.commands[0]["payload"]
    assert type(payload) is Binary
    assert bson.decode(payload) == {"user": "ann"}


def test_an_aws_error_reaches_pymongo_and_clears_the_cache(
    connect: Any, probe: Any, install: Callable[..., None]
) -> None:
    install("pymongo_auth_aws", AWS, auth=AWS_AUTH)
    auth_aws = make_loader().load("pymongo.synchronous.auth_aws")

    with pytest.raises(OperationFailure, match=r"no credentials \(pymongo-auth-aws version 1.0\)"):
        probe.run(auth_aws._authenticate_aws, _aws_credentials("nobody"), connect())
    assert importlib.import_module("pymongo_auth_aws.auth").cached == [None]


def test_an_absent_aws_library_is_absent_for_the_driver_too(
    connect: Any, probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymongo_auth_aws", None)
    auth_aws = make_loader().load("pymongo.synchronous.auth_aws")

    with pytest.raises(ConfigurationError, match="pymongo-auth-aws"):
        probe.run(auth_aws._authenticate_aws, _aws_credentials("ann"), connect())


# -- DNS --------------------------------------------------------------------

RESOLVER = """
    import blocking_probe

    class NXDOMAIN(Exception):
        pass

    class NoAnswer(Exception):
        pass

    class Target:
        def to_text(self, omit_final_dot):
            return "a.example.com"

    class Record:
        target, port, strings = Target(), 27018, [b"replicaSet=rs"]

    def resolve(name, kind, lifetime):
        blocking_probe.block(kind)
        if name == "nowhere.example.com":
            raise NXDOMAIN
        if "missing" in name:
            raise NXDOMAIN("The DNS query name does not exist")
        return [Record]
"""


def test_srv_and_txt_are_looked_up_in_the_executor(
    probe: Any, install: Callable[..., None]
) -> None:
    install("dns", resolver=RESOLVER)
    parser = make_loader().load("pymongo.uri_parser")

    parsed = probe.run(parser.parse_uri, "mongodb+srv://db.example.com/app")

    assert probe.calls == ["SRV", "TXT"]
    assert parsed["nodelist"] == [("a.example.com", 27018)]
    assert parsed["options"]["replicaSet"] == "rs"


def test_an_error_of_the_resolver_reaches_pymongo_as_the_librarys_own_class(
    probe: Any, install: Callable[..., None]
) -> None:
    install("dns", resolver=RESOLVER)
    parser = make_loader().load("pymongo.uri_parser")

    # No TXT record is no error, and PyMongo knows it by the exception's class.
    parsed = probe.run(parser.parse_uri, "mongodb+srv://nowhere.example.com")
    assert "replicaSet" not in parsed["options"]
    with pytest.raises(ConfigurationError, match="DNS query name does not exist"):
        probe.run(parser.parse_uri, "mongodb+srv://missing.example.com")


def test_an_absent_dnspython_gives_pymongos_own_error(
    probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dns", None)
    parser = make_loader().load("pymongo.uri_parser")

    with pytest.raises(ConfigurationError, match='The "dnspython" module must be installed'):
        probe.run(parser.parse_uri, "mongodb+srv://db.example.com")


def test_a_lookup_on_the_loop_outside_a_greenlet_says_so(
    probe: Any, install: Callable[..., None]
) -> None:
    install("dns", resolver=RESOLVER)
    parser = make_loader().load("pymongo.uri_parser")

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="outside a motorlike greenlet") as caught:
            parser.parse_uri("mongodb+srv://db.example.com")
        assert isinstance(caught.value.__cause__, NotInGreenlet)

    asyncio.run(main())


SRV_CLIENT = """
    import asyncio, sys, threading
    from types import SimpleNamespace

    loop_thread = threading.get_ident()
    lookups = []

    def block(kind):
        assert threading.get_ident() != loop_thread
        lookups.append(kind)
        ticked = threading.Event()
        loop.call_soon_threadsafe(ticked.set)
        assert ticked.wait(10)

    sys.modules["blocking_probe"] = SimpleNamespace(block=block)
    sys.path.insert(0, {folder!r})

    from pymongo.errors import ServerSelectionTimeoutError
    from motorlike import green
    from motorlike.driver import MongoClient

    async def main():
        global loop
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 10
        # Here, outside a greenlet, nothing is looked up yet.
        client = MongoClient("mongodb+srv://db.example.com", serverSelectionTimeoutMS=10)
        assert lookups == []
        pings = [green.spawn(client.admin.command, "ping") for _ in range(20)]
        for error in await asyncio.gather(*pings, return_exceptions=True):
            assert isinstance(error, ServerSelectionTimeoutError), repr(error)
        assert lookups == ["SRV", "TXT"], lookups
        assert client.options.replica_set_name == "rs"
        description = client.topology_description
        assert list(description.server_descriptions()) == [("a.example.com", 27018)]
        await green.spawn(client.close)

    asyncio.run(main())
"""


def test_a_client_looks_up_its_srv_name_once_at_its_first_operations(
    tmp_path: Path, install: Callable[..., None]
) -> None:
    install("dns", resolver=RESOLVER)
    script = textwrap.dedent(SRV_CLIENT).format(folder=str(tmp_path))
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script]

    result = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (result.returncode, result.stderr) == (0, "")


# -- OCSP -------------------------------------------------------------------


def test_an_ocsp_answer_is_received_whole_in_the_executor(
    probe: Any, install: Callable[..., None]
) -> None:
    pytest.importorskip("cryptography")
    source = """
        import blocking_probe

        class Response:
            status_code = 200

            @property
            def content(self):
                blocking_probe.block("content")
                return b"body"

        def post(url, **options):
            blocking_probe.block("post")
            return Response()
    """
    install("requests", source, exceptions="class RequestException(Exception): ...")
    support = make_loader().load("pymongo.ocsp_support")

    response = probe.run(support._post, "http://ocsp.example.com")

    assert response.status_code == 200
    assert probe.calls == ["post", "content"]
