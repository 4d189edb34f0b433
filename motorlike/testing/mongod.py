"""Run a local mongod for tests, the demo and benchmarks.

```python
from pymongo import MongoClient
from motorlike.testing.mongod import replica_set

with replica_set(tls=True) as server:
    with MongoClient(server.uri, **server.client_options) as client:
        client.admin.command("ping")
    server.primary().kill()
    server.wait_for_primary()
```

The servers listen on 127.0.0.1 only, keep little in memory, and store their
data in a temporary folder. Needs a POSIX system.

Rule: nothing is left behind. The servers are killed and the folder is deleted
at the end of the `with` block, however the program ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from motorlike.testing._binary import MongodNotFound, find_mongod
from motorlike.testing._deployment import Deployment, running
from motorlike.testing._member import Member, Options, PortTaken
from motorlike.testing._process import MongodFailed

__all__ = [
    "Deployment",
    "Member",
    "MongodFailed",
    "MongodNotFound",
    "PortTaken",
    "find_mongod",
    "main",
    "replica_set",
    "standalone",
]

_POLL_SECONDS = 0.2


def standalone(
    *,
    tls: bool = False,
    auth: bool = False,
    fail_points: bool = False,
    port: int | None = None,
    extra_args: Sequence[str] = (),
    tls_require_client_certificate: bool = False,
    dbpath: str | os.PathLike[str] | None = None,
) -> AbstractContextManager[Deployment]:
    """Run one mongod: ``with standalone() as server: ...``.

    Args:
        tls: Accept TLS connections only, with certificates made for the run
            by the `cryptography` package.
        auth: Require a login; `Deployment.uri` and `client_options` carry it.
        fail_points: Allow the ``configureFailPoint`` command.
        port: The TCP port; None picks a free one.
        extra_args: Further mongod arguments. ``--bind_ip`` and
            ``--wiredTigerCacheSizeGB`` given here replace the defaults.
        tls_require_client_certificate: Refuse clients without a certificate.
        dbpath: Keep the data in this folder, and shut down cleanly.

    Raises:
        MongodNotFound: There is no mongod that can be run.
        PortTaken: Another process listens on *port*.
        MongodFailed: It did not start; its log is in the message.
        ImportError: *tls* without the `cryptography` package.
    """
    options = Options(
        tls=tls,
        auth=auth,
        fail_points=fail_points,
        port=port,
        extra_args=tuple(extra_args),
        tls_require_client_certificate=tls_require_client_certificate,
        dbpath=None if dbpath is None else Path(dbpath),
    )
    return running(options, None)


def replica_set(
    members: int = 3,
    *,
    tls: bool = False,
    auth: bool = False,
    fail_points: bool = False,
    port: int | None = None,
    extra_args: Sequence[str] = (),
    tls_require_client_certificate: bool = False,
    dbpath: str | os.PathLike[str] | None = None,
) -> AbstractContextManager[Deployment]:
    """Run a replica set: ``with replica_set() as server: ...``.

    It has a primary, and all others are secondaries, when the block begins.
    A new primary is elected within seconds. The options are those of
    `standalone`; *port* is the first member's, the others have the next ones.

    Args:
        members: How many mongods, at least 1.
    """
    if members < 1:
        raise ValueError(f"members is {members}. A replica set needs at least 1.")
    options = Options(
        tls=tls,
        auth=auth,
        fail_points=fail_points,
        port=port,
        extra_args=tuple(extra_args),
        tls_require_client_certificate=tls_require_client_certificate,
        dbpath=None if dbpath is None else Path(dbpath),
    )
    return running(options, members)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server in the foreground: ``python -m motorlike server``.

    Prints its URI on the first line of stdout. Runs until Ctrl-C or SIGTERM.

    Returns:
        The exit code: 0 when stopped, 1 when mongod failed, 2 when there is
        none.
    """
    arguments = _parser().parse_args(argv)
    try:
        with _signals_interrupt(), _server(arguments) as server:
            _announce(server, arguments.dbpath)
            _wait_until_ended(server)
    except KeyboardInterrupt:
        return 0
    except MongodNotFound as exc:
        return _complain(exc, 2)
    except (MongodFailed, ImportError, OSError) as exc:
        # ImportError: no cryptography package. OSError: a dbpath out of reach.
        return _complain(exc, 1)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m motorlike server",
        description="Run a local MongoDB server for development until Ctrl-C.",
    )
    parser.add_argument(
        "--port", type=_port, default=27017, help="TCP port, 0 for a free one (default: 27017)"
    )
    parser.add_argument(
        "--replica-set", type=_positive, metavar="N", help="run a replica set of N members"
    )
    parser.add_argument("--tls", action="store_true", help="accept TLS connections only")
    parser.add_argument("--auth", action="store_true", help="require a login")
    parser.add_argument(
        "--fail-points", action="store_true", help="allow the configureFailPoint command"
    )
    parser.add_argument(
        "--dbpath", type=Path, help="keep the data in this folder (default: a temporary one)"
    )
    return parser


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port: give 0 to 65535")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} members are not a replica set: give 1 or more")
    return number


def _server(arguments: argparse.Namespace) -> AbstractContextManager[Deployment]:
    options = Options(
        tls=arguments.tls,
        auth=arguments.auth,
        fail_points=arguments.fail_points,
        port=arguments.port or None,
        dbpath=arguments.dbpath,
    )
    return running(options, arguments.replica_set)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as SIGINT does.

    SIGINT too is set: a shell starts background jobs with it ignored.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(server: Deployment, dbpath: Path | None) -> None:
    fate = "deletes its data" if dbpath is None else f"keeps its data in {dbpath}"
    sys.stdout.write(f"{server.uri}\nPress Ctrl-C to stop. That {fate}.\n")
    sys.stdout.flush()


def _wait_until_ended(server: Deployment) -> None:
    while True:
        for member in server.members:
            if not member.is_running:
                raise MongodFailed(
                    f"The mongod on port {member.port} ended by itself. Start again; the end of "
                    f"its log says:\n{member.log_tail()}"
                )
        time.sleep(_POLL_SECONDS)


def _complain(error: Exception, code: int) -> int:
    sys.stderr.write(f"motorlike server: {error}\n")
    return code
