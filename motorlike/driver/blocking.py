"""What PyMongo calls out to and cannot run green: it goes to the executor.

Kerberos, AWS and OIDC libraries, OCSP's HTTP requests and DNS block the thread
they run on. The green driver sees stand-ins of them whose calls run in the
loop's executor, while the greenlet waits.

Rule: a call is offloaded whole, with its result complete: nothing that it
returns may block later.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from pymongo.auth_oidc_shared import (
    OIDCCallback,
    OIDCCallbackContext,
    OIDCCallbackResult,
    _OIDCProperties,
)

from motorlike.green import in_greenlet, offload

__all__ = ["replacements", "stand_ins"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Given the name and the value of a module's attribute, returns what the
# driver sees there. Any: an attribute may be anything.
_View = Callable[[str, Any], Any]
_StandIns = Mapping[str, ModuleType]


def stand_ins() -> _StandIns:
    """Return the stand-ins for libraries, by the name of what they stand in for.

    One that is not installed has none: importing it then fails in the way
    that PyMongo knows how to explain.
    """
    return {**_kerberos(), **_aws(), **_dns(), **_requests()}


def replacements() -> _StandIns:
    """Return the modules of the loaded packages that are seen differently inside.

    They are the application's own, but for single functions that block.
    """
    credentials = "pymongocrypt.synchronous.credentials"
    return {
        "pymongo.auth_shared": _StandIn("pymongo.auth_shared", _see_auth_shared),
        # It starts mongocryptd, and waits for that.
        "pymongo.daemon": _StandIn("pymongo.daemon", _offloading("_spawn_daemon")),
        "pymongo.encryption_options": _StandIn(
            "pymongo.encryption_options", _see_encryption_options
        ),
        # AWS, Azure and Google hand out the credentials for a KMS over HTTP.
        credentials: _StandIn(credentials, _offloading("_ask_for_kms_credentials")),
    }


class _StandIn(ModuleType):
    """A module of which the driver sees some attributes differently.

    Args:
        name: The module, imported when an attribute is first asked for.
        view: What is seen of its attributes.
        is_imported_late: PyMongo imports it in the middle of an operation;
            it is large, so that this happens in the executor.
    """

    def __init__(self, name: str, view: _View, *, is_imported_late: bool = False) -> None:
        super().__init__(name)
        self._view = view
        self._is_imported_late = is_imported_late
        self._original: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        return self._view(name, getattr(self._imported(), name))

    def _imported(self) -> ModuleType:
        if self._original is None:
            run: Callable[..., ModuleType] = _run
            if self._is_imported_late and in_greenlet():
                run = offload
            self._original = run(importlib.import_module, self.__name__)
        return self._original


def _run(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    return function(*args, **kwargs)


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        # None there is how an import is forbidden.
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def _can_import(name: str) -> bool:
    # PyMongo decides by this, when it is imported.
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _offloaded(function: Callable[_P, _T]) -> Callable[_P, _T]:
    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return offload(function, *args, **kwargs)

    return call


def _offloading(*names: str) -> _View:
    def view(name: str, value: Any) -> Any:
        return _offloaded(value) if name in names else value

    return view


# -- PyMongo's own modules ----------------------------------------------------


class _OffloadedCallback(OIDCCallback):
    """An OIDC callback, PyMongo's or the user's, that is called in the executor."""

    def __init__(self, callback: OIDCCallback) -> None:
        self._callback = callback

    def fetch(self, context: OIDCCallbackContext) -> OIDCCallbackResult:
        return offload(self._callback.fetch, context)


def _see_auth_shared(name: str, value: Any) -> Any:
    if name != "_build_credentials_tuple":
        return value

    # All callbacks pass here, however a connection authenticates later:
    # speculatively or not, for the first time or again.
    @functools.wraps(value)
    def build(*args: Any, **kwargs: Any) -> Any:
        credentials = value(*args, **kwargs)
        properties = credentials.mechanism_properties
        if isinstance(properties, _OIDCProperties):
            return credentials._replace(mechanism_properties=_offload_callbacks(properties))
        return credentials

    return build


def _offload_callbacks(properties: _OIDCProperties) -> _OIDCProperties:
    machine, human = properties.callback, properties.human_callback
    return replace(
        properties,
        callback=machine and _OffloadedCallback(machine),
        human_callback=human and _OffloadedCallback(human),
    )


def _see_encryption_options(name: str, value: Any) -> Any:
    if name != "AutoEncryptionOpts":
        return value
    # It is built on the loaded driver, so it cannot be imported before that.
    return importlib.import_module("motorlike.driver.encryption_options").AutoEncryptionOpts


# -- the libraries ------------------------------------------------------------


def _kerberos() -> _StandIns:
    names = [name for name in ("kerberos", "winkerberos") if _can_import(name)]
    return {name: _StandIn(name, _see_kerberos) for name in names}


def _see_kerberos(name: str, value: Any) -> Any:
    return _offloaded(value) if name.startswith("authGSS") else value


def _aws() -> _StandIns:
    if not _is_installed("pymongo_auth_aws"):
        return {}
    return {
        "pymongo_auth_aws": _StandIn("pymongo_auth_aws", _see_aws, is_imported_late=True),
        "pymongo_auth_aws.auth": _StandIn(
            "pymongo_auth_aws.auth", _offloading("aws_temp_credentials"), is_imported_late=True
        ),
    }


def _see_aws(name: str, value: Any) -> Any:
    if name != "AwsSaslContext":
        return value

    def step(self: Any, server_payload: Any) -> Any:
        # The first step may ask the machine's metadata server for credentials.
        return offload(value.step, self, server_payload)

    # PyMongo subclasses it, to tell it of BSON.
    return type(name, (value,), {"step": step})


def _dns() -> _StandIns:
    if not _is_installed("dns"):
        return {}
    resolver = _StandIn("dns.resolver", _offloading("resolve"), is_imported_late=True)
    package = _StandIn("dns", lambda _, value: value, is_imported_late=True)
    # As the import of a submodule does.
    vars(package)["resolver"] = resolver
    return {"dns": package, "dns.resolver": resolver}


def _requests() -> _StandIns:
    # Imported for OCSP only, so only where pyOpenSSL is installed too.
    return {"requests": _StandIn("requests", _see_requests)}


def _see_requests(name: str, value: Any) -> Any:
    if name != "post":
        return value

    @functools.wraps(value)
    def post(*args: Any, **kwargs: Any) -> Any:
        response = value(*args, **kwargs)
        # Receives what has not arrived yet.
        _ = response.content
        return response

    return _offloaded(post)
