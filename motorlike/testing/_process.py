"""The program's side of the guard, and one mongod process under it.

`motorlike.testing._deployment` builds deployments from these. The guard is
the process in `_guard.py`; it explains why there is one.

Rule: signals and exit codes go through the guard. It is the parent of every
mongod, so only it can tell a process from a later one with the same id.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from motorlike.testing import _guard

__all__ = ["Guard", "MongodFailed", "free_ports", "read_from", "tail_of"]

_TAIL_LINES = 15
_GUARD_STOP_SECONDS = 60.0


class MongodFailed(RuntimeError):
    """A mongod did not start, did not answer in time, or ended by itself.

    The first line says what happened; where it helps, the end of the log
    follows.
    """


def free_ports(count: int) -> list[int]:
    """Return *count* different TCP ports that nobody listens on at 127.0.0.1.

    All are held until the last is picked. Another process may still take
    one before it is used, so callers try again when that happens.
    """
    with ExitStack() as held:
        ports = []
        for _ in range(count):
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        return ports


def tail_of(log: Path, offset: int = 0) -> str:
    """Return the last lines of *log* written after byte *offset*."""
    lines = read_from(log, offset).splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def read_from(log: Path, offset: int) -> str:
    """Return what *log* holds after byte *offset*; nothing if it is not there."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", "replace")


class Guard:
    """A helper process that owns a temporary folder and runs mongods.

    Everything it owns ends when `close` is called, and also when this
    process ends in any way. `_guard.py` says how.
    """

    folder: Path

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._requests = 0
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        atexit.register(self.close)
        try:
            self.folder = Path(self._reply_to(0))
        except BaseException:
            self.close()
            raise

    def start(self, argv: list[str], log: Path) -> int:
        """Run *argv* with its output appended to *log*; return its process id."""
        return int(self._request("start", argv, str(log)))

    def poll(self, pid: int) -> int | None:
        """Return the exit code of *pid*, or None while it runs."""
        code = self._request("poll", pid)
        return None if code is None else int(code)

    def signal(self, pid: int, number: int) -> None:
        """Send signal *number* to *pid*, unless it has ended."""
        self._request("signal", pid, int(number))

    def close(self) -> None:
        """Kill every mongod and delete the folder. Calling it again is safe.

        Raises:
            MongodFailed: The guard could not clean up; it has told why on
                stderr.
        """
        # A forked child holds a copy of this object, not the servers.
        if self._owner != os.getpid():
            return
        assert self._process.stdin is not None
        # A broken pipe: the guard has ended by itself, and so has cleaned up.
        with suppress(BrokenPipeError):
            if not self._process.stdin.closed:
                self._send(self._requests + 1, "stop")
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        code = self._process.wait(_GUARD_STOP_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        # Last, so that after a second Ctrl-C there is another try at exit.
        atexit.unregister(self.close)
        if code != 0:
            raise MongodFailed(
                f"The guard process {self._process.pid} ended with code {code}, so its temporary "
                "folder may still be there. Read its message on stderr, and delete the folder."
            )

    def _request(self, verb: str, *arguments: object) -> Any:  # Any: decoded JSON
        if self._owner != os.getpid():
            raise MongodFailed(
                f"Process {os.getpid()} asked to {verb} a mongod of process {self._owner}. Only "
                "the process that started a deployment can steer it; ask before forking."
            )
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise MongodFailed(
                f"The deployment in {self.folder} has ended, so there is no mongod to {verb}. Use "
                "it inside its with block."
            )
        with self._lock:
            self._requests += 1
            with suppress(BrokenPipeError):  # The missing reply tells more.
                self._send(self._requests, verb, *arguments)
            return self._reply_to(self._requests)

    def _send(self, number: int, verb: str, *arguments: object) -> None:
        assert self._process.stdin is not None
        line = json.dumps([number, verb, *arguments]) + "\n"
        # One write, so that Ctrl-C never leaves half a line behind.
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()

    def _reply_to(self, number: int) -> Any:  # Any: decoded JSON
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            answered, result, error = json.loads(line)
            # An older number answers a request that Ctrl-C interrupted.
            if answered == number and error is None:
                return result
            if answered == number:
                raise MongodFailed(f"The guard could not run mongod: {error}.")
        raise MongodFailed(
            f"The guard process {self._process.pid} ended too early and took its servers with "
            "it. Start the deployment again."
        )
