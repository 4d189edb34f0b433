"""Which PyMongo modules stay the application's own.

What users catch, pass in or get back must be the same class as in their own
`import pymongo`. `driver` loads every other module privately.

Rule: a module is shared if users hold its classes and it does no I/O itself;
nothing shared may import a module that is private, but for `HARMLESS_IMPORTS`.
"""

from __future__ import annotations

__all__ = ["HARMLESS_IMPORTS", "PRIVATE_REASONS", "SHARED"]

# Submodules of pymongo, without the prefix.
_MODULES = {
    # Held by users.
    "auth_oidc_shared",
    "change_stream_shared",
    "client_session_shared",
    "collation",
    "cursor_shared",
    "driver_info",
    "encryption_options",
    "encryption_shared",
    "errors",
    "event_loggers",
    "hello",
    "max_staleness_selectors",
    "monitoring",
    "operations",
    "pool_options",
    "read_concern",
    "read_preferences",
    "results",
    "server_api",
    "server_description",
    "server_selectors",
    "server_type",
    "topology_description",
    "typings",
    "write_concern",
    # Their state must be one: pymongo.timeout() binds it, loggers read it.
    "_csot",
    "_op_id",
    "_telemetry",
    "logger",
    # Pure functions and constants beneath these, and what the executor runs.
    "_azure_helpers",
    "_client_bulk_shared",
    "_gcp_helpers",
    "_kms_connect_shared",
    "_psl",
    "_version",
    "auth_shared",
    "bulk_shared",
    "common",
    "compression_support",
    "database_shared",
    "helpers_shared",
    "message",
    "response",
    "saslprep",
    # The asynchronous half is never run here.
    "asynchronous",
}

# The same in other packages, and the compiled binding to libmongocrypt.
_ELSEWHERE = {
    "gridfs.asynchronous",
    "gridfs.errors",
    "pymongocrypt.asynchronous",
    "pymongocrypt.binary",
    "pymongocrypt.binding",
    "pymongocrypt.compat",
    "pymongocrypt.crypto",
    "pymongocrypt.errors",
    "pymongocrypt.options",
    "pymongocrypt.version",
}

SHARED = frozenset(f"pymongo.{module}" for module in _MODULES) | _ELSEWHERE

# Public classes that do no I/O and are nevertheless private, and why.
PRIVATE_REASONS = {
    "pymongo.client_options.ClientOptions": "holds the green TLS context that it builds",
    "pymongo.encryption_options.AutoEncryptionOpts": (
        "users' own are copied into a green subclass, which is an instance of theirs"
    ),
    "pymongo.collection.ReturnDocument": "two constants, True and False, beside Collection",
}

# What a shared module may import although the driver has its own copy of it,
# and why the application's copy does no harm there.
HARMLESS_IMPORTS = {
    ("pymongo._telemetry", "pymongo.pool_shared"): "a protocol, for annotations",
    ("pymongo.encryption_options", "pymongo.uri_parser_shared"): (
        "the driver sees motorlike.driver.encryption_options instead"
    ),
    ("pymongo.helpers_shared", "pymongo"): "a constant",
    ("pymongo.pool_options", "pymongo"): "the version number",
    ("pymongo.pool_options", "pymongo.lock"): "a lock that is held across no wait",
}
