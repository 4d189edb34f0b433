"""How fast is a small operation, next to the other clients?

``python -m benchmarks.find_one`` starts a mongod and prints a table: medians
of interleaved rounds, with the ratio of motorlike to each peer, pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from statistics import median
from typing import Any, NamedTuple

from pymongo import MongoClient

from benchmarks.measure import OPERATIONS
from benchmarks.peers import PEERS
from motorlike.testing.mongod import standalone

__all__: list[str] = []


class Cell(NamedTuple):
    """What one peer did in one round."""

    operations_per_second: float
    cpu_microseconds: float


def _measure(arguments: argparse.Namespace, peer: str, uri: str, at_once: int) -> Cell:
    command = [sys.executable, "-m", "benchmarks.measure", peer, arguments.operation]
    command += ["--uri", uri, "--at-once", str(at_once)]
    command += ["--seconds", str(arguments.seconds), "--warm-up", str(arguments.warm_up)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Cell(**json.loads(output))


def _rounds(arguments: argparse.Namespace, uri: str, at_once: int) -> dict[str, list[Cell]]:
    cells: dict[str, list[Cell]] = {peer: [] for peer in arguments.peers}
    for _ in range(arguments.rounds):
        for peer, column in cells.items():
            # A synchronous client does one thing at a time.
            width = at_once if PEERS[peer].is_async else 1
            column.append(_measure(arguments, peer, uri, width))
    return cells


def _print_table(cells: dict[str, list[Cell]], at_once: int) -> None:
    print(f"\n{at_once} at a time")
    heading = f"{'client':<16}{'ops/s':>9}{'(min..max)':>18}{'CPU us/op':>11}"
    print(heading + f"{'ops ratio':>11}{'CPU ratio':>11}")
    ours = cells["motorlike"]
    for peer, column in cells.items():
        rates = [cell.operations_per_second for cell in column]
        cpu = median(cell.cpu_microseconds for cell in column)
        pairs = list(zip(ours, column, strict=True))
        ops_ratio = median(a.operations_per_second / b.operations_per_second for a, b in pairs)
        cpu_ratio = median(a.cpu_microseconds / b.cpu_microseconds for a, b in pairs)
        spread = f"({min(rates):.0f}..{max(rates):.0f})"
        name = peer if PEERS[peer].is_async else f"{peer} (1)"
        print(
            f"{name:<16}{median(rates):>9.0f}{spread:>18}{cpu:>11.1f}"
            f"{ops_ratio:>11.2f}{cpu_ratio:>11.2f}"
        )


def _parse() -> argparse.Namespace:
    installed = [name for name, peer in PEERS.items() if peer.is_installed]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operation", choices=OPERATIONS, default="find_one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    # A pool of a hundred connections takes most of a second to fill.
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds, not measured")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=installed)
    parser.add_argument("--uri", help="of a running server, instead of a mongod of its own")
    return parser.parse_args()


def _seed(uri: str) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(uri)
    with client:
        client.drop_database("benchmark")
        document = {"_id": 1, "text": "a small document", "number": 1, "list": [1, 2, 3]}
        client.benchmark.small.insert_one(document)


def _run(arguments: argparse.Namespace, uri: str) -> None:
    _seed(uri)
    versions = ", ".join(f"{name} {PEERS[name].version}" for name in arguments.peers)
    print(f"{arguments.operation}: medians of {arguments.rounds} interleaved rounds")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")
    print(f"{versions}\nratios are motorlike's to the client in that row")
    for at_once in arguments.at_once:
        _print_table(_rounds(arguments, uri, at_once), at_once)


def main() -> None:
    """Run the benchmark and print its tables."""
    arguments = _parse()
    if arguments.uri:
        _run(arguments, arguments.uri)
    else:
        with standalone() as server:
            _run(arguments, server.uri)


if __name__ == "__main__":
    main()
