"""The plots: one for each task and transport, on request.

`__main__` calls `draw` with ``--plots``. matplotlib is imported here alone.

Rule: a plot shows what its table shows: medians, the range of the rounds, and
the limit where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from .peers import LOOPS, PEERS
from .schedule import Contender, Table
from .task import Figure

__all__ = ["draw"]

_BAR_SPACE = 0.8
_COLOURS = ("#c44e52", "#4c72b0", "#55a868", "#8172b2", "#ccb974", "#64b5cd")
_LIMIT_COLOUR = "#222222"


def draw(tables: Sequence[Table], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Draw the *tables* that hold figures, and return the files.

    Those that differ only in how many operations are under way share a plot.

    Args:
        formats: ``svg``, ``png`` or both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for _, group in groupby(tables, lambda table: (table.task.full_name, table.transport)):
        alike = list(group)
        if any(cell.has_figures for table in alike for cell in table.cells.values()):
            written += _draw_one(alike, folder, formats)
    return written


def _draw_one(tables: Sequence[Table], folder: Path, formats: Sequence[str]) -> Iterator[Path]:
    task = tables[0].task
    shown = [figure for figure in task.figures if figure == task.figures[0] or figure.is_cpu]
    canvas = Canvas(figsize=(5.2 * len(shown) + 2.2, 4.2), layout="constrained")
    # It attaches itself to the figure.
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(1, len(shown), squeeze=False)[0]
    for figure, axis in zip(shown, axes, strict=True):
        _bars(axis, tables, figure)
    handles, labels = axes[-1].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside right upper", frameon=False, fontsize="small")
    canvas.suptitle(f"{task.summary} ({tables[0].transport})")
    for suffix in formats:
        path = folder / f"{task.full_name}.{tables[0].transport}.{suffix}"
        # No date inside: the same figures give the same file.
        canvas.savefig(path, metadata={"Date": None} if suffix == "svg" else None)
        yield path


# Any: matplotlib's axes, for its types come and go with its releases.
def _bars(axis: Any, tables: Sequence[Table], figure: Figure) -> None:
    contenders = [row for row in tables[0].cells if not row.is_limit]
    width = _BAR_SPACE / len(contenders)
    for index, contender in enumerate(contenders):
        offset = (index + 0.5) * width - _BAR_SPACE / 2
        _bars_of(axis, tables, figure, contender, offset, width)
    if figure.is_cpu:
        _limits(axis, tables)
    axis.set_xticks(range(len(tables)), [f"{table.at_once:,}" for table in tables])
    axis.set_xlabel("at a time" if tables[0].task.at_once is not None else "")
    axis.set_ylabel(figure.unit)
    axis.set_title("more is better" if figure.is_more_better else "less is better", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _bars_of(
    axis: Any,
    tables: Sequence[Table],
    figure: Figure,
    contender: Contender,
    offset: float,
    width: float,
) -> None:
    places, heights, below, above = [], [], [], []
    for place, table in enumerate(tables):
        cell = table.cells[contender]
        middle = cell.median(figure.name)
        if middle is not None:
            values = cell.values(figure.name)
            places.append(place + offset)
            heights.append(middle)
            below.append(middle - min(values))
            above.append(max(values) - middle)
    label = contender.label(tables[0].at_once, with_loop=tables[0].has_many_loops)
    # A peer's colour is the same in all plots; loops differ by their pattern.
    colour = _COLOURS[list(PEERS).index(contender.peer)]
    hatch = "" if contender.loop == LOOPS[0] else "///"
    axis.bar(places, heights, width, color=colour, hatch=hatch, edgecolor="white", label=label)
    axis.errorbar(places, heights, [below, above], fmt="none", ecolor="#444444", elinewidth=0.8)


def _limits(axis: Any, tables: Sequence[Table]) -> None:
    label: str | None = "limit"
    for place, table in enumerate(tables):
        for contender, cell in table.cells.items():
            middle = cell.median("cpu") if contender.is_limit else None
            if middle is not None:
                ends = (place - 0.5, place + 0.5)
                axis.hlines(middle, *ends, colors=_LIMIT_COLOUR, linestyles="dashed", label=label)
                label = None
