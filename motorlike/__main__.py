"""What can be run from a command line: ``python -m motorlike COMMAND``.

Rule: each command is a `main(arguments)` elsewhere, which returns its exit
code and has a ``--help`` of its own. Only the choice is made here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from motorlike.demo import command as demo
from motorlike.testing import mongod
from motorlike.version import __version__

__all__ = ["main"]

_Command = Callable[[Sequence[str]], int]

_COMMANDS: dict[str, tuple[_Command, str]] = {
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
