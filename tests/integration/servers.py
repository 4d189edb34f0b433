"""Private MariaDB and memcached servers, for tests of other drivers than PyMongo.

The fixtures `mariadb` and `memcached` in `tests/conftest.py` hold one of each
for the whole run; a test that breaks its server starts one of its own. The
programs come from Debian's packages.

Rule: a server owns all that it touches: its data, port and UNIX socket are in
a temporary folder, and the guard process ends it, however the tests end.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from motorlike.testing._process import Guard, free_ports, tail_of

__all__ = ["MariaDB", "Memcached", "ServerNotFound", "mariadb_server", "memcached_server"]

HOST = "127.0.0.1"
_START_SECONDS = 60.0
_POLL_SECONDS = 0.05


class ServerNotFound(RuntimeError):
    """The program of a server is not installed."""


@dataclass(frozen=True)
class MariaDB:
    """A running `mariadbd`. *user* may do everything, over TCP, with TLS and without.

    Attributes:
        unix_socket: Path of its UNIX domain socket.
        database: An empty database.
        ca_file: The authority that signed its certificate, for `localhost` and 127.0.0.1.
        tls_only_user: Like *user*, but refused where the connection is not TLS.
    """

    port: int
    unix_socket: str
    ca_file: str
    host: str = HOST
    user: str = "motorlike"
    password: str = "secret"
    database: str = "test"
    tls_only_user: str = "motorlike_tls"

    @property
    def options(self) -> dict[str, Any]:
        """What PyMySQL's `connect` takes: host, port, user, password and database."""
        names = ("host", "port", "user", "password", "database")
        return {name: getattr(self, name) for name in names}

    def tls_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def status(self, name: str) -> int:
        """Return a number of ``SHOW GLOBAL STATUS``, asked by a connection of its own."""
        return int(self.query("SHOW GLOBAL STATUS LIKE %s", name)[0][1])

    def query(self, sql: str, *arguments: Any) -> Any:
        """Run one statement on a connection of its own, by the application's own PyMySQL."""
        import pymysql

        connection = pymysql.connect(**self.options, autocommit=True)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, arguments or None)
                return cursor.fetchall()
        finally:
            connection.close()


@dataclass(frozen=True)
class Memcached:
    """A running `memcached`."""

    port: int
    host: str = HOST

    @property
    def address(self) -> tuple[str, int]:
        return (self.host, self.port)

    def stats(self) -> dict[str, str]:
        """Return what the command ``stats`` answers, asked by a connection of its own."""
        with socket.create_connection(self.address, timeout=10) as connection:
            connection.sendall(b"stats\r\n")
            reply = b""
            while not reply.endswith(b"END\r\n"):
                reply += connection.recv(1 << 16)
        lines = reply.decode().splitlines()[:-1]
        return dict(line.removeprefix("STAT ").split(" ", 1) for line in lines)  # type: ignore[misc]  # pairs


@contextmanager
def mariadb_server(*options: str) -> Iterator[MariaDB]:
    """Start a `mariadbd` on new data. *options* are added to its command line.

    Raises:
        ServerNotFound: It is not installed.
    """
    program = _find("mariadbd", package="mariadb-server")
    installer = _find("mariadb-install-db", package="mariadb-server")
    with _guard() as guard:
        (port,) = free_ports(1)
        server = MariaDB(port, str(guard.folder / "mysqld.sock"), str(guard.folder / "ca.pem"))
        _write_certificates(guard.folder)
        _write_users(server, guard.folder / "init.sql")
        data = ["--no-defaults", f"--datadir={guard.folder / 'data'}"]
        # It refuses to run as root, unless told to.
        data += ["--user=root"] if os.geteuid() == 0 else []
        _install(installer, data, guard.folder)
        argv = [program, *data, *_mariadb_arguments(server, guard.folder), *options]
        _start(guard, argv, port, _greets)
        yield server


@contextmanager
def memcached_server(*options: str) -> Iterator[Memcached]:
    """Start a `memcached`. *options* are added to its command line.

    Raises:
        ServerNotFound: It is not installed.
    """
    program = _find("memcached", package="memcached")
    with _guard() as guard:
        (port,) = free_ports(1)
        user = ["-u", "root"] if os.geteuid() == 0 else []
        _start(guard, [program, "-l", HOST, "-p", str(port), *user, *options], port, _accepts)
        yield Memcached(port)


@contextmanager
def _guard() -> Iterator[Guard]:
    guard = Guard()
    try:
        yield guard
    finally:
        guard.close()


def _find(program: str, *, package: str) -> str:
    # Debian keeps servers in a folder that is not on every user's path.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        raise ServerNotFound(
            f"{program} is not installed. Run apt-get install --no-install-recommends {package}, "
            "or .ci/run, which does it."
        )
    return found


def _install(installer: str, data: list[str], folder: Path) -> None:
    command = [installer, *data, "--skip-test-db", "--auth-root-authentication-method=normal"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{installer} failed: {done.stdout}{done.stderr}")


def _mariadb_arguments(server: MariaDB, folder: Path) -> list[str]:
    return [
        f"--port={server.port}",
        f"--bind-address={HOST}",
        f"--socket={server.unix_socket}",
        f"--pid-file={folder / 'mysqld.pid'}",
        f"--init-file={folder / 'init.sql'}",
        f"--ssl-ca={server.ca_file}",
        f"--ssl-cert={folder / 'server.pem'}",
        f"--ssl-key={folder / 'server.key'}",
        "--skip-name-resolve",
        "--max-connections=400",
        # The data is thrown away: small, and not flushed.
        "--innodb-buffer-pool-size=32M",
        "--innodb-flush-log-at-trx-commit=0",
        "--skip-log-bin",
    ]


def _write_certificates(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("localhost", HOST)
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(folder / "server.pem"), append=True)


def _write_users(server: MariaDB, file: Path) -> None:
    # One statement a line, which is how an init file is read.
    lines = [f"CREATE DATABASE {server.database} CHARACTER SET utf8mb4;"]
    for user, condition in ((server.user, ""), (server.tls_only_user, " REQUIRE SSL")):
        lines.append(f"CREATE USER '{user}'@'%' IDENTIFIED BY '{server.password}'{condition};")
        lines.append(f"GRANT ALL ON *.* TO '{user}'@'%' WITH GRANT OPTION;")
    file.write_text("\n".join(lines) + "\n")


def _start(guard: Guard, argv: list[str], port: int, is_up: Callable[[int], bool]) -> None:
    log = guard.folder / "server.log"
    pid = guard.start(argv, log)
    deadline = time.monotonic() + _START_SECONDS
    while not is_up(port):
        code = guard.poll(pid)
        if code is not None:
            raise RuntimeError(f"{argv[0]} ended with code {code}:\n{tail_of(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{argv[0]} did not answer in {_START_SECONDS} s:\n{tail_of(log)}")
        time.sleep(_POLL_SECONDS)


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=5):
        return True
    return False


def _greets(port: int) -> bool:
    # The server speaks first, when it has executed its init file.
    with suppress(OSError), socket.create_connection((HOST, port), timeout=5) as connection:
        return bool(connection.recv(1))
    return False
