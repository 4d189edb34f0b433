"""Loop lag: how late everything else is while large documents are read.

Rule: a timer is due each millisecond, however late the one before it came. A
client that is slower holds the loop up less, so its rate stands beside it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ..measure import percentile
from ..task import CPU, DATABASE, Figure, Task

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo import MongoClient

    from ..measure import Bench

__all__ = ["TASKS"]

_COLLECTION = "lag"
_INTERVAL_SECONDS = 0.001


class _LargeReads(Task):
    name = "large_reads"
    summary = "lag of timers, due each ms, while tasks read documents of 1 MB"
    figures = (
        Figure("lag_p99", "lag p99 ms", False),
        Figure("lag_max", "lag max ms", False),
        Figure("rate", "docs/s", True),
        CPU,
    )
    needs = frozenset({"many_at_once"})
    at_once = (100,)
    items = 2_000

    def prepare(self, client: MongoClient[dict[str, Any]], folder: Path) -> None:
        items = [{"number": i, "text": "x" * 460} for i in range(self.items)]
        document = {"_id": 1, "items": items}
        client[DATABASE][_COLLECTION].replace_one({"_id": 1}, document, upsert=True)

    async def run(self, bench: Bench) -> dict[str, float]:
        collection = (await bench.connect()).collection(DATABASE, _COLLECTION)
        lags: list[tuple[float, float]] = []
        ticker = asyncio.create_task(self._tick(lags))
        measured = await bench.repeat(lambda: collection.find_one({"_id": 1}))
        begin = time.perf_counter() - measured.seconds
        # Lets the ticker note a lag that is not over yet.
        await asyncio.sleep(2 * _INTERVAL_SECONDS)
        ticker.cancel()
        counted = sorted(lag for when, lag in lags if when >= begin)
        return {
            "lag_p99": percentile(counted, 0.99) * 1e3,
            "lag_max": counted[-1] * 1e3,
            "rate": measured.rate,
            "cpu": measured.cpu,
        }

    async def _tick(self, lags: list[tuple[float, float]]) -> None:
        """Note of each timer when it came, and how late.

        Timers that come due while the loop is held up are late as well.
        """
        due = time.perf_counter()
        while True:
            await asyncio.sleep(due - time.perf_counter())
            now = time.perf_counter()
            while due <= now:
                lags.append((now, now - due))
                due += _INTERVAL_SECONDS


TASKS: tuple[Task, ...] = (_LargeReads(),)
