"""Which PyMongo modules stay the application's own.

What users catch, pass in or get back must be the same class as in their own
`import pymongo`. `driver` loads every other module privately.

Rule: a module is shared if users hold its classes and it does no I/O itself;
nothing shared may import a module that is private.
"""

from __future__ import annotations

__all__ = ["PRIVATE_REASONS", "SHARED"]

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
    # Pure functions and constants beneath these.
    "_client_bulk_shared",
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

SHARED = frozenset(f"pymongo.{module}" for module in _MODULES)

# Public classes that do no I/O and are nevertheless private, and why.
PRIVATE_REASONS = {
    "pymongo.client_options.ClientOptions": "holds the green TLS context that it builds",
}
