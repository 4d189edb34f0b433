"""Finds the benchmark suite, and makes tables that no server was asked for.

In the checkout it is the folder `benchmarks`; a wheel has it inside the
package. The tests run either.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import Any

IS_INSTALLED = importlib.util.find_spec("motorlike._benchmarks") is not None
PACKAGE = "motorlike._benchmarks" if IS_INSTALLED else "benchmarks"


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


peers = module("peers")
schedule = module("schedule")
task = module("task")


class Nothing(task.Task):  # type: ignore[misc, name-defined]  # found at run time
    """A task that is planned and reported, and never run."""

    name = "nothing"
    summary = "do nothing"
    figures = (task.RATE, task.CPU)
    at_once = (1, 10)
    has_limit = True

    async def run(self, bench: Any) -> dict[str, float]:
        raise AssertionError("it was run")


def table(
    names: Sequence[str], at_once: int = 10, loops: Sequence[str] = ("asyncio",), **attributes: Any
) -> Any:
    """An empty table of `Nothing` with the peers *names*."""
    nothing = Nothing()
    vars(nothing).update(attributes)
    chosen = schedule.Selection(names, loops, ("plain",), (at_once,))
    (only,) = schedule.plan([nothing], chosen)
    return only


def fill(filled: Any, peer: str, rates: Sequence[float | None], cpus: Sequence[float]) -> Any:
    """Give the cell of *peer* its rounds, and return it."""
    (cell,) = [cell for row, cell in filled.cells.items() if row.peer == peer]
    for rate, cpu in zip(rates, cpus, strict=True):
        if rate is None:
            cell.fail("crashed with SIGSEGV")
        else:
            cell.succeed({"rate": rate, "cpu": cpu})
    return cell
