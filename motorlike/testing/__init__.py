"""Local MongoDB servers for tests: see `motorlike.testing.mongod`."""

from motorlike.testing.mongod import (
    Deployment,
    Member,
    MongodFailed,
    MongodNotFound,
    PortTaken,
    find_mongod,
    replica_set,
    standalone,
)

__all__ = [
    "Deployment",
    "Member",
    "MongodFailed",
    "MongodNotFound",
    "PortTaken",
    "find_mongod",
    "replica_set",
    "standalone",
]
