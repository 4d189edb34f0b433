"""Measures cells: prepares the server, starts a child, reads what it prints.

`__main__` makes one `Runner` and hands its `measure` to `schedule`.

Rule: whatever a child does, this comes back: a child that takes too long is
killed with all that it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from pymongo.errors import PyMongoError

from .measure import Case
from .peers import LIMIT
from .schedule import CellFailed, Contender, Table
from .servers import Server, Servers
from .task import Task, Unavailable

__all__ = ["Durations", "Runner", "run_child", "with_pool_size"]


@dataclass(frozen=True)
class Durations:
    """How long a cell takes.

    Attributes:
        seconds: Measured.
        warm_up: Before that, seconds.
        is_quick: See `Case`.
    """

    seconds: float
    warm_up: float
    is_quick: bool = False


def with_pool_size(uri: str, size: int | None) -> str:
    """Return *uri* with the option ``maxPoolSize``; each library reads it."""
    if size is None:
        return uri
    if "?" in uri:
        return f"{uri}&maxPoolSize={size}"
    # Options follow a slash, also where no database is named.
    slash = "" if "/" in uri.partition("://")[2] else "/"
    return f"{uri}{slash}?maxPoolSize={size}"


class Runner:
    """Measures cells, one at a time."""

    def __init__(self, servers: Servers, durations: Durations, pool_size: int | None) -> None:
        self._servers = servers
        self._durations = durations
        self._pool_size = pool_size
        self._work = tempfile.TemporaryDirectory(prefix="motorlike-bench-")
        self._prepared: dict[tuple[str, str], str | None] = {}
        self.mongodb: str | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._servers.close()
        self._work.cleanup()

    def measure(self, table: Table, contender: Contender) -> dict[str, float]:
        """Measure one cell once, in a fresh process.

        Raises:
            Unavailable: It cannot be measured here.
            CellFailed: The child crashed or took too long.
        """
        task = table.task
        server = self._servers.get(table.transport, needs_replica_set=task.needs_replica_set)
        folder = self._prepare(task, server)
        case = Case(
            task=task.full_name,
            peer=contender.peer,
            loop=contender.loop,
            transport=table.transport,
            at_once=contender.at_once(table.at_once),
            seconds=self._durations.seconds,
            warm_up=self._durations.warm_up,
            uri=with_pool_size(server.uri, self._pool_size),
            folder=str(folder),
            is_quick=self._durations.is_quick,
        )
        # The limit's parts are measured one after the other.
        parts = 3 if case.peer == LIMIT else 1
        patience = task.patience + parts * (case.seconds + case.warm_up)
        return run_child([sys.executable, "-m", f"{__package__}.child"], case, patience)

    def _prepare(self, task: Task, server: Server) -> Path:
        key = (task.full_name, server.key)
        folder = Path(self._work.name) / server.key / task.full_name
        if key not in self._prepared:
            folder.mkdir(parents=True)
            self._prepared[key] = self._first_preparation(task, server, folder)
        problem = self._prepared[key]
        if problem is not None:
            raise Unavailable(problem)
        return folder

    def _first_preparation(self, task: Task, server: Server, folder: Path) -> str | None:
        if self.mongodb is None:
            # A server that cannot be reached ends the run.
            self.mongodb = server.version()
        try:
            with server.client() as client:
                task.prepare(client, folder)
        except Unavailable as exc:
            return str(exc)
        except (PyMongoError, OSError) as exc:
            return f"could not be prepared: {exc}"
        return None


def run_child(command: list[str], case: Case, patience: float) -> dict[str, float]:
    """Start *command* with *case*, and return the figures that it prints.

    Args:
        patience: Seconds after which it is killed.
    """
    child = subprocess.Popen(
        [*command, json.dumps(asdict(case))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A process group of its own, to be killed with all that is in it.
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        raise CellFailed(f"gave up after {patience:.0f} s") from None
    finally:
        _end(child)
    return _figures(output, errors, child.returncode)


def _end(child: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _figures(output: str, errors: str, code: int) -> dict[str, float]:
    last = output.strip().rpartition("\n")[2]
    try:
        answer = json.loads(last)
    except ValueError:
        raise CellFailed(_how_it_ended(errors, code)) from None
    if "unavailable" in answer:
        raise Unavailable(answer["unavailable"])
    figures: dict[str, float] = answer["figures"]
    return figures


def _how_it_ended(errors: str, code: int) -> str:
    if code < 0:
        return f"crashed with {signal.Signals(-code).name}"
    # The last line of a traceback names the error.
    lines = [line for line in errors.splitlines() if line.strip()]
    return f"failed: {lines[-1].strip()[:200]}" if lines else f"ended with exit code {code}"
