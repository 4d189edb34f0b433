"""`MotorCursor`, `MotorCommandCursor`, and cursors that have not started yet.

Rule: a batch costs one operation; the documents in it cost none.
"""

from __future__ import annotations

import inspect
from asyncio import Future
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pymongo.errors import InvalidOperation

from motorlike import driver
from motorlike.declare import (
    Async,
    Chain,
    Declaration,
    Property,
    Wrapper,
    named_after,
    unwrap_all,
    wrap,
)

if TYPE_CHECKING:
    from motorlike.wrappers.collection import MotorCollection

__all__ = [
    "Latent",
    "MotorCommandCursor",
    "MotorCursor",
    "MotorLatentCommandCursor",
    "MotorRawBatchCommandCursor",
    "MotorRawBatchCursor",
]

_cursor = driver.load("pymongo.synchronous.cursor")
_command_cursor = driver.load("pymongo.synchronous.command_cursor")

_TAILABLE = 2

# Not PyMongo's own, which has a bound: raw batches are bytes.
_Document = TypeVar("_Document")


class _BaseCursor(Wrapper, Generic[_Document]):
    """What all cursors can do."""

    # A cursor of a database's or a client's command holds that instead.
    collection: Any
    started: bool
    closed: bool

    # A query ends with an empty batch; a command's cursor with its id.
    _goes_on_after_empty_batch = False

    def __init__(self, delegate: Any, collection: Any) -> None:
        self.delegate = delegate
        self.collection = collection
        self._binding = collection._binding
        self.started = False
        self.closed = False

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> Self:
        return cls(delegate, parent)

    def _root(self) -> Wrapper:
        root: Wrapper = self.collection._root()
        return root

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    # -- one batch at a time ----------------------------------------------

    def _fetch(self) -> Future[int]:
        """Start getting the next batch; return a Future of its size."""
        if not self.alive:
            raise InvalidOperation("the cursor is exhausted or closed: there is no next batch")
        self.started = True
        return self._binding.spawn(self._refresh, (), {})

    def _refresh(self) -> int:
        size: int = self.delegate._refresh()
        return size

    def _list(self, length: int | None) -> list[_Document]:
        documents: list[_Document] = self.delegate.to_list(length) if length != 0 else []
        return documents

    @property
    def alive(self) -> bool:
        """Whether the cursor may have more documents."""
        return bool(self.delegate.alive)

    async def next(self) -> _Document:
        """Return the next document.

        Raises:
            StopAsyncIteration: There is none.
        """
        while not self.delegate._data:
            if not self.alive or not (await self._fetch() or self._goes_on_after_empty_batch):
                raise StopAsyncIteration
        document: _Document = self.delegate._data.popleft()
        return document

    __anext__ = next

    def __aiter__(self) -> Self:
        return self

    async def fetch(self) -> list[_Document]:
        """Return the documents of the next batch, an empty list at the end."""
        if not self.delegate._data and self.alive:
            await self._fetch()
        documents = list(self.delegate._data)
        self.delegate._data.clear()
        return documents

    def to_list(self, length: int | None = None) -> Future[list[_Document]]:
        """Return a Future of a list of the next documents.

        Args:
            length: At most so many; ``None`` for all that are left.

        Raises:
            InvalidOperation: The cursor is tailable, and has no end.
        """
        if length is not None and not isinstance(length, int):
            raise TypeError(f"length must be an int or None, not {length!r}")
        if length is not None and length < 0:
            raise ValueError(f"length must be non-negative, not {length}")
        if getattr(self.delegate, "_query_flags", 0) & _TAILABLE:
            raise InvalidOperation(
                "a tailable cursor has no end to list it to: iterate it with 'async for'"
            )
        self.started = True
        return self._binding.spawn(self._list, (length,), {})

    # -- closing ----------------------------------------------------------

    async def close(self) -> None:
        """Close the cursor, here and on the server."""
        if not self.closed:
            self.closed = True
            await self._binding.spawn(self.delegate.close, (), {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


class MotorCursor(_BaseCursor[_Document], wraps=_cursor.Cursor):
    """The documents that a query finds: `pymongo.cursor.Cursor`, for ``async for``."""

    collection: MotorCollection[Any]

    # Or ``for`` would ask for cursor[0], cursor[1], and so on, without end.
    __iter__: None = None

    add_option = Chain()
    address = Property()
    allow_disk_use = Chain()
    batch_size = Chain()
    collation = Chain()
    comment = Chain()
    cursor_id = Property()
    distinct = Async()
    explain = Async()
    hint = Chain()
    limit = Chain()
    max = Chain()
    max_await_time_ms = Chain()
    max_scan = Chain()
    max_time_ms = Chain()
    min = Chain()
    remove_option = Chain()
    retrieved = Property()
    session = Property()
    skip = Chain()
    sort = Chain()
    where = Chain()

    def rewind(self) -> Self:
        """Let the query run again from its start, and return the cursor."""
        # Closing talks to the server; what is left there is killed later.
        self.delegate._die_no_lock()
        self.delegate.rewind()
        self.started = self.closed = False
        return self

    def clone(self) -> Self:
        """Return a cursor of the same query that has not started."""
        return type(self)(self.delegate.clone(), self.collection)

    def __getitem__(self, index: slice | int) -> Self:
        """Return the cursor limited to a slice; ``cursor[5]`` is ``cursor[5:6]``."""
        if isinstance(index, int):
            if index < 0:
                raise IndexError(f"a cursor has no negative index such as {index}")
            self.delegate.skip(index + self.delegate._skip).limit(-1)
        else:
            self.delegate[index]
        return self

    def __copy__(self) -> Self:
        return type(self)(self.delegate.__copy__(), self.collection)

    def __deepcopy__(self, memo: Any) -> Self:
        return type(self)(self.delegate.__deepcopy__(memo), self.collection)


class MotorRawBatchCursor(MotorCursor[bytes], wraps=_cursor.RawBatchCursor):
    """Batches of undecoded BSON that a query finds."""


class MotorCommandCursor(_BaseCursor[_Document], wraps=_command_cursor.CommandCursor):
    """The documents that a command returns: `pymongo.command_cursor.CommandCursor`."""

    _goes_on_after_empty_batch = True

    address = Property()
    batch_size = Chain()
    cursor_id = Property()
    session = Property()

    async def try_next(self) -> _Document | None:
        """Return the next document, or ``None`` if there is none now."""
        return await self._try_next()

    def _try_next(self) -> Future[_Document | None]:
        return self._binding.spawn(self.delegate.try_next, (), {})


class MotorRawBatchCommandCursor(
    MotorCommandCursor[bytes], wraps=_command_cursor.RawBatchCommandCursor
):
    """Batches of undecoded BSON that a command returns."""


class _NotStarted:
    """The place of a command's cursor until the command is sent."""

    alive = True
    address = cursor_id = session = None

    def __init__(
        self, command: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.command = command
        self.args = args
        self.kwargs = kwargs
        self._data: deque[Any] = deque()
        self._batch_size: int | None = None

    def batch_size(self, batch_size: int) -> None:
        """Set how many documents a batch has, from the first one on."""
        if not isinstance(batch_size, int):
            raise TypeError(f"batch_size must be an int, not {batch_size!r}")
        if batch_size < 0:
            raise ValueError(f"batch_size must be >= 0, not {batch_size}")
        self._batch_size = batch_size

    def close(self) -> None:
        """Never send the command."""
        self.alive = False

    def start(self) -> Any:
        """Send the command; return PyMongo's cursor. In a greenlet."""
        if self._batch_size is not None and _takes_options(self.command):
            self.kwargs["batchSize"] = self._batch_size
        cursor = self.command(*self.args, **self.kwargs)
        if self._batch_size is not None:
            cursor.batch_size(self._batch_size)
        return cursor


def _takes_options(command: Callable[..., Any]) -> bool:
    parameters = inspect.signature(command).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


class MotorLatentCommandCursor(MotorCommandCursor[_Document], wraps=_NotStarted):
    """A command's cursor; the command is sent at the first fetch.

    It may also be awaited, which sends the command at once.
    """

    def _start_now(self) -> None:
        if isinstance(self.delegate, _NotStarted) and self.delegate.alive:
            self.delegate = self.delegate.start()

    def _refresh(self) -> int:
        self._start_now()
        return len(self.delegate._data) or super()._refresh()

    def _list(self, length: int | None) -> list[_Document]:
        self._start_now()
        return super()._list(length)

    def _start(self) -> Self:
        self._start_now()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        self.started = True
        return self._binding.spawn(self._start, (), {}).__await__()

    async def try_next(self) -> _Document | None:
        """Return the next document, or ``None`` if there is none now."""
        return await (await self)._try_next()


class Latent(Declaration):
    """A plain call that returns a cursor; its command is sent later."""

    kind = "latent"
    returns: ClassVar[str] = "MotorLatentCommandCursor"

    def resolve(self, name: str, original: Any) -> Any:
        attribute = self.attribute or name

        def method(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = unwrap_all(args, kwargs)
            return wrap(_NotStarted(getattr(self.delegate, attribute), args, kwargs), self)

        return named_after(original, method, name, self.returns)
