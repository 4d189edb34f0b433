"""The clients that are compared, behind one small interface.

Rule: each peer is used as its own documentation tells its users to.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["PEERS", "Peer"]

# What a benchmark repeats: an operation on a collection. For the synchronous
# peer it returns the result, for the others something to await.
Operation = Callable[[Any], Any]


class Peer:
    """One client library.

    Args:
        name: As printed in the tables.
        module: The module that must be importable.
        connect: Makes the client from a URI.
    """

    is_async = True

    def __init__(self, name: str, module: str, connect: Callable[[str], Any]) -> None:
        self.name = name
        self.module = module
        self.connect = connect

    @property
    def is_installed(self) -> bool:
        """Whether the library can be imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The version that is imported."""
        module = importlib.import_module(self.module)
        return str(getattr(module, "__version__", None) or module.version)

    def run(self, main: Callable[[Any], Awaitable[Any]], uri: str) -> Any:
        """Run the coroutine function *main* with a client on a new loop."""

        async def with_client() -> Any:
            client = self.connect(uri)
            try:
                return await main(client)
            finally:
                closed = client.close()
                if closed is not None:
                    await closed

        return asyncio.run(with_client())


def _motorlike(uri: str) -> Any:
    import motorlike

    return motorlike.MotorClient(uri)


def _motor(uri: str) -> Any:
    from motor.motor_asyncio import AsyncIOMotorClient

    return AsyncIOMotorClient(uri)


def _pymongo_async(uri: str) -> Any:
    from pymongo import AsyncMongoClient

    return AsyncMongoClient(uri)


def _pymongo(uri: str) -> Any:
    from pymongo import MongoClient

    return MongoClient(uri)


class _Synchronous(Peer):
    is_async = False


PEERS = {
    peer.name: peer
    for peer in (
        Peer("motorlike", "motorlike", _motorlike),
        _Synchronous("pymongo", "pymongo", _pymongo),
        Peer("pymongo-async", "pymongo", _pymongo_async),
        Peer("motor", "motor", _motor),
    )
}
