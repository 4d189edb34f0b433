"""Memory: what ten thousand operations take that are under way at once.

Rule: the pool is full and the loop is warm before the first reading, so that
what is counted is for the operations and not for their connections.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..task import DATABASE, Figure, Task, Unavailable

if TYPE_CHECKING:
    from pymongo import MongoClient

    from ..clients import Client
    from ..measure import Bench

__all__ = ["TASKS"]

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
# To it, this means: let the peak begin anew.
_RESET_PEAK = "5"


def _megabytes(key: str) -> float:
    """Read an entry of this process's status, which are in KiB."""
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024 / 1e6
    raise Unavailable(f"this system's {_STATUS} has no {key}")


def _reset_peak() -> None:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError as exc:
        raise Unavailable(f"needs Linux's {_CLEAR_REFS}: {exc}") from exc


class _InFlight(Task):
    figures = (
        Figure("peak", "MB more at the peak", False),
        Figure("left", "MB more when done", False),
    )
    needs = frozenset({"many_at_once"})
    count = 10_000
    # Twice the connections of a full pool.
    warm_up_count = 200

    def __init__(self, name: str, what: str) -> None:
        self.name = name
        self.summary = f"resident memory while {self.count:,} {what} are under way at once"

    def prepare(self, client: MongoClient[dict[str, Any]], folder: Path) -> None:
        document = {"_id": 1, "text": "a small document", "list": [1, 2, 3]}
        client[DATABASE].memory.replace_one({"_id": 1}, document, upsert=True)

    async def run(self, bench: Bench) -> dict[str, float]:
        client = await bench.connect()
        collection = client.collection(DATABASE, "memory")

        async def read(count: int) -> None:
            operations = [
                asyncio.ensure_future(self.operation(client, collection)) for _ in range(count)
            ]
            await asyncio.gather(*operations)

        for _ in range(5):
            await read(self.warm_up_count)
        gc.collect()
        _reset_peak()
        before = _megabytes("VmRSS")
        await read(self.count)
        peak = _megabytes("VmHWM")
        gc.collect()
        return {"peak": peak - before, "left": _megabytes("VmRSS") - before}

    # Any: what an operation is called on, and its result; each library has its own form.
    def operation(self, client: Client, collection: Any) -> Awaitable[Any]:
        raise NotImplementedError


class _FindOne(_InFlight):
    def operation(self, client: Client, collection: Any) -> Awaitable[Any]:
        found: Awaitable[Any] = collection.find_one({"_id": 1})
        return found


class _ToList(_InFlight):
    def operation(self, client: Client, collection: Any) -> Awaitable[Any]:
        return client.read_list(collection, {"_id": 1})


TASKS: tuple[Task, ...] = (
    _FindOne("in_flight", "find_one"),
    _ToList("cursors_in_flight", "find().to_list()"),
)
