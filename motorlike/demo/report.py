"""What the demo found: the figures in words, and whether the counts add up.

`command` gathers the findings and prints what is made of them here.

Rule: pure functions of the findings; nothing is asked of a server.
"""

from __future__ import annotations

import math
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pymongo
import tornado

from motorlike.demo.connections import ConnectionCount
from motorlike.demo.load import Load
from motorlike.version import __version__

__all__ = ["Findings", "brief", "differences", "failures", "percentile", "report", "versions"]

_MOST_KINDS = 5


@dataclass(frozen=True)
class Findings:
    """One run of the demo.

    Attributes:
        load: What was sent.
        connections: What it took of the client's pool.
        counted: The counters of the pages, by page.
        logged: The documents in the log, by page.
        affinity: Whether each visit was logged and read back on one connection.
    """

    load: Load
    connections: ConnectionCount
    counted: Mapping[str, int]
    logged: Mapping[str, int]
    affinity: bool = True


def versions(mongodb: str) -> str:
    """Return one line that names everything that takes part, with its version."""
    return (
        f"motorlike {__version__}, PyMongo {pymongo.version}, Tornado {tornado.version}, "
        f"Python {platform.python_version()}, MongoDB {mongodb}"
    )


def report(findings: Findings) -> str:
    """Return the figures of a run as a few lines of text."""
    load, connections = findings.load, findings.connections
    failed = load.failures.total()
    requests = len(load.latencies) + failed
    lines = [
        f"requests     {requests} in {load.seconds:.2f} s: "
        f"{requests / max(load.seconds, 1e-9):.0f} per second",
        f"errors       {failed}",
        f"latency      {_latency(load.latencies)}",
        f"connections  {connections.opened} opened, at most {connections.most_in_use} in use at "
        f"once, taken {connections.operations} times",
        f"stale reads  {load.stale} of {load.reads}: {_why(findings.affinity)}",
        "",
        *_table(findings),
    ]
    return "\n".join(lines)


def _why(affinity: bool) -> str:
    if affinity:
        return "each visit's write and the read after it shared a connection"
    return "without affinity, a read may overtake the write before it"


def _latency(latencies: Sequence[float]) -> str:
    if not latencies:
        return "no request was answered"
    figures = [f"p{part} {percentile(latencies, part) * 1000:.1f} ms" for part in (50, 95, 99)]
    return ", ".join(figures)


def percentile(values: Sequence[float], part: int) -> float:
    """Return the least of *values* that *part* % of them do not exceed."""
    rank = math.ceil(len(values) * part / 100)
    return sorted(values)[max(rank, 1) - 1]


def _table(findings: Findings) -> list[str]:
    columns = (findings.load.sent, findings.counted, findings.logged)
    pages = _pages(findings)
    width = max(map(len, [*pages, "all pages"]))
    rows = [(page, *(column.get(page, 0) for column in columns)) for page in pages]
    rows.append(("all pages", *(sum(column.values()) for column in columns)))
    lines = [f"{'visits to':{width}}  {'sent':>7}  {'counted':>7}  {'logged':>7}"]
    for page, sent, counted, logged in rows:
        lines.append(f"{page:{width}}  {sent:7}  {counted:7}  {logged:7}")
    return lines


def _pages(findings: Findings) -> list[str]:
    return sorted({*findings.load.sent, *findings.counted, *findings.logged})


def differences(findings: Findings) -> list[str]:
    """Return what does not add up, a sentence each; nothing if all is well.

    For each page the visits sent, its counter and its documents in the log
    must be the same number, and no request may have failed. With affinity no
    read may have been stale.
    """
    found = []
    if findings.affinity and findings.load.stale:
        found.append(f"stale reads: {findings.load.stale}, in spite of affinity")
    for page in _pages(findings):
        sent = findings.load.sent.get(page, 0)
        counted = findings.counted.get(page, 0)
        logged = findings.logged.get(page, 0)
        if not sent == counted == logged:
            found.append(f"{page}: {sent} visits sent, {counted} counted, {logged} logged")
    return found + failures(findings.load)


def failures(load: Load) -> list[str]:
    """Return a sentence for each kind of failed request, the most frequent first."""
    by_kind: Counter[str] = Counter()
    for told, number in load.failures.items():
        by_kind[brief(told)] += number
    kinds = by_kind.most_common()
    found = [f"failed requests: {number} with {kind}" for kind, number in kinds[:_MOST_KINDS]]
    if len(kinds) > _MOST_KINDS:
        found.append(f"and {len(kinds) - _MOST_KINDS} other kinds of failure")
    if load.unsent:
        found.append(f"requests not sent after that: {load.unsent}")
    return found


def brief(told: object) -> str:
    """Return what an error says, without the state of the driver that follows."""
    line = str(told).partition("\n")[0]
    for detail in (", Timeout: ", ", full error: "):
        line = line.partition(detail)[0]
    return re.sub(r" \(configured timeouts: [^)]*\)", "", line)
