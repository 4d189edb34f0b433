"""The suite's command-line options.

`__main__` parses them first; `report` repeats them in the circumstances.

Rule: what cannot be is refused here, before a server is started: a name that
is unknown, a number below its least, a plot without matplotlib.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .peers import LIMIT, LOOPS, PEERS
from .task import TRANSPORTS

__all__ = ["Options", "parse"]

T = TypeVar("T")

_ROUNDS, _SECONDS, _WARM_UP = 5, 2.0, 1.0
# To see that all works; the figures mean little.
_QUICK_ROUNDS, _QUICK_SECONDS, _QUICK_WARM_UP, _QUICK_AT_ONCE = 2, 0.2, 0.1, (1, 100)


@dataclass(frozen=True)
class Options:
    """What the command line asked for.

    Attributes:
        command: The arguments as they were given, after the program's name.
    """

    command: tuple[str, ...]
    tasks: tuple[str, ...]
    peers: tuple[str, ...]
    loops: tuple[str, ...]
    transports: tuple[str, ...]
    at_once: tuple[int, ...] | None
    rounds: int
    seconds: float
    warm_up: float
    quick: bool
    pool_size: int | None
    uri: str | None
    json: Path | None
    plots: Path | None
    plot_formats: tuple[str, ...]
    list: bool


def parse(argv: Sequence[str], program: str) -> Options:
    """Parse *argv*; a mistake ends the program with exit code 2 and says why."""
    parser = _parser(program)
    given = parser.parse_args(argv)
    if given.plots is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plots needs matplotlib: pip install 'motorlike[bench]'")
    quick = given.quick
    return Options(
        command=(*program.split(), *argv),
        tasks=tuple(given.tasks),
        peers=tuple(given.peers),
        loops=tuple(given.loop),
        transports=tuple(given.transport),
        at_once=_first(given.at_once and tuple(given.at_once), _QUICK_AT_ONCE if quick else None),
        rounds=_first(given.rounds, _QUICK_ROUNDS if quick else _ROUNDS),
        seconds=_first(given.seconds, _QUICK_SECONDS if quick else _SECONDS),
        warm_up=_first(given.warm_up, _QUICK_WARM_UP if quick else _WARM_UP),
        quick=quick,
        pool_size=given.pool_size,
        uri=given.uri,
        json=given.json,
        plots=given.plots,
        plot_formats=tuple(given.plot_formats),
        list=given.list,
    )


def _first(given: T | None, default: T) -> T:
    return default if given is None else given


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Measure motorlike beside other MongoDB clients: in interleaved rounds, each "
        "measurement in a process of its own. Prints tables as Markdown.",
        epilog="Exit code: 0 if motorlike was measured wherever that was possible, 1 if it failed "
        "somewhere, 2 if the run could not begin, 130 after Ctrl-C.",
    )
    _add_choices(parser.add_argument_group("what is measured"))
    _add_conditions(parser.add_argument_group("under which conditions"))
    _add_amounts(parser.add_argument_group("how much"))
    _add_outputs(parser.add_argument_group("where it goes"))
    return parser


def _add_choices(group: argparse._ArgumentGroup) -> None:
    peers = (*PEERS, LIMIT)
    option = group.add_argument
    option(
        "--tasks",
        nargs="+",
        default=["*"],
        metavar="GLOB",
        help="names or groups, with * and ?; --list tells them (default: all)",
    )
    option(
        "--peers",
        nargs="+",
        choices=peers,
        default=peers,
        metavar="NAME",
        help=f"of {', '.join(peers)} (default: all)",
    )
    option(
        "--at-once",
        nargs="+",
        type=_positive,
        metavar="N",
        help="how many operations are under way at a time (default: each task's own)",
    )


def _add_conditions(group: argparse._ArgumentGroup) -> None:
    option = group.add_argument
    option(
        "--loop",
        nargs="+",
        choices=LOOPS,
        default=LOOPS[:1],
        metavar="NAME",
        help=f"of {', '.join(LOOPS)} (default: {LOOPS[0]})",
    )
    option(
        "--transport",
        nargs="+",
        choices=TRANSPORTS,
        default=TRANSPORTS[:1],
        metavar="NAME",
        help=f"of {', '.join(TRANSPORTS)} (default: {TRANSPORTS[0]})",
    )
    option("--uri", help="a running server to use (default: start those that are needed)")
    option(
        "--pool-size",
        type=_positive,
        metavar="N",
        help="maxPoolSize of all peers (default: each library's own default)",
    )


def _add_amounts(group: argparse._ArgumentGroup) -> None:
    option = group.add_argument
    option("--rounds", type=_positive, metavar="N", help=f"(default: {_ROUNDS})")
    option(
        "--seconds",
        type=_seconds,
        metavar="S",
        help=f"length of each measurement (default: {_SECONDS:g})",
    )
    option(
        "--warm-up",
        type=_seconds,
        metavar="S",
        help=f"seconds before each that are not measured (default: {_WARM_UP:g})",
    )
    option(
        "--quick",
        action="store_true",
        help=f"only try that all works: by default {_QUICK_ROUNDS} rounds of {_QUICK_SECONDS:g} s, "
        "and less work in some tasks",
    )


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    option = group.add_argument
    option("--json", type=Path, metavar="FILE", help="write all figures of all rounds there too")
    option("--plots", type=Path, metavar="DIR", help="draw plots there")
    option(
        "--plot-formats", nargs="+", choices=("svg", "png"), default=("svg",), help="(default: svg)"
    )
    option("--list", action="store_true", help="list the tasks and end")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # Also false for what is not a number.
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")
    return seconds
