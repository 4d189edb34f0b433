"""The clients that are compared: which there are, and what each can do.

`schedule` asks here what can be measured, the child opens a `Client`.

Rule: each library is used as its own documentation tells its users to, with
its own default options. It is imported when a client is opened and not
before, for start-up is measured too.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clients import Client

__all__ = ["LIMIT", "LOOPS", "PEERS", "Peer", "installed_version", "loop_factory"]

LOOPS = ("asyncio", "uvloop")
# What stands in the place of a peer's name where the limit is measured.
LIMIT = "limit"


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes event loops of the kind *name*."""
    if name == "asyncio":
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(name).new_event_loop
    return factory


def installed_version(distribution: str) -> str | None:
    """Return the version of *distribution* that pip installed, if it did."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


_ONE_AT_A_TIME = "a synchronous client does one thing at a time"


@dataclass(frozen=True)
class Peer:
    """One way to use MongoDB from Python.

    Attributes:
        name: As in the tables and on the command line.
        client: The class in `clients` that adapts it.
        distribution: What pip installs.
        module: The module that must be importable.
        uses_loop: Whether the event loop makes a difference to it.
        is_concurrent: Whether it does more than one thing at a time.
        lacks: The features that it has not, each with the reason in words.
            Tasks name the features in `Task.needs`: ``bulk_write``,
            ``change_streams``, ``gridfs_streaming``, ``many_at_once``.
    """

    name: str
    client: str
    distribution: str
    module: str
    uses_loop: bool = True
    is_concurrent: bool = True
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_installed(self) -> bool:
        """Whether the library can be imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The installed version."""
        version = installed_version(self.distribution)
        if version is None:
            # motorlike in a checkout that was not installed.
            version = importlib.import_module(self.module).__version__
        return version

    async def connect(self, uri: str) -> Client:
        """Open a client. Nothing need have been sent to the server yet."""
        clients = importlib.import_module(f"{__package__}.clients")
        adapter: type[Client] = getattr(clients, self.client)
        return await adapter.open(uri)


_ALL = (
    Peer("motorlike", "MotorlikeClient", "motorlike", "motorlike"),
    Peer(
        "pymongo",
        "SynchronousClient",
        "pymongo",
        "pymongo",
        uses_loop=False,
        is_concurrent=False,
        lacks={"many_at_once": _ONE_AT_A_TIME},
    ),
    Peer("pymongo-async", "AsynchronousClient", "pymongo", "pymongo"),
    Peer("motor", "MotorClient", "motor", "motor"),
    Peer(
        "mongojet",
        "MongojetClient",
        "mongojet",
        "mongojet",
        lacks={
            "bulk_write": "mongojet has no bulk_write",
            "change_streams": "mongojet has no change streams",
            "gridfs_streaming": "mongojet's GridFS has no streams",
        },
    ),
    Peer("threads", "ThreadedClient", "pymongo", "pymongo"),
)
PEERS = {peer.name: peer for peer in _ALL}
