"""The suite from a command line: ``python -m benchmarks``, ``python -m motorlike bench``.

Starts the servers, measures each peer at each task in rounds, prints tables.

Rule: the exit code is 0 only if motorlike could do all that it was asked; how
fast it was has no part in that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from motorlike.testing.mongod import MongodFailed, MongodNotFound

from . import report
from .options import Options, parse
from .progress import steps
from .runner import Durations, Runner
from .schedule import REFERENCE, Selection, Table, plan, run
from .servers import GivenServer, OwnServers, Servers
from .tasks import all_tasks, matching

if TYPE_CHECKING:
    from .task import Task

__all__ = ["main"]

ALL_MEASURED = 0
MOTORLIKE_FAILED = 1
CANNOT_RUN = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None, program: str = "python -m benchmarks") -> int:
    """Run the suite, and return the exit code.

    Args:
        argv: The arguments; those of the command line if ``None``.
        program: What the user typed before them.

    Returns:
        0 if motorlike was measured wherever that was possible, 1 if it failed
        somewhere, 2 if there is no server to run on, 130 after Ctrl-C.
    """
    options = parse(sys.argv[1:] if argv is None else argv, program)
    try:
        tasks = matching(options.tasks, all_tasks())
        if options.list:
            return _list(tasks)
        return _run(options, tasks)
    except LookupError as exc:
        print(f"{program}: {exc}", file=sys.stderr)
        return CANNOT_RUN


def _list(tasks: Sequence[Task]) -> int:
    width = max(len(task.full_name) for task in tasks)
    for task in tasks:
        print(f"{task.full_name:<{width}}  {task.summary}")
    return ALL_MEASURED


def _run(options: Options, tasks: Sequence[Task]) -> int:
    tables = plan(
        tasks, Selection(options.peers, options.loops, options.transports, options.at_once)
    )
    made = report.circumstances(options)
    servers: Servers = OwnServers() if options.uri is None else GivenServer(options.uri)
    durations = Durations(options.seconds, options.warm_up, options.quick)
    with Runner(servers, durations, options.pool_size) as runner:
        code = _measure(options, tables, runner)
        made.versions["MongoDB"] = runner.mongodb or "not asked"
    made = replace(made, was_cut_short=code in (CANNOT_RUN, INTERRUPTED))
    has_figures = any(cell.has_figures for table in tables for cell in table.cells.values())
    if code in (ALL_MEASURED, MOTORLIKE_FAILED) or has_figures:
        # Also after a run that was cut short: what there is may have taken long.
        _print(tables, made)
        _write(tables, made, options)
    return code


def _measure(options: Options, tables: Sequence[Table], runner: Runner) -> int:
    total = options.rounds * sum(len(table.cells) for table in tables)
    try:
        steps(run(tables, options.rounds, runner.measure), total)
    except KeyboardInterrupt:
        print("Interrupted: the tables hold what had been measured by then.", file=sys.stderr)
        return INTERRUPTED
    except (MongodNotFound, MongodFailed, PyMongoError) as exc:
        print(f"The run ends here: {exc}", file=sys.stderr)
        return CANNOT_RUN
    return _exit_code(tables)


def _print(tables: Sequence[Table], made: report.Circumstances) -> None:
    print("\n".join(f"- {line}" for line in made.lines()))
    print(f"\n{report.legend()}")
    for table in tables:
        if any(cell.rounds or cell.problem for cell in table.cells.values()):
            print(f"\n{report.render(table)}", end="")


def _write(tables: Sequence[Table], made: report.Circumstances, options: Options) -> None:
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report.as_json(tables, made), indent=1) + "\n")
    if options.plots is not None:
        from .plots import draw

        for path in draw(tables, options.plots, options.plot_formats):
            print(f"Wrote {path}", file=sys.stderr)


def _exit_code(tables: Sequence[Table]) -> int:
    failed = [
        f"{table.task.full_name}, {table.at_once} at a time, {table.transport}: {cell.problem}"
        for table in tables
        for contender, cell in table.cells.items()
        if contender.peer == REFERENCE and cell.failures
    ]
    for line in failed:
        print(f"motorlike failed at {line}", file=sys.stderr)
    return MOTORLIKE_FAILED if failed else ALL_MEASURED


if __name__ == "__main__":
    sys.exit(main())
