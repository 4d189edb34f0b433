"""One mongod of a deployment: its command line, its life and its death.

`motorlike.testing._deployment` makes these; tests hold them to kill, pause
and restart a server.

Rule: a method returns when what it names has happened. After `kill` the
process is gone; after `restart` it accepts connections.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from motorlike.testing._process import Guard, MongodFailed, read_from, tail_of

if TYPE_CHECKING:
    from motorlike.testing.certificates import Certificates

__all__ = ["Member", "Options", "PortTaken", "mongod_arguments"]

HOST = "127.0.0.1"
REPLICA_SET_NAME = "motorlike"

_POLL_SECONDS = 0.02
_START_SECONDS = 60.0
_RESTART_ATTEMPTS = 5


class PortTaken(MongodFailed):
    """Another process listens on the port that a mongod was to have."""


@dataclass(frozen=True)
class Options:
    """How the mongods of a deployment run. `standalone` explains each."""

    tls: bool = False
    auth: bool = False
    fail_points: bool = False
    port: int | None = None
    extra_args: tuple[str, ...] = ()
    tls_require_client_certificate: bool = False
    dbpath: Path | None = None

    def __post_init__(self) -> None:
        if self.tls_require_client_certificate and not self.tls:
            raise ValueError(
                "tls_require_client_certificate=True asks for client certificates on connections "
                "without TLS. Pass tls=True as well."
            )


def mongod_arguments(
    options: Options, folder: Path, certificates: Certificates | None
) -> list[str]:
    """Return the arguments for *options*; its `extra_args` override defaults."""
    extra = list(options.extra_args)
    given = {argument.partition("=")[0] for argument in extra}
    defaults = [("--bind_ip", HOST), ("--wiredTigerCacheSizeGB", "0.25")]
    arguments = ["--quiet", "--unixSocketPrefix", str(folder)]
    for flag, value in defaults:
        if flag not in given:
            arguments += [flag, value]
    # Writing statistics once a second would show up in benchmarks.
    arguments += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    if options.fail_points:
        arguments += ["--setParameter", "enableTestCommands=1"]
    if options.auth:
        arguments.append("--auth")
    return arguments + _tls_arguments(options, certificates) + extra


def _tls_arguments(options: Options, certificates: Certificates | None) -> list[str]:
    if certificates is None:
        return []
    arguments = ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", certificates.server_pem]
    arguments += ["--tlsCAFile", certificates.ca_file]
    if not options.tls_require_client_certificate:
        arguments.append("--tlsAllowConnectionsWithoutCertificates")
    return arguments


class Member:
    """A mongod process that can be stopped, paused and started again.

    Attributes:
        host: Always 127.0.0.1.
        port: The same for the member's whole life.
        address: ``(host, port)``.
        unix_socket: Path of its UNIX domain socket.
        log: The file that its output goes to.
        pid: The process id of its latest run.
    """

    pid: int

    def __init__(self, guard: Guard, command: Sequence[str], port: int, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.host = HOST
        self.port = port
        self.address = (HOST, port)
        self.unix_socket = str(guard.folder / f"mongodb-{port}.sock")
        self.log = guard.folder / f"{port}.log"
        self._guard = guard
        self._argv = [*command, "--port", str(port), "--dbpath", str(data)]
        self._log_offset = 0

    def __repr__(self) -> str:
        return f"<Member {self.host}:{self.port}>"

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._guard.poll(self.pid) is None

    def log_tail(self) -> str:
        """Return the last lines that the latest run wrote to its log."""
        return tail_of(self.log, self._log_offset)

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash would."""
        self._guard.signal(self.pid, signal.SIGKILL)
        self._wait_until_ended(_START_SECONDS)

    def terminate(self, timeout_seconds: float = 30.0) -> None:
        """End the process with SIGTERM: a clean shutdown.

        A primary steps down first. It is killed if it takes longer than
        *timeout_seconds*.
        """
        self._guard.signal(self.pid, signal.SIGTERM)
        self.resume()  # A stopped process would get the signal only then.
        if not self._wait_until_ended(timeout_seconds):
            self.kill()

    def pause(self) -> None:
        """Stop the process with SIGSTOP: connections stay open, unanswered."""
        self._guard.signal(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process run again."""
        self._guard.signal(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Start again on the same port and data, and wait until it listens.

        One that still runs is killed first. In a replica set it may take a
        moment longer until it is a secondary or the primary.

        Raises:
            MongodFailed: It did not start. Its log is in the message.
        """
        self.kill()
        for attempt in range(1, _RESTART_ATTEMPTS + 1):
            self.start()
            try:
                self.wait_until_listening()
                break
            except PortTaken:
                # A client that tries the empty port over and over can be
                # given that very port as its own end for an instant.
                if attempt == _RESTART_ATTEMPTS:
                    raise
                time.sleep(0.1 * attempt)

    def start(self) -> None:
        """Start the process; `wait_until_listening` tells when it is up."""
        self._log_offset = self.log.stat().st_size if self.log.exists() else 0
        self.pid = self._guard.start(self._argv, self.log)

    def wait_until_listening(self, timeout_seconds: float = _START_SECONDS) -> None:
        """Wait until the process accepts connections.

        Raises:
            PortTaken: Another process has the port.
            MongodFailed: It ended, or did not listen within *timeout_seconds*.
        """
        # Its own log is asked, not the port: on the port another mongod
        # might answer.
        deadline = time.monotonic() + timeout_seconds
        while True:
            is_running = self.is_running
            log = read_from(self.log, self._log_offset).lower()
            if is_running and "waiting for connections" in log:
                return
            if not is_running and "address already in use" in log:
                raise PortTaken(
                    f"Port {self.port} is already in use on {self.host}. Stop what listens there, "
                    "or choose another port."
                )
            if not is_running or time.monotonic() > deadline:
                raise self._start_failure(timeout_seconds)
            time.sleep(_POLL_SECONDS)

    def _start_failure(self, timeout_seconds: float) -> MongodFailed:
        code = self._guard.poll(self.pid)
        what = f"did not listen within {timeout_seconds:g} s"
        if code is not None:
            what = f"ended with code {code} before it listened"
        return MongodFailed(
            f"{self._argv[0]} {what} on {self.host}:{self.port}. Its arguments were "
            f"{' '.join(self._argv[1:])}. See the end of its log:\n"
            f"{self.log_tail()}"
        )

    def _wait_until_ended(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while self.is_running:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True
