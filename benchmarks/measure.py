"""One measurement in a process of its own: ``python -m benchmarks.measure``.

Prints one line of JSON: operations a second, client CPU microseconds for each.

Rule: warm-up is not measured; the clock and the CPU clock cover the same work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

from benchmarks.peers import PEERS, Peer

__all__: list[str] = []


def _find_one(collection: Any) -> Any:
    return collection.find_one({"_id": 1})


def _insert_one(collection: Any) -> Any:
    return collection.insert_one({"text": "a small document", "number": 1})


def _update_one(collection: Any) -> Any:
    return collection.update_one({"_id": 1}, {"$inc": {"count": 1}})


OPERATIONS = {"find_one": _find_one, "insert_one": _insert_one, "update_one": _update_one}


class _Clock:
    def __init__(self, seconds: float) -> None:
        self.operations = 0
        self._cpu = time.process_time()
        self._start = time.perf_counter()
        self.deadline = self._start + seconds

    @property
    def is_over(self) -> bool:
        return time.perf_counter() >= self.deadline

    def result(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self._start
        cpu = time.process_time() - self._cpu
        return {
            "operations_per_second": self.operations / elapsed,
            "cpu_microseconds": cpu / self.operations * 1e6,
        }


async def _async_rounds(collection: Any, operation: Any, at_once: int, seconds: float) -> _Clock:
    clock = _Clock(seconds)

    async def worker() -> None:
        while not clock.is_over:
            await operation(collection)
            clock.operations += 1

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return clock


def _measure_async(peer: Peer, arguments: argparse.Namespace) -> dict[str, float]:
    operation = OPERATIONS[arguments.operation]

    async def main(client: Any) -> dict[str, float]:
        collection = client["benchmark"]["small"]
        await _async_rounds(collection, operation, arguments.at_once, arguments.warm_up)
        clock = await _async_rounds(collection, operation, arguments.at_once, arguments.seconds)
        return clock.result()

    result: dict[str, float] = peer.run(main, arguments.uri)
    return result


def _measure_sync(peer: Peer, arguments: argparse.Namespace) -> dict[str, float]:
    operation = OPERATIONS[arguments.operation]
    with peer.connect(arguments.uri) as client:
        collection = client["benchmark"]["small"]
        for seconds in (arguments.warm_up, arguments.seconds):
            clock = _Clock(seconds)
            while not clock.is_over:
                operation(collection)
                clock.operations += 1
        return clock.result()


def main() -> None:
    """Measure one peer at one operation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("operation", choices=OPERATIONS)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    arguments = parser.parse_args()
    peer = PEERS[arguments.peer]
    measure = _measure_async if peer.is_async else _measure_sync
    print(json.dumps(measure(peer, arguments)))


if __name__ == "__main__":
    main()
