"""The clocks: what a task holds in the child while it is measured.

`child` makes the `Bench`; tasks ask it for a client, and have it repeat an
operation.

Rule: warm-up is not measured, and both clocks cover the same work. All peers
pay alike for being measured: two readings of a clock for each operation.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clients import Client
    from .peers import Peer

__all__ = ["Bench", "Case", "Measured", "percentile"]

# Any: what an operation returns differs from one to the next, and is dropped.
Operation = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """One cell of a table, as the parent asks the child to measure it.

    Attributes:
        task: The task's full name.
        peer: The peer's name; `limit` is one here.
        loop: ``asyncio`` or ``uvloop``.
        transport: ``plain``, ``tls`` or ``unix``.
        at_once: How many operations are under way at a time.
        seconds: How long to measure.
        warm_up: How long to do the same before.
        uri: Of the server, with the options of the run.
        folder: The task's folder, as `Task.prepare` left it.
        is_quick: Whether the run only tries that all works: tasks whose work
            has a fixed size may do less.
    """

    task: str
    peer: str
    loop: str
    transport: str
    at_once: int
    seconds: float
    warm_up: float
    uri: str
    folder: str
    is_quick: bool = False


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted *values*; *share* is 0 to 1."""
    if not values:
        raise ValueError("there is no percentile of no values")
    # 0.95 of 100 values is a hair more than 95 in floating point.
    rank = math.ceil(share * len(values) - 1e-9)
    return values[max(rank, 1) - 1]


@dataclass
class Measured:
    """What a repeated operation took.

    Attributes:
        seconds: Wall-clock time of all of it.
        cpu_seconds: CPU time of the process, all its threads together.
        times: The wall-clock time of each operation.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    times: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Operations a second."""
        return len(self.times) / self.seconds

    @property
    def cpu(self) -> float:
        """CPU microseconds an operation."""
        return self.cpu_seconds / len(self.times) * 1e6

    @property
    def median_seconds(self) -> float:
        """Of one operation."""
        return median(self.times)

    def figures(self) -> dict[str, float]:
        """Values for the figures `RATE`, `CPU` and `LATENCIES`."""
        ordered = sorted(self.times)
        shares = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
        latencies = {name: percentile(ordered, share) * 1e3 for name, share in shares.items()}
        return {"rate": self.rate, "cpu": self.cpu, **latencies}

    def volume(self, documents: int, megabytes: float) -> dict[str, float]:
        """Values for `DOCUMENTS`, `MEGABYTES` and `CPU_PER_DOCUMENT`.

        Args:
            documents: How many each operation carries.
            megabytes: How many millions of bytes of BSON these are.
        """
        return {
            "documents": self.rate * documents,
            "megabytes": self.rate * megabytes,
            "cpu": self.cpu / documents,
        }


class Bench:
    """What a task holds while it runs.

    Attributes:
        case: What is measured.
        peer: By which client.
        folder: The task's folder, as `Task.prepare` left it.
    """

    def __init__(self, case: Case, peer: Peer) -> None:
        self.case = case
        self.peer = peer
        self.folder = Path(case.folder)
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        """Open a client of the peer. It is closed when the task has ended."""
        client = await self.peer.connect(self.case.uri)
        self._clients.append(client)
        return client

    async def disconnect(self, client: Client) -> None:
        """Close *client* before the end, where closing is a part of the task."""
        self._clients.remove(client)
        await client.close()

    async def close(self) -> None:
        """Close the clients that are still open."""
        while self._clients:
            await self._clients.pop().close()

    async def repeat(self, operation: Operation) -> Measured:
        """Warm up, then measure *operation*, `Case.at_once` at a time.

        It is done at least once for each of these, also when that takes
        longer than `Case.seconds`.
        """
        await self._rounds(operation, self.case.warm_up)
        return await self._rounds(operation, self.case.seconds)

    async def _rounds(self, operation: Operation, seconds: float) -> Measured:
        measured = Measured()
        times = measured.times
        clock = time.perf_counter
        cpu_start, start = time.process_time(), clock()
        deadline = start + seconds

        async def work() -> None:
            begun = clock()
            while True:
                await operation()
                ended = clock()
                times.append(ended - begun)
                if ended >= deadline:
                    return
                begun = clock()

        if self.case.at_once == 1:
            await work()
        else:
            await asyncio.gather(*(work() for _ in range(self.case.at_once)))
        measured.seconds = clock() - start
        measured.cpu_seconds = time.process_time() - cpu_start
        return measured
