"""One measurement in a process of its own: ``python -m benchmarks.child CASE``.

CASE is a `Case` as JSON. Prints one line of JSON: ``{"figures": {...}}``, or
``{"unavailable": "why"}``. Whatever else happens ends it with a traceback.

Rule: the process ends as soon as the line is out, without any clean-up: a
library that crashes at exit must not take its figures along.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import import_module

from .measure import Bench, Case
from .peers import LIMIT, PEERS, loop_factory
from .task import Task, Unavailable
from .tasks import find_task

__all__ = ["main"]


async def _measure(task: Task, case: Case) -> dict[str, float]:
    bench = Bench(case, PEERS[case.peer])
    try:
        return await task.run(bench)
    finally:
        await bench.close()


def _figures(case: Case) -> dict[str, float]:
    task = find_task(case.task)
    if case.peer == LIMIT:
        figures: dict[str, float] = import_module(f"{__package__}.limit").measure(task, case)
        return figures
    with asyncio.Runner(loop_factory=loop_factory(case.loop)) as runner:
        return runner.run(_measure(task, case))


def main() -> None:
    """Measure the case that the command line gives."""
    case = Case(**json.loads(sys.argv[1]))
    try:
        answer: dict[str, object] = {"figures": _figures(case)}
    except Unavailable as exc:
        answer = {"unavailable": str(exc)}
    print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
