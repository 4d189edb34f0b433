"""A standalone server or a replica set that runs for the length of a `with`.

`motorlike.testing.mongod` hands these out. They are set up with PyMongo's
ordinary synchronous client, never with motorlike, which they help to test.

Rule: what `running` yields is ready. Every member answers, a replica set has
its primary and all its secondaries, the user can log in on each.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from pymongo import MongoClient, WriteConcern
from pymongo.errors import ConnectionFailure

from motorlike.testing._binary import find_mongod, version_of
from motorlike.testing._member import (
    REPLICA_SET_NAME,
    Member,
    Options,
    PortTaken,
    mongod_arguments,
)
from motorlike.testing._process import Guard, MongodFailed, free_ports

if TYPE_CHECKING:
    from motorlike.testing.certificates import Certificates

__all__ = ["Deployment", "running"]

# Fixed, so that data kept with a `dbpath` can be opened again. The server
# listens on the loopback interface only.
USERNAME = "root"
PASSWORD = "local-test-only"

# Far below the defaults, 10 s, 2 s and 10 s: tests wait for elections.
_ELECTION_SETTINGS = {
    "electionTimeoutMillis": 1500,
    "heartbeatIntervalMillis": 500,
    "heartbeatTimeoutSecs": 2,
}
_PORT_ATTEMPTS = 5
_POLL_SECONDS = 0.05
_READY_SECONDS = 60.0
_ANSWER_SECONDS = 2.0


@contextmanager
def running(options: Options, replica_set_members: int | None) -> Iterator[Deployment]:
    """Start a deployment, yield it when it is ready, and leave nothing behind.

    Args:
        replica_set_members: How many, or None for a standalone server.
    """
    program = find_mongod()
    guard = Guard()
    try:
        deployment = Deployment(guard, program, options, replica_set_members)
        try:
            yield deployment
        finally:
            deployment._close()
    finally:
        guard.close()


def _make_certificates(folder: Path) -> Certificates:
    # Only servers with TLS need the cryptography package.
    from motorlike.testing.certificates import write_certificates

    return write_certificates(folder)


class Deployment:
    """A running standalone server or replica set, and how to reach it.

    Attributes:
        options: How it was started.
        members: Its servers; a standalone has one.
        replica_set_name: None for a standalone.
        folder: The temporary folder, deleted at the end.
        ca_file: Path of the authority's PEM file, or None without TLS.
        client_pem: Path of a client's certificate and key, or None without
            TLS.
    """

    def __init__(
        self, guard: Guard, program: Path, options: Options, replica_set_members: int | None
    ) -> None:
        self.options = options
        self.folder = guard.folder
        self.replica_set_name = None if replica_set_members is None else REPLICA_SET_NAME
        self._guard = guard
        self._certificates = _make_certificates(guard.folder) if options.tls else None
        self.ca_file = self._certificates.ca_file if self._certificates else None
        self.client_pem = self._certificates.client_pem if self._certificates else None
        self._command = [str(program), *self._arguments(version_of(program))]
        is_fresh = not (self._data_folder(0) / "WiredTiger").exists()
        self.members = self._start_members(replica_set_members or 1)
        self._set_up(is_fresh)

    def __repr__(self) -> str:
        kind = "standalone" if self.replica_set_name is None else "replica set"
        return f"<Deployment {kind} {','.join(self._hosts())}>"

    @property
    def uri(self) -> str:
        """The URI that reaches it: with credentials, TLS files and set name."""
        options = {}
        if self.replica_set_name is not None:
            options["replicaSet"] = self.replica_set_name
        return self._uri(",".join(self._hosts()), options)

    @property
    def unix_socket(self) -> str:
        """Path of the first member's UNIX domain socket."""
        return self.members[0].unix_socket

    @property
    def unix_socket_uri(self) -> str:
        """The URI of the first member alone, by its UNIX domain socket.

        With TLS it turns the host-name check off, since no certificate
        names a path.
        """
        options = {"directConnection": "true"}
        if self.options.tls:
            options["tlsAllowInvalidHostnames"] = "true"
        return self._uri(quote(self.unix_socket, safe=""), options)

    @property
    def host(self) -> str:
        """The host of the first member."""
        return self.members[0].host

    @property
    def port(self) -> int:
        """The port of the first member."""
        return self.members[0].port

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first member."""
        return self.members[0].address

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every member."""
        return [member.address for member in self.members]

    @property
    def client_options(self) -> dict[str, Any]:  # Any: as MongoClient's **kwargs
        """Keyword arguments that a client needs beside host and port."""
        options = self._tls_options()
        if self.options.auth:
            options.update(username=USERNAME, password=PASSWORD)
        return options

    def primary(self, timeout_seconds: float = _ANSWER_SECONDS) -> Member:
        """Ask the running members once which of them is primary.

        A standalone server counts as one.

        Args:
            timeout_seconds: How long each member has to answer.

        Raises:
            MongodFailed: None says that it is; an election may be under way.
        """
        found = self._find_primary(timeout_seconds)
        if found is None:
            raise MongodFailed(
                f"None of {', '.join(self._hosts())} is primary now. Use wait_for_primary() to "
                "wait for an election, or restart members if no majority is running."
            )
        return found

    def wait_for_primary(self, timeout_seconds: float = 30.0) -> Member:
        """Wait until a member is primary, and return it.

        Raises:
            MongodFailed: There was none within *timeout_seconds*.
        """
        deadline = time.monotonic() + timeout_seconds
        answer_seconds = 0.0
        while time.monotonic() < deadline:
            # Brief at first, for a paused member uses it up; then longer, for
            # on a busy machine all may be slow.
            answer_seconds = min(answer_seconds + 0.25, _ANSWER_SECONDS)
            found = self._find_primary(answer_seconds)
            if found is not None:
                return found
            time.sleep(_POLL_SECONDS)
        raise MongodFailed(
            f"No primary among {', '.join(self._hosts())} within {timeout_seconds:g} s. Restart "
            "or resume members if no majority is running; with a dbpath, start as many members "
            "on the same ports as when its data was made."
        )

    def _find_primary(self, timeout_seconds: float) -> Member | None:
        primaries: list[tuple[str, Member]] = []
        for member in self.members:
            answer = self._hello(member, timeout_seconds)
            if answer.get("isWritablePrimary"):
                primaries.append((str(answer.get("electionId", "")), member))
        # One that was paused or cut off may not know yet that it is deposed.
        # The later election has the greater id.
        return max(primaries, key=lambda found: found[0])[1] if primaries else None

    def _hello(self, member: Member, timeout_seconds: float) -> dict[str, Any]:  # Any: BSON
        """Return the answer to `hello`, or nothing if none came."""
        if not member.is_running:
            return {}
        try:
            with self._direct_client(member, timeout_seconds, **self._tls_options()) as client:
                return dict(client.admin.command("hello"))
        except ConnectionFailure:
            return {}

    def _direct_client(
        self,
        member: Member,
        timeout_seconds: float,
        **options: Any,  # Any: as MongoClient's
    ) -> MongoClient[dict[str, Any]]:
        milliseconds = int(timeout_seconds * 1000)
        return MongoClient(
            *member.address,
            directConnection=True,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
            **options,
        )

    def _hosts(self) -> list[str]:
        return [f"{host}:{port}" for host, port in self.addresses]

    def _uri(self, hosts: str, options: dict[str, str]) -> str:
        credentials = ""
        if self.options.auth:
            credentials = f"{quote(USERNAME, safe='')}:{quote(PASSWORD, safe='')}@"
        tls = {name: str(value) for name, value in self._tls_options().items()}
        if tls:
            tls["tls"] = "true"
        query = urlencode({**options, **tls}, quote_via=quote, safe="")
        return f"mongodb://{credentials}{hosts}/" + (f"?{query}" if query else "")

    def _tls_options(self) -> dict[str, Any]:  # Any: as MongoClient's **kwargs
        if self._certificates is None:
            return {}
        options: dict[str, Any] = {"tls": True, "tlsCAFile": self._certificates.ca_file}
        if self.options.tls_require_client_certificate:
            options["tlsCertificateKeyFile"] = self._certificates.client_pem
        return options

    def _arguments(self, version: tuple[int, int]) -> list[str]:
        arguments = mongod_arguments(self.options, self.folder, self._certificates)
        if self.replica_set_name is None:
            return arguments
        arguments += ["--replSet", self.replica_set_name, "--oplogSize", "64"]
        if self.options.auth:
            arguments += ["--keyFile", str(self._write_key_file())]
        if version >= (5, 0):
            # From 5.0 on a member that gets SIGTERM goes on answering for
            # 15 s, so that routers notice.
            arguments += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
        return arguments

    def _write_key_file(self) -> Path:
        path = self.folder / "key"
        path.touch(mode=0o600)  # mongod refuses one that others can read.
        path.write_bytes(base64.b64encode(os.urandom(48)))
        return path

    def _data_folder(self, index: int) -> Path:
        if self.options.dbpath is None:
            return self.folder / f"data-{index}"
        if self.replica_set_name is None:
            return self.options.dbpath.absolute()
        return self.options.dbpath.absolute() / str(index)

    def _start_members(self, count: int) -> list[Member]:
        first = self.options.port
        ports = free_ports(count) if first is None else list(range(first, first + count))
        members = [self._start_member(index, port) for index, port in enumerate(ports)]
        return [self._listening(index, member) for index, member in enumerate(members)]

    def _start_member(self, index: int, port: int) -> Member:
        member = Member(self._guard, self._command, port, self._data_folder(index))
        member.start()
        return member

    def _listening(self, index: int, member: Member) -> Member:
        """Wait for *member*, or for one on another port if that got taken."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                member.wait_until_listening()
                break
            except PortTaken:
                if self.options.port is not None or attempt == _PORT_ATTEMPTS:
                    raise
                member = self._start_member(index, free_ports(1)[0])
        return member

    def _set_up(self, is_fresh: bool) -> None:
        if self.replica_set_name is not None:
            if is_fresh:
                self._initiate()
            self._wait_until_all_are_up()
        if self.options.auth:
            if is_fresh:
                self._create_user()
            self._log_in_everywhere()

    def _initiate(self) -> None:
        config = {
            "_id": self.replica_set_name,
            "members": [{"_id": i, "host": host} for i, host in enumerate(self._hosts())],
            "settings": _ELECTION_SETTINGS,
        }
        with self._direct_client(self.members[0], _READY_SECONDS, **self._tls_options()) as client:
            client.admin.command("replSetInitiate", config)

    def _wait_until_all_are_up(self) -> None:
        self.wait_for_primary(_READY_SECONDS)
        deadline = time.monotonic() + _READY_SECONDS
        waiting = list(self.members)
        while waiting:
            waiting = [member for member in waiting if not self._is_up(member)]
            if waiting and time.monotonic() > deadline:
                raise MongodFailed(
                    f"{waiting} did not become primary or secondary within {_READY_SECONDS:g} s. "
                    f"Start again; the end of one's log says:\n{waiting[0].log_tail()}"
                )
            time.sleep(_POLL_SECONDS if waiting else 0)

    def _is_up(self, member: Member) -> bool:
        answer = self._hello(member, _ANSWER_SECONDS)
        return bool(answer.get("isWritablePrimary") or answer.get("secondary"))

    def _create_user(self) -> None:
        # Nobody can log in yet, but the first user may be made from the same
        # host: MongoDB's localhost exception.
        everywhere = WriteConcern(w=len(self.members), wtimeout=int(_READY_SECONDS * 1000))
        primary = self.wait_for_primary()
        with self._direct_client(primary, _READY_SECONDS, **self._tls_options()) as client:
            client.admin.command(
                "createUser",
                USERNAME,
                pwd=PASSWORD,
                roles=["root"],
                writeConcern=everywhere.document,
            )

    def _log_in_everywhere(self) -> None:
        for member in self.members:
            with self._direct_client(member, _READY_SECONDS, **self.client_options) as client:
                client.admin.command("ping")

    def _close(self) -> None:
        """Shut down cleanly where the data is kept; else killing is faster."""
        if self.options.dbpath is not None:
            for member in self.members:
                member.terminate()
