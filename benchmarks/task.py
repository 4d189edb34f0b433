"""What a benchmark task is: the work, and the figures that come of it.

`tasks/` holds them, a module for each group; `schedule` runs them, each cell
of the tables in a process of its own.

Rule: `prepare` runs in the parent and may use PyMongo's ordinary client;
`run` runs in the child, and touches the server through the peer alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymongo import MongoClient

    from .measure import Bench, Case
    from .peers import Peer

__all__ = [
    "CPU",
    "CPU_PER_DOCUMENT",
    "DATABASE",
    "DOCUMENTS",
    "LATENCIES",
    "MEGABYTES",
    "RATE",
    "TRANSPORTS",
    "Figure",
    "Task",
    "Unavailable",
]

# The database that tasks work in. It is dropped before the first task.
DATABASE = "motorlike_benchmarks"
TRANSPORTS = ("plain", "tls", "unix")


class Unavailable(Exception):
    """A task or peer cannot be measured here; the message is what the cell says."""


@dataclass(frozen=True)
class Figure:
    """One column of a table.

    Attributes:
        name: The key in what `Task.run` returns, and in the JSON.
        unit: The column's heading.
        is_more_better: Whether a greater value is the better one.
    """

    name: str
    unit: str
    is_more_better: bool

    @property
    def is_cpu(self) -> bool:
        """Whether it is CPU time, which every table compares."""
        return self.name == "cpu"


RATE = Figure("rate", "ops/s", True)
CPU = Figure("cpu", "CPU us/op", False)
CPU_PER_DOCUMENT = Figure("cpu", "CPU us/doc", False)
DOCUMENTS = Figure("documents", "docs/s", True)
MEGABYTES = Figure("megabytes", "MB/s", True)
LATENCIES = (
    Figure("p50", "p50 ms", False),
    Figure("p95", "p95 ms", False),
    Figure("p99", "p99 ms", False),
)


class Task(ABC):
    """Something that each peer is asked to do.

    Attributes:
        name: Its name within its group, which is the name of its module.
        summary: One line for ``--list`` and the heading of its table.
        figures: What `run` returns, the one that matters most first.
        needs: Features that a peer must have; see `Peer.lacks`.
        at_once: How many at a time by default; ``None`` where that is the
            task's own affair, and ``--at-once`` leaves it alone.
        transports: Those that it can be run on. If none of them was asked
            for, it runs on the first.
        needs_replica_set: Whether a standalone server will not do.
        has_limit: Whether the limit of `limit.py` is measured beside it, by
            `exchange` and `frame`.
        carries: How many documents an operation carries, where figures are
            for each document.
        patience: Seconds that it may take beyond warm-up and measurement,
            before the cell is given up.
    """

    name: str
    summary: str
    figures: tuple[Figure, ...]
    needs: frozenset[str] = frozenset()
    at_once: tuple[int, ...] | None = None
    transports: tuple[str, ...] = TRANSPORTS
    needs_replica_set: bool = False
    has_limit: bool = False
    carries: int = 1
    patience: float = 60.0

    @property
    def group(self) -> str:
        """The name of the module that it is in."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def full_name(self) -> str:
        """``group.name``, as on the command line."""
        return f"{self.group}.{self.name}"

    def lacks(self, peer: Peer) -> str | None:
        """Say why *peer* cannot do this, or return ``None`` if it can."""
        for feature in sorted(self.needs):
            if feature in peer.lacks:
                return peer.lacks[feature]
        return None

    def prepare(self, client: MongoClient[dict[str, Any]], folder: Path) -> None:  # noqa: B027
        """Put into the server, and into *folder*, what `run` expects there.

        Called in the parent, once for each server, before the first round.
        The folder is the task's own and deleted at the end of the run.

        Raises:
            Unavailable: It cannot be run here, with the reason.
        """

    @abstractmethod
    async def run(self, bench: Bench) -> dict[str, float]:
        """Do the work, and return a value for each of the figures.

        Raises:
            Unavailable: This peer cannot do it here, with the reason.
        """

    def frame(self, case: Case) -> float:
        """Return the CPU microseconds of an operation that are no client's, for the limit."""
        return 0.0

    # Any: PyMongo's collection in a client whose documents are dicts.
    def exchange(self, database: Any) -> Callable[[], object]:
        """Return the operation by synchronous PyMongo, for the limit.

        What the peers make once, such as a collection, it makes once too.
        """
        raise NotImplementedError(f"{self.full_name} has no limit to measure")
