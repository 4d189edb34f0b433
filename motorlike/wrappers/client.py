"""`MotorClient`.

Rule: one line per method; what PyMongo documents is not documented again.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable
from typing import Any, ClassVar, Generic, Self

from pymongo.driver_info import DriverInfo
from pymongo.typings import _DocumentType

from motorlike import driver
from motorlike.declare import (
    Async,
    Call,
    Property,
    Wrapper,
    parameters_of,
    reached_by_attribute,
    wrap,
)
from motorlike.loops import LaterBinding, Loops, TornadoLoops
from motorlike.version import __version__
from motorlike.wrappers.change_stream import Watch
from motorlike.wrappers.database import MotorDatabase

__all__ = ["MotorClient"]

# PyMongo's own: driver.MongoClient's signature only passes everything on.
MongoClient = driver.load("pymongo.synchronous.mongo_client").MongoClient


class MotorClient(Wrapper, Generic[_DocumentType], wraps=driver.MongoClient):
    """A MongoDB client: `pymongo.MongoClient`, to be awaited.

    Making one touches no event loop and no network. Its first operation binds
    it to the running loop; on a later loop, and in a forked child, it opens
    itself anew.

    Args: as `pymongo.MongoClient`, and
        io_loop: Where operations start that are called while no loop runs.
        auto_start_request: Start a socket request for each task that uses the
            client, at its first operation.
    """

    _loops: ClassVar[type[Loops]] = TornadoLoops

    # It has items, by name; `for` would ask for them by number.
    __iter__: None = None

    HOST = Property()
    PORT = Property()
    address = Property()
    append_metadata = Call()
    arbiters = Property()
    bulk_write = Async()
    codec_options = Property()
    drop_database = Async()
    end_request = Call()
    get_database = Call()
    get_default_database = Call()
    in_request = Call()
    is_mongos = Property()
    is_primary = Property()
    list_database_names = Async()
    list_databases = Async(wraps=True)
    nodes = Property()
    options = Property()
    primary = Property()
    read_concern = Property()
    read_preference = Property()
    secondaries = Property()
    server_info = Async()
    start_request = Call()
    start_session = Async(wraps=True, enters=True)
    topology_description = Property()
    watch = Watch()
    write_concern = Property()

    @parameters_of(MongoClient.__init__)
    def __init__(
        self,
        *args: Any,
        io_loop: Any = None,
        auto_start_request: bool = False,
        **kwargs: Any,
    ) -> None:
        given = None if io_loop is None else self._loops.check(io_loop)
        self._io_loop = io_loop
        kwargs["driver"] = _driver_info(kwargs.get("driver"), self._loops.platform)
        if "auto_encryption_opts" in kwargs:
            kwargs["auto_encryption_opts"] = _unwrap_key_vault(kwargs["auto_encryption_opts"])
        self.delegate = driver.MongoClient(*args, auto_start_request=auto_start_request, **kwargs)
        self._binding = LaterBinding(self.delegate, given)

    @property
    def io_loop(self) -> Any:
        """The event loop that was given for the client, else the current one."""
        return self._loops.current() if self._io_loop is None else self._io_loop

    def get_io_loop(self) -> Any:
        """Return `io_loop`."""
        return self.io_loop

    def close(self) -> Awaitable[None]:
        """Close the client: its sessions, cursors, monitors and sockets.

        It starts at once; await the returned Future to be sure that nothing
        of the client is left. Where no loop runs, it is done on return.
        """
        if self._binding.is_open_here:
            return self._binding.spawn(driver.close, (self.delegate,), {})
        driver.discard(self.delegate)
        return _Done()

    async def aconnect(self) -> None:
        """Connect now, rather than at the first operation.

        Raises:
            ServerSelectionTimeoutError: No server could be reached.
        """
        await self._binding.spawn(_connect, (self.delegate,), {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def wrap(self, obj: Any) -> Any:
        """Return the wrapper of an object of the green driver; others stay as they are."""
        return wrap(obj, self)

    def _root(self) -> Self:
        return self

    def __getattr__(self, name: str) -> MotorDatabase[_DocumentType]:
        if name.startswith("_"):
            raise AttributeError(
                f"{type(self).__qualname__} has no attribute {name!r}. To access the {name} "
                f"database, use client[{name!r}]."
            )
        return reached_by_attribute(self[name])

    def __getitem__(self, name: str) -> MotorDatabase[_DocumentType]:
        return self.__wrappers__[MotorDatabase.__delegate_class__]._wrap(  # type: ignore[return-value]  # the registry holds its wrapper
            self.delegate[name], self
        )


def _connect(client: Any) -> None:
    client.admin.command("ping")


class _Done:
    """An awaitable that is done."""

    def __await__(self) -> Any:
        return iter(())


def _unwrap_key_vault(options: Any) -> Any:
    """Let `AutoEncryptionOpts` have a wrapper as its *key_vault_client*."""
    vault = getattr(options, "_key_vault_client", None)
    if isinstance(vault, Wrapper):
        # The user's own object is left as it is.
        options = copy.copy(options)
        options._key_vault_client = vault.delegate
    return options


def _driver_info(given: Any, platform: str) -> DriverInfo:
    if given is None:
        return DriverInfo("motorlike", __version__, platform)
    if not isinstance(given, DriverInfo):
        raise TypeError(f"driver must be a pymongo.driver_info.DriverInfo, not {given!r}")
    return DriverInfo(
        f"motorlike|{given.name}",
        f"{__version__}|{given.version}" if given.version else __version__,
        f"{platform}|{given.platform}" if given.platform else platform,
    )
