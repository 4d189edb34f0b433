"""The tables: what the run found, for people to read and to paste into a page.

`__main__` prints them as Markdown, which reads well on a terminal too, and
writes the JSON.

Rule: a figure of several rounds never stands without its spread, nor a ratio without saying
whose to whose; what could not be measured says why.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .options import Options
from .peers import LIMIT, PEERS, installed_version
from .schedule import Cell, Contender, Table
from .task import Figure

__all__ = ["Circumstances", "as_json", "circumstances", "legend", "render"]

# In the place of a figure that there is not.
_NOTHING = "-"


@dataclass(frozen=True)
class Circumstances:
    """Where and how a run was made.

    Attributes:
        command: The exact command line.
        machine: Processor, memory and operating system.
        versions: Of Python, the server and the libraries.
        rounds: How many.
        seconds: Of each measurement.
        warm_up: Seconds before each, not measured.
        pool_size: ``maxPoolSize``, or ``None`` for each library's default.
        is_quick: Whether it was only tried that all works.
        load: What the system's load was before the run.
        was_cut_short: Whether rounds or tables are missing at the end.
    """

    command: str
    machine: str
    versions: dict[str, str]
    rounds: int
    seconds: float
    warm_up: float
    pool_size: int | None
    is_quick: bool
    load: float
    was_cut_short: bool = False

    def lines(self) -> list[str]:
        """Say it in words."""
        pool = "" if self.pool_size is None else f", maxPoolSize {self.pool_size}"
        lines = [
            f"Command: `{self.command}`",
            f"Machine: {self.machine}; load before the run: {self.load:.2f}",
            "Versions: "
            + ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            f"Medians of {self.rounds} interleaved rounds of {self.seconds:g} s, each in a process "
            f"of its own after {self.warm_up:g} s of warm-up{pool}",
        ]
        if self.is_quick:
            lines.append(
                "A quick run, to see that all works: some tasks do less, figures mean little"
            )
        if self.was_cut_short:
            lines.append("The run was cut short: rounds and tables are missing at its end")
        return lines


def circumstances(options: Options) -> Circumstances:
    """Look at the machine and the libraries, before the run."""
    return Circumstances(
        command=shlex.join(options.command),
        machine=_machine(),
        versions=_versions(options.peers, options.loops),
        rounds=options.rounds,
        seconds=options.seconds,
        warm_up=options.warm_up,
        pool_size=options.pool_size,
        is_quick=options.quick,
        load=os.getloadavg()[0],
    )


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}"
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2] for line in text.splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def _versions(peers: Sequence[str], loops: Sequence[str]) -> dict[str, str]:
    found = {"Python": platform.python_version()}
    chosen = [PEERS[name] for name in peers if name != LIMIT]
    for peer in chosen:
        if peer.is_installed:
            found[peer.distribution] = peer.version
    for name in ("pymongo", "greenlet", "tornado", *(loop for loop in loops if loop != "asyncio")):
        version = installed_version(name)
        if version is not None:
            found.setdefault(name, version)
    return found


# -- the tables ------------------------------------------------------------


def legend() -> str:
    """Say how to read the tables."""
    return (
        "± is half of what lies between the least and the greatest round, in percent of the "
        "median; a figure without it is of one round. A ratio is motorlike's figure to that of "
        "the row, the median of the rounds' own ratios: of a rate above 1, and of a cost below "
        "1, motorlike is better. CPU is the client's process, all threads together."
    )


def render(table: Table) -> str:
    """Return *table* as Markdown, under its title."""
    figures = table.task.figures
    ratios = [figure for figure in figures if figure == figures[0] or figure.is_cpu]
    has_limit = any(row.is_limit for row in table.cells)
    heading = ["client", *(figure.unit for figure in figures)]
    heading += [f"{figure.unit} ratio" for figure in ratios]
    heading += ["CPU to limit"] if has_limit else []
    rows = [_row(table, contender, ratios, heading) for contender in table.cells]
    notes = "".join(f"\n- {note}" for note in _notes(table))
    return f"**{table.title}**\n\n{_aligned([heading, *rows])}\n" + (notes and f"{notes}\n")


def _row(
    table: Table, contender: Contender, ratios: Sequence[Figure], heading: Sequence[str]
) -> list[str]:
    cell = table.cells[contender]
    row = [_label(table, contender)]
    if not cell.has_figures:
        # The notes under the table say why.
        return row + [_NOTHING] * (len(heading) - 1)
    row += [_value(cell, figure) for figure in table.task.figures]
    row += [_ratio(None if contender.is_limit else table.ratio(contender, f)) for f in ratios]
    if len(row) < len(heading):
        row.append(_ratio(table.distance(contender)))
    return row


def _label(table: Table, contender: Contender) -> str:
    return contender.label(table.at_once, with_loop=table.has_many_loops)


def _notes(table: Table) -> list[str]:
    """Say why figures are missing, each reason once."""
    labels: dict[str, list[str]] = {}
    for contender, cell in table.cells.items():
        if cell.problem is not None:
            labels.setdefault(_in_words(cell), []).append(_label(table, contender))
    return [f"{', '.join(several)}: {problem}" for problem, several in labels.items()]


def _in_words(cell: Cell) -> str:
    if not cell.has_figures:
        return cell.problem or ""
    return f"{cell.failures} of {len(cell.rounds)} rounds failed: {cell.problem}"


def _value(cell: Cell, figure: Figure) -> str:
    values = cell.values(figure.name)
    middle = cell.median(figure.name)
    if middle is None:
        return _NOTHING
    if len(values) == 1:
        return number(middle)
    spread = (max(values) - min(values)) / 2 / middle if middle else 0.0
    return f"{number(middle)} ±{spread:.0%}"


def number(value: float) -> str:
    """Return *value* with three digits or more that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], _line(rule, widths), *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    texts = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
    return "| " + " | ".join([row[0].ljust(widths[0]), *texts]) + " |"


# -- the JSON --------------------------------------------------------------


def as_json(tables: Sequence[Table], made: Circumstances) -> dict[str, Any]:  # Any: JSON
    """Return all that was measured, each round of each cell."""
    return {"circumstances": asdict(made), "tables": [_table_as_json(each) for each in tables]}


def _table_as_json(table: Table) -> dict[str, Any]:  # Any: JSON
    return {
        "task": table.task.full_name,
        "summary": table.task.summary,
        "transport": table.transport,
        "at_once": table.at_once,
        "figures": [asdict(figure) for figure in table.task.figures],
        "cells": [_cell_as_json(table, contender) for contender in table.cells],
    }


def _cell_as_json(table: Table, contender: Contender) -> dict[str, Any]:  # Any: JSON
    cell = table.cells[contender]
    figures = [] if contender.is_limit else table.task.figures
    return {
        "peer": contender.peer,
        "loop": contender.loop,
        "at_once": contender.at_once(table.at_once),
        "rounds": cell.rounds,
        "medians": {name: cell.median(name) for name in cell.names()},
        "ratios": {figure.name: table.ratio(contender, figure) for figure in figures},
        "cpu_to_limit": table.distance(contender),
        "problem": cell.problem,
    }
