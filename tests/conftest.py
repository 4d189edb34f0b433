"""What all tests share: servers, and an eye on errors nobody saw.

Servers start when a test first asks for them and live as long as the run.

Rule: where `CI` is set, no test is skipped for want of a server.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pymongo
import pytest

from motorlike.testing import mongod as launcher
from motorlike.testing.mongod import Deployment, MongodNotFound
from tests.integration import servers
from tests.integration.servers import MariaDB, Memcached, ServerNotFound

pytest.register_assert_rewrite("tests.integration.support")

# Where event loops report what nobody awaited or caught.
_LOOP_LOGGERS = ("asyncio", "tornado.application")


_T = TypeVar("_T")


def _serve(start: Callable[[], AbstractContextManager[_T]]) -> Iterator[_T]:
    try:
        server = start()
        deployment = server.__enter__()
    except (MongodNotFound, ServerNotFound) as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))
    try:
        yield deployment
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def mongod() -> Iterator[Deployment]:
    """A standalone server with fail points."""
    yield from _serve(lambda: launcher.standalone(fail_points=True))


@pytest.fixture(scope="session")
def mongod_uri(mongod: Deployment) -> str:
    return mongod.uri


@pytest.fixture(scope="session")
def tls_mongod() -> Iterator[Deployment]:
    """A standalone server that speaks TLS and wants a login."""
    yield from _serve(lambda: launcher.standalone(tls=True, auth=True, fail_points=True))


@pytest.fixture(scope="session")
def strict_tls_mongod() -> Iterator[Deployment]:
    """A standalone server that refuses clients without a certificate."""
    yield from _serve(lambda: launcher.standalone(tls=True, tls_require_client_certificate=True))


@pytest.fixture(scope="session")
def shared_replica_set() -> Iterator[Deployment]:
    yield from _serve(lambda: launcher.replica_set(3, fail_points=True))


@pytest.fixture
def replica_set(shared_replica_set: Deployment) -> Iterator[Deployment]:
    """Three members with fail points. A test may stop some: all run again after it."""
    yield shared_replica_set
    for member in shared_replica_set.members:
        if not member.is_running:
            member.restart()
    shared_replica_set.wait_for_primary()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server with one empty database."""
    yield from _serve(servers.mariadb_server)


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    yield from _serve(servers.memcached_server)


@pytest.fixture(scope="session")
def synchronous(mongod_uri: str) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
    """The application's own PyMongo, connected to `mongod`."""
    # Polling: the second monitor that streaming starts opens its socket at some
    # later moment, while a test counts descriptors.
    with pymongo.MongoClient(mongod_uri, serverMonitoringMode="poll") as client:
        client.admin.command("ping")
        yield client


@pytest.fixture
def database_name(
    synchronous: pymongo.MongoClient[dict[str, Any]], request: pytest.FixtureRequest
) -> Iterator[str]:
    """The name of an empty database on `mongod`, dropped after the test."""
    name = f"test_{abs(hash(request.node.nodeid)):x}"
    yield name
    synchronous.drop_database(name)


@pytest.fixture(autouse=True)
def no_error_goes_unseen() -> Iterator[list[logging.LogRecord]]:
    """Fail a test in which a loop reported an error. Tests may clear the list."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append  # type: ignore[method-assign]  # the simplest handler
    loggers = [logging.getLogger(name) for name in _LOOP_LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    # Futures report what nobody retrieved when they are collected.
    gc.collect(1)
    for logger in loggers:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []
