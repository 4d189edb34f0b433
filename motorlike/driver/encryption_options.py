"""`AutoEncryptionOpts`, as the green driver sees them.

The options hold two things that do I/O: the TLS contexts for the key
management services, and the user's `kms_connect_callback`. Users keep PyMongo's
own class; the driver works on a copy in which both are green.

Rule: the user's object is never changed. The same one may serve PyMongo's own
clients too.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from pymongo import encryption_options as _original

from motorlike.driver import loader
from motorlike.green import offload
from motorlike.green.socket import socket as green_socket

__all__ = ["AutoEncryptionOpts", "green"]


class AutoEncryptionOpts(_original.AutoEncryptionOpts):
    """`pymongo.encryption_options.AutoEncryptionOpts` with green TLS contexts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._offload_callback()

    @classmethod
    def of(cls, options: _original.AutoEncryptionOpts) -> AutoEncryptionOpts:
        """Return a green copy of *options*, or themselves if they are one."""
        if isinstance(options, cls):
            return options
        self = cls.__new__(cls)
        vars(self).update(vars(options))
        self._sync_kms_ssl_contexts = None
        self._offload_callback()
        return self

    def _offload_callback(self) -> None:
        # PyMongo 4.18 has none.
        callback = vars(self).get("_kms_connect_callback")
        if callback is not None:
            self._kms_connect_callback = _Connect(callback)

    def _kms_ssl_contexts(self, is_sync: bool) -> dict[str, Any]:
        if self._sync_kms_ssl_contexts is None:
            parse = loader.load("pymongo.uri_parser_shared")._parse_kms_tls_options
            self._sync_kms_ssl_contexts = parse(self._kms_tls_options, is_sync)
        return self._sync_kms_ssl_contexts


def green(options: Any) -> Any:  # `Any`: what are no options is PyMongo's to refuse
    """Return a green copy of *options*, and anything else as it is."""
    if isinstance(options, _original.AutoEncryptionOpts):
        return AutoEncryptionOpts.of(options)
    return options


class _Connect:
    """A `kms_connect_callback`, called in the executor; its socket turns green."""

    def __init__(self, callback: Callable[[Any], Any]) -> None:
        self._callback = callback

    def __call__(self, context: Any) -> Any:
        handover = _Handover()
        try:
            made = offload(handover.fill, self._callback, context)
        except BaseException:
            handover.abandon()
            raise
        if isinstance(made, socket.socket) and not isinstance(made, ssl.SSLSocket):
            return green_socket._wrap(made)
        # PyMongo refuses it, and says what it wants.
        return made


class _Handover:
    """A socket on its way out of the executor; closed if nobody waits any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: Any = None
        self._is_abandoned = False

    def fill(self, callback: Callable[[Any], Any], context: Any) -> Any:
        """Call *callback* and keep what it returns. In the executor."""
        made = callback(context)
        with self._lock:
            self._made = made
            is_abandoned = self._is_abandoned
        if is_abandoned:
            _close(made)
        return made

    def abandon(self) -> None:
        """Close the socket, now or as soon as there is one."""
        with self._lock:
            self._is_abandoned = True
            made = self._made
        _close(made)


def _close(made: Any) -> None:
    if isinstance(made, socket.socket):
        made.close()
