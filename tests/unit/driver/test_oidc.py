"""OIDC callbacks, the user's and PyMongo's own: none may block the loop.

PyMongo's authenticators are the real ones, as the green driver has loaded
them; the connection only records commands.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

import bson
import pytest
from pymongo import auth_shared
from pymongo.auth_oidc_shared import (
    OIDCCallback,
    OIDCCallbackContext,
    OIDCCallbackResult,
    OIDCIdPInfo,
)

from motorlike.driver.loader import make_loader

caller: ContextVar[str] = ContextVar("caller", default="")


class Callback(OIDCCallback):
    def __init__(self, probe: Any) -> None:
        self.probe = probe
        self.contexts: list[OIDCCallbackContext] = []
        self.callers: list[str] = []

    def fetch(self, context: OIDCCallbackContext) -> OIDCCallbackResult:
        self.probe.block("fetch")
        self.contexts.append(context)
        self.callers.append(caller.get())
        return OIDCCallbackResult(access_token=f"token-{len(self.contexts)}")


def _oidc_credentials(loader: Any, user: str | None = None, **properties: Any) -> Any:
    # As ClientOptions builds them.
    options = {"authmechanism": "MONGODB-OIDC", "authmechanismproperties": properties}
    return loader.load("pymongo.client_options")._parse_credentials(user, None, None, options)


def _jwt(command: Any) -> Any:
    return bson.decode(command["payload"])["jwt"]


def test_a_users_oidc_callback_runs_in_the_executor_in_the_callers_context(
    connect: Any, probe: Any
) -> None:
    loader = make_loader()
    callback = Callback(probe)
    connection = connect({"done": True})

    def authenticate() -> None:
        caller.set("ann")
        oidc = loader.load("pymongo.synchronous.auth_oidc")
        oidc._authenticate_oidc(
            _oidc_credentials(loader, OIDC_CALLBACK=callback), connection, False
        )

    probe.run(authenticate)

    assert _jwt(connection.commands[0]) == "token-1"
    assert callback.callers == ["ann"]
    assert type(callback.contexts[0]) is OIDCCallbackContext


def test_an_oidc_callback_runs_in_the_executor_after_a_speculative_start(
    connect: Any, probe: Any
) -> None:
    loader = make_loader()
    callback = Callback(probe)
    connection = connect({"done": True})
    credentials = _oidc_credentials(loader, OIDC_CALLBACK=callback)
    auth = loader.load("pymongo.synchronous.auth")
    # PyMongo 4.18 keeps the class beside the function, later ones in auth_shared.
    context = getattr(auth, "_AuthContext", None) or auth_shared._AuthContext
    speculate = auth._SPECULATIVE_AUTH_MAP["MONGODB-OIDC"](credentials, connection.address)
    assert isinstance(speculate, context)

    def authenticate() -> None:
        # This makes the authenticator that all later attempts use.
        assert speculate.speculate_command() is None
        auth.authenticate(credentials, connection)

    probe.run(authenticate)

    assert probe.calls == ["fetch"]


def test_a_human_oidc_callback_runs_in_the_executor(connect: Any, probe: Any) -> None:
    loader = make_loader()
    callback = Callback(probe)
    info = {"issuer": "https://id.example.com", "clientId": "me"}
    started = {"payload": bson.encode(info), "conversationId": 7, "done": False}
    connection = connect(started, {"done": True})
    credentials = _oidc_credentials(
        loader, OIDC_HUMAN_CALLBACK=callback, ALLOWED_HOSTS=["*.example.com"]
    )

    probe.run(
        loader.load("pymongo.synchronous.auth_oidc")._authenticate_oidc,
        credentials,
        connection,
        False,
    )

    assert callback.contexts[0].idp_info == OIDCIdPInfo(**info)
    assert _jwt(connection.commands[1]) == "token-1"


def test_an_oidc_callbacks_error_reaches_the_caller(connect: Any, probe: Any) -> None:
    class Broken(Callback):
        def fetch(self, context: OIDCCallbackContext) -> OIDCCallbackResult:
            super().fetch(context)
            raise LookupError("no token today")

    loader = make_loader()
    credentials = _oidc_credentials(loader, OIDC_CALLBACK=Broken(probe))
    authenticate = loader.load("pymongo.synchronous.auth_oidc")._authenticate_oidc

    with pytest.raises(LookupError, match="no token today"):
        probe.run(authenticate, credentials, connect(), False)


@pytest.mark.parametrize("environment", ["azure", "gcp"])
def test_a_built_in_oidc_callback_asks_the_metadata_server_in_the_executor(
    connect: Any, probe: Any, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    class Response:
        status = 200

        def __enter__(self) -> Response:
            return self

        def __exit__(self, *exc_info: object) -> None: ...

        def read(self) -> bytes:
            probe.block("read")
            return b'{"access_token": "t", "expires_in": 60}'

    def urlopen(request: Any, timeout: float) -> Response:
        probe.block("urlopen")
        return Response()

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    loader = make_loader()
    credentials = _oidc_credentials(loader, ENVIRONMENT=environment, TOKEN_RESOURCE="db")
    authenticate = loader.load("pymongo.synchronous.auth_oidc")._authenticate_oidc

    probe.run(authenticate, credentials, connect({"done": True}), False)

    assert probe.calls == ["urlopen", "read"]


@pytest.mark.parametrize(
    ("environment", "variable"),
    [("test", "OIDC_TOKEN_FILE"), ("k8s", "AWS_WEB_IDENTITY_TOKEN_FILE")],
)
def test_a_built_in_oidc_callback_reads_its_file_in_the_executor(
    connect: Any,
    probe: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    environment: str,
    variable: str,
) -> None:
    token = tmp_path / "token"
    token.write_text("from-a-file")

    def probed_open(name: str) -> Any:
        probe.block("open")
        return open(name, encoding="utf-8")

    monkeypatch.setattr("pymongo.auth_oidc_shared.open", probed_open, raising=False)
    monkeypatch.setenv(variable, str(token))
    loader = make_loader()
    connection = connect({"done": True})

    probe.run(
        loader.load("pymongo.synchronous.auth_oidc")._authenticate_oidc,
        _oidc_credentials(loader, ENVIRONMENT=environment),
        connection,
        False,
    )

    assert _jwt(connection.commands[0]) == "from-a-file"
    assert probe.calls == ["open"]
