"""Which cells there are, in which order they are measured, and what came of it.

`__main__` makes the tables from its options, `runner` measures the cells,
`report` and `plots` read what they hold in the end.

Rule: within a table, rounds are interleaved (A B C A B C …), so that what the
machine does meanwhile falls upon all alike; a cell that fails ends nothing
but itself.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from .peers import LIMIT, PEERS
from .task import Figure, Task, Unavailable

__all__ = ["Cell", "CellFailed", "Contender", "Measure", "Selection", "Table", "plan", "run"]

REFERENCE = "motorlike"
# A crash may be an accident; two in a row are not.
_MOST_FAILURES = 2


class CellFailed(Exception):
    """The child of a cell crashed, or took too long. The message says which."""


@dataclass(frozen=True)
class Contender:
    """One row of a table: a peer on a loop. `limit` is a row too."""

    peer: str
    loop: str

    @property
    def is_limit(self) -> bool:
        """Whether this is no peer but the limit."""
        return self.peer == LIMIT

    def at_once(self, asked: int) -> int:
        """How many operations it has under way where *asked* are."""
        return asked if not self.is_limit and PEERS[self.peer].is_concurrent else 1

    def label(self, asked: int, *, with_loop: bool) -> str:
        """Its name in a table where *asked* operations are under way at a time."""
        label = self.peer
        if with_loop and not self.is_limit and PEERS[self.peer].uses_loop:
            label += f" on {self.loop}"
        if asked > 1 and not self.is_limit and self.at_once(asked) == 1:
            label += " (1 at a time)"
        return label


@dataclass
class Cell:
    """What a contender did in each round.

    Attributes:
        rounds: The figures of each round; ``None`` for one that failed.
        problem: Why there are none, or why some are missing.
        is_over: Whether further rounds are pointless.
        failures: How many rounds crashed or took too long.
    """

    rounds: list[dict[str, float] | None] = field(default_factory=list)
    problem: str | None = None
    is_over: bool = False
    failures: int = 0
    _failures_in_a_row: int = 0

    def values(self, figure: str) -> list[float]:
        """The values of *figure*, of the rounds that have one."""
        return [each[figure] for each in self.rounds if each is not None and figure in each]

    def median(self, figure: str) -> float | None:
        """The median of *figure*, if there is any value of it."""
        values = self.values(figure)
        return median(values) if values else None

    def names(self) -> list[str]:
        """The names of all figures that there are."""
        return list(dict.fromkeys(name for each in self.rounds if each for name in each))

    @property
    def has_figures(self) -> bool:
        """Whether any round gave some."""
        return any(each is not None for each in self.rounds)

    def succeed(self, figures: dict[str, float]) -> None:
        """Note what a round gave."""
        self.rounds.append(figures)
        self._failures_in_a_row = 0

    def give_up(self, problem: str) -> None:
        """Note why this cannot be measured at all."""
        self.problem = problem
        self.is_over = True

    def fail(self, problem: str) -> None:
        """Note why a round gave nothing."""
        self.rounds.append(None)
        self.problem = problem
        self.failures += 1
        self._failures_in_a_row += 1
        self.is_over = self._failures_in_a_row >= _MOST_FAILURES


@dataclass
class Table:
    """A task, on one transport, with so many at a time: a cell for each contender."""

    task: Task
    transport: str
    at_once: int
    cells: dict[Contender, Cell]

    @property
    def title(self) -> str:
        """One line that names it."""
        parts = [f"{self.task.full_name}: {self.task.summary}"]
        if self.task.at_once is not None:
            parts.append(f"{self.at_once:,} at a time")
        return ", ".join([*parts, self.transport])

    @property
    def has_many_loops(self) -> bool:
        """Whether a row's name must tell the loop."""
        loops = {row.loop for row in self.cells if not row.is_limit and PEERS[row.peer].uses_loop}
        return len(loops) > 1

    def ratio(self, contender: Contender, figure: Figure) -> float | None:
        """Median of motorlike's *figure* to that of *contender*, pair by pair."""
        reference = self._reference(contender)
        return None if reference is None else self._quotient(reference, contender, figure.name)

    def distance(self, contender: Contender) -> float | None:
        """Median of *contender*'s CPU time to the limit, pair by pair."""
        limits = [row for row in self.cells if row.is_limit]
        return self._quotient(contender, limits[0], "cpu") if limits else None

    def _reference(self, contender: Contender) -> Contender | None:
        ours = [row for row in self.cells if row.peer == REFERENCE]
        same_loop = [row for row in ours if row.loop == contender.loop]
        return next(iter(same_loop or ours), None)

    def _quotient(self, above: Contender, below: Contender, figure: str) -> float | None:
        pairs = zip(self.cells[above].rounds, self.cells[below].rounds, strict=False)
        quotients = [
            one[figure] / other[figure]
            for one, other in pairs
            if one is not None and other is not None and figure in one and other.get(figure)
        ]
        return median(quotients) if quotients else None


@dataclass(frozen=True)
class Selection:
    """What the command line chose.

    Attributes:
        peers: Names, `limit` among them or not.
        loops: Of `LOOPS`.
        transports: Of `TRANSPORTS`.
        at_once: Instead of the tasks' own, where that is not ``None``.
    """

    peers: Sequence[str]
    loops: Sequence[str]
    transports: Sequence[str]
    at_once: Sequence[int] | None = None


def plan(tasks: Sequence[Task], chosen: Selection) -> list[Table]:
    """Make the tables, empty but for what can be said beforehand."""
    return [
        Table(task, transport, at_once, _cells(task, chosen))
        for task in tasks
        for transport in _transports(task, chosen)
        for at_once in _widths(task, chosen)
    ]


def _transports(task: Task, chosen: Selection) -> list[str]:
    fitting = [each for each in chosen.transports if each in task.transports]
    return fitting or [task.transports[0]]


def _widths(task: Task, chosen: Selection) -> Sequence[int]:
    if task.at_once is None:
        return (1,)
    return chosen.at_once or task.at_once


def _cells(task: Task, chosen: Selection) -> dict[Contender, Cell]:
    cells: dict[Contender, Cell] = {}
    for peer in chosen.peers:
        if peer == LIMIT:
            if task.has_limit:
                cells[Contender(LIMIT, chosen.loops[0])] = Cell()
            continue
        loops = chosen.loops if PEERS[peer].uses_loop else chosen.loops[:1]
        for loop in loops:
            cells[Contender(peer, loop)] = cell = Cell()
            problem = _problem(task, peer, loop)
            if problem is not None:
                cell.give_up(problem)
    return cells


def _problem(task: Task, name: str, loop: str) -> str | None:
    peer = PEERS[name]
    if not peer.is_installed:
        return f"not installed: pip install {peer.distribution}"
    if importlib.util.find_spec(loop) is None:
        return f"not installed: pip install {loop}"
    return task.lacks(peer)


Measure = Callable[[Table, Contender], dict[str, float]]


def run(tables: Sequence[Table], rounds: int, measure: Measure) -> Iterator[str]:
    """Measure the cells of *tables*; yield the name of each before it is measured.

    A name is yielded for a cell that is over as well, so that there are
    always as many: a progress bar counts them.
    """
    for table in tables:
        for _ in range(rounds):
            for contender, cell in table.cells.items():
                yield f"{table.task.full_name} {contender.peer} {table.transport} {table.at_once}"
                if not cell.is_over:
                    _measure(table, contender, cell, measure)


def _measure(table: Table, contender: Contender, cell: Cell, measure: Measure) -> None:
    try:
        cell.succeed(measure(table, contender))
    except Unavailable as exc:
        cell.give_up(str(exc))
    except CellFailed as exc:
        cell.fail(str(exc))
