"""The launchers of MariaDB and memcached, and what they leave behind: nothing."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.integration.servers import (
    MariaDB,
    ServerNotFound,
    mariadb_server,
    memcached_server,
)


def refuses(port: int) -> bool:
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        pass
    return True


def test_a_mariadb_of_ones_own_beside_the_shared_one(mariadb: MariaDB) -> None:
    with mariadb_server("--max-connections=17") as server:
        assert server.port != mariadb.port
        assert server.query("SELECT @@max_connections, DATABASE()") == ((17, server.database),)
        assert server.query("SHOW TABLES") == ()
        assert server.status("Threads_connected") == 1
        folder = Path(server.unix_socket).parent
        assert folder.is_dir()
    assert refuses(server.port)
    assert not folder.exists()
    assert mariadb.query("SELECT 1") == ((1,),)


@pytest.mark.usefixtures("memcached")
def test_a_memcached_of_ones_own() -> None:
    with memcached_server("-c", "77") as server:
        assert server.stats()["max_connections"] == "77"
    assert refuses(server.port)


def test_a_server_that_ends_at_once_is_reported_with_its_log(mariadb: MariaDB) -> None:
    with (
        pytest.raises(RuntimeError, match=r"(?s)ended with code.*no-such-option"),
        mariadb_server("--no-such-option"),
    ):
        pass
    assert mariadb.query("SELECT 1") == ((1,),)


def test_a_program_that_is_missing_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=os.defpath: None)
    for launcher, package in ((mariadb_server, "mariadb-server"), (memcached_server, "memcached")):
        with pytest.raises(ServerNotFound, match=f"apt-get install .*{package}"), launcher():
            pass
