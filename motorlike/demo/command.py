"""The demo from a command line: ``python -m motorlike demo``.

Starts a mongod and its `site`, sends that `load`, prints the `report`.

Rule: whatever was opened is closed again, however the run ends; the exit code
is 0 only if the counts add up.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from socket import socket

from pymongo.errors import PyMongoError

from motorlike.demo.app import counts
from motorlike.demo.interrupt import Interrupt
from motorlike.demo.load import Load, plan, send
from motorlike.demo.report import Findings, brief, differences, failures, report, versions
from motorlike.demo.site import CannotRun, Site, listening, serving
from motorlike.testing.mongod import MongodFailed, MongodNotFound, standalone

__all__ = ["main"]

COUNTS_ADD_UP = 0
COUNTS_DIFFER = 1
CANNOT_RUN = 2

# As a busy server is. Else hardly any read would overtake a write.
_SLOW_SHARE = 0.1
_SLOW_MILLISECONDS = 50
# For the last unacknowledged writes to arrive.
_SETTLE_SECONDS = 3
_POLL_SECONDS = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo, and return the exit code.

    Returns:
        0 if the counts add up, 1 if they do not, 2 if the demo could not
        begin, 128 and the signal's number if one ended it before the check.
    """
    arguments = _parser().parse_args(argv)
    interrupt = Interrupt()
    try:
        with (
            interrupt.handling_signals(),
            listening(arguments.port) as listener,
            _server(arguments.uri) as uri,
        ):
            return asyncio.run(_demo(arguments, interrupt, listener, uri))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _complain("interrupted; the counts were not checked.", interrupt.exit_code)
    except (CannotRun, MongodNotFound, MongodFailed) as exc:
        return _complain(str(exc), CANNOT_RUN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m motorlike demo",
        description="Serve a Tornado application that counts page visits in MongoDB, send it "
        "requests, print how that went, and check that every visit was counted.",
        epilog=f"Exit code: {COUNTS_ADD_UP} if the counts add up, {COUNTS_DIFFER} if they do not, "
        f"{CANNOT_RUN} if the demo cannot begin.",
    )
    _add_options(parser)
    _add_switches(parser)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option(
        "--requests",
        type=_positive,
        default=600,
        metavar="N",
        help="how many to send (default: %(default)s)",
    )
    option(
        "--concurrency",
        type=_positive,
        default=100,
        metavar="N",
        help="how many at a time (default: %(default)s)",
    )
    option("--port", type=_port, default=0, help="of the application (default: a free one)")
    option(
        "--uri",
        help="a MongoDB server to use, with a database of its own that is dropped at the end "
        "(default: start a server)",
    )


def _add_switches(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option(
        "--without-affinity",
        dest="affinity",
        action="store_false",
        help="log a visit and read it back on any two connections, not in a socket request: some "
        "reads will be stale",
    )
    option("--keep", action="store_true", help="go on serving until Ctrl-C, for you to look at")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give 0 to 65535")
    return int(text)


@contextmanager
def _server(uri: str | None) -> Iterator[str]:
    """Yield the URI to use: the one given, or that of a mongod started here."""
    if uri is not None:
        yield uri
        return
    with standalone(fail_points=True) as server:
        _say(f"Started a MongoDB server at {server.uri}")
        yield server.uri


async def _demo(
    arguments: argparse.Namespace, interrupt: Interrupt, listener: socket, uri: str
) -> int:
    with interrupt.cancelling_current_task():
        async with serving(listener, uri, affinity=arguments.affinity) as site:
            await _slow_down(site, is_own=arguments.uri is None)
            code = await _load_and_check(site, arguments)
            if arguments.keep:
                await _keep(site)
            return code


async def _slow_down(site: Site, *, is_own: bool) -> None:
    """Let the server be slow now and then, if it is the demo's own."""
    if not is_own:
        _say("The server given by --uri is not slowed: stale reads may be rare")
        return
    slow = {"failCommands": ["insert"], "blockConnection": True, "blockTimeMS": _SLOW_MILLISECONDS}
    mode = {"activationProbability": _SLOW_SHARE}
    await site.database.client.admin.command(
        "configureFailPoint", "failCommand", mode=mode, data=slow
    )
    _say(
        f"{_SLOW_SHARE:.0%} of its inserts take {_SLOW_MILLISECONDS} ms longer, as on a busy server"
    )


async def _send(site: Site, requests: int, concurrency: int) -> Load:
    _say(
        f"Serving at {site.url}\n"
        f"Sending {requests} requests from the same process, "
        f"{min(requests, concurrency)} at a time\n"
    )
    site.connections.operations = 0
    return await send(site.address, plan(requests), concurrency)


async def _settled_counts(site: Site, load: Load) -> tuple[dict[str, int], dict[str, int]]:
    """Count when all visits are in the log, or after a while without them.

    Nothing tells when an unacknowledged write has arrived.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        counted, logged = await counts(site.database)
        if sum(logged.values()) >= load.sent.total() or time.monotonic() > deadline:
            return counted, logged
        await asyncio.sleep(_POLL_SECONDS)


async def _load_and_check(site: Site, arguments: argparse.Namespace) -> int:
    """Send the load, print what came of it, and return the exit code."""
    load = await _send(site, arguments.requests, arguments.concurrency)
    connections = copy.copy(site.connections)
    try:
        counted, logged = await _settled_counts(site, load)
    except PyMongoError as exc:
        problems = [f"the counts could not be read: {brief(exc)}", *failures(load)]
    else:
        findings = Findings(load, connections, counted, logged, arguments.affinity)
        _say(f"{versions(site.mongodb)}\n\n{report(findings)}\n")
        problems = differences(findings)
    if problems:
        _say("This does not add up:\n- " + "\n- ".join(problems))
        return COUNTS_DIFFER
    _say("The counts add up: each visit sent was counted once and logged once.")
    return COUNTS_ADD_UP


async def _keep(site: Site) -> None:
    _say(f"\nStill serving at {site.url}\nPress Ctrl-C to stop.")
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


def _say(text: str) -> None:
    # At once, also into a pipe: somebody may be waiting for the URL.
    print(text, flush=True)


def _complain(message: str, code: int) -> int:
    print(f"motorlike demo: {message}", file=sys.stderr, flush=True)
    return code
