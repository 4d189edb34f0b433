"""What can be run from a command line: ``python -m motorlike COMMAND``.

Rule: each command is a `main(arguments)` elsewhere, which returns its exit
code and has a ``--help`` of its own. Only the choice is made here.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from motorlike.demo import command as demo
from motorlike.testing import mongod
from motorlike.version import __version__

__all__ = ["main"]

_Command = Callable[[Sequence[str]], int]

_BENCHMARKS = "motorlike._benchmarks"
_FOLDER = Path(__file__).resolve().parent


def _bench(arguments: Sequence[str]) -> int:
    """Run the benchmark suite, from where it is: the wheel, or the checkout."""
    # setup.cfg packs the checkout's folder into the wheel under the other name.
    name = _BENCHMARKS if importlib.util.find_spec(_BENCHMARKS) is not None else "benchmarks"
    if name == "benchmarks" and not _is_beside_package(name):
        sys.stderr.write(
            f"motorlike bench: there are no benchmarks in {_FOLDER} nor beside it. Run "
            "pip install 'motorlike[bench,server]', or start it in a checkout of motorlike.\n"
        )
        return 2
    suite = importlib.import_module(f"{name}.__main__")
    code: int = suite.main(arguments, "python -m motorlike bench")
    return code


def _is_beside_package(name: str) -> bool:
    """Whether *name* is the checkout's, and no other package of that name."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin == str(_FOLDER.parent / name / "__init__.py")


_COMMANDS: dict[str, tuple[_Command, str]] = {
    "bench": (_bench, "measure motorlike beside other MongoDB clients"),
    "demo": (demo.main, "run a Tornado page-visit counter, send it load, check its counts"),
    "server": (mongod.main, "run a local MongoDB server until Ctrl-C"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names, and return its exit code."""
    # What follows the command's name is left to its own parser.
    chosen, arguments = _parser().parse_known_args(argv)
    command, _ = _COMMANDS[chosen.command]
    return command(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m motorlike",
        description="PyMongo, unchanged, as an asynchronous client for Tornado and asyncio.",
        epilog="'python -m motorlike COMMAND --help' tells the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"motorlike {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for name, (_, summary) in _COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
