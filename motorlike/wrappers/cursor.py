"""`MotorCursor` and `MotorCommandCursor`.

Rule: a batch costs one operation; the documents in it cost none.
"""

from __future__ import annotations

import warnings
from asyncio import CancelledError, Future
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pymongo.errors import InvalidOperation

from motorlike import driver
from motorlike.ahead import ReadAhead
from motorlike.batches import TAILABLE
from motorlike.declare import Async, Chain, Property, Wrapper
from motorlike.generators import start_unseen
from motorlike.green.hub import wait
from motorlike.green.worker import is_job_over

if TYPE_CHECKING:
    from motorlike.wrappers.collection import MotorCollection

__all__ = [
    "MotorCommandCursor",
    "MotorCursor",
    "MotorRawBatchCommandCursor",
    "MotorRawBatchCursor",
]

_cursor = driver.load("pymongo.synchronous.cursor")
_command_cursor = driver.load("pymongo.synchronous.command_cursor")

# Not PyMongo's own, which has a bound: raw batches are bytes.
_Document = TypeVar("_Document")


class _BaseCursor(ReadAhead[_Document]):
    """What all cursors can do."""

    # A cursor of a database's or a client's command holds that instead.
    collection: Any

    def __init__(self, delegate: Any, collection: Any) -> None:
        super().__init__(delegate)
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

    def _list(self, length: int | None) -> list[_Document]:
        if length is not None and length <= len(self._held):
            return [self._held.popleft() for _ in range(length)]
        with self._alone() as delegate:
            self._rejoin()
            documents: list[_Document] = self._ask(delegate.to_list, length)
        return documents

    @property
    def alive(self) -> bool:
        """Whether the cursor may have more documents."""
        return self._has_more

    async def next(self) -> _Document:
        """Return the next document.

        Raises:
            StopAsyncIteration: There is none.
            InvalidOperation: An earlier fetch was cancelled.
        """
        while not (ready := self._held or self.delegate._data):
            if not await self._get_more():
                raise StopAsyncIteration
        document: _Document = ready.popleft()
        return document

    __anext__ = next

    def __aiter__(self) -> AsyncIterator[_Document]:
        if type(self).__anext__ is not _BaseCursor.__anext__:  # type: ignore[misc]  # it is a method
            # A subclass of somebody's, umongo's for one, makes documents its own way.
            return self
        return start_unseen(self._documents())

    async def fetch(self) -> list[_Document]:
        """Return the documents of the next batch, an empty list at the end."""
        while not self._ready and await self._get_more():
            pass
        documents = list(self._ready)
        self._ready.clear()
        return documents

    def to_list(self, length: int | None = None) -> Future[list[_Document]]:
        """Return a Future of a list of the next documents.

        Args:
            length: At most so many; ``None`` for all that are left.

        Raises:
            InvalidOperation: The cursor is tailable, and has no end; or an
                earlier fetch was cancelled.
        """
        if length is not None and not isinstance(length, int):
            raise TypeError(f"length must be an int or None, not {length!r}")
        if length is not None and length < 0:
            raise ValueError(f"length must be non-negative, not {length}")
        if getattr(self.delegate, "_query_flags", 0) & TAILABLE:
            raise InvalidOperation(
                "a tailable cursor has no end to list it to: iterate it with 'async for'"
            )
        self._check_whole()
        self.started = True
        return self._spawn(self._list, length)

    # -- Motor's older ways ------------------------------------------------

    def each(self, callback: Callable[[_Document | None, BaseException | None], Any]) -> None:
        """Call *callback* with each document, and at last with ``(None, None)``.

        Args:
            callback: Takes ``(document, error)``. Where it returns ``False``,
                no more are fetched; the cursor stays open.
        """
        if not callable(callback):
            raise TypeError(f"callback must be a callable, not {callback!r}")
        _Each(self, callback).step()

    @property
    def fetch_next(self) -> Future[Any]:
        """Deprecated: a Future that tells whether `next_object` has a document."""
        _warn_deprecated("fetch_next")
        self._check_whole()
        return self._binding.spawn(self._has_next, (), {})

    def _has_next(self) -> bool:
        # Not `_get_more` in a task of its own, which would have no part in the
        # caller's socket request.
        while not self._ready:
            self._check_whole()
            if not self.alive:
                return False
            batch = self._fetch()
            try:
                # As in Motor, an empty batch is the answer.
                if not wait(batch):
                    return False
            except CancelledError:
                if is_job_over() or not self._may_look_again(batch):
                    raise
            except Exception:
                self._forget(batch)
                raise
            finally:
                del batch
        return True

    def next_object(self) -> _Document | None:
        """Deprecated: return a document of the batch that `fetch_next` got."""
        _warn_deprecated("next_object")
        ready = self._ready
        return ready.popleft() if ready else None

    # -- closing ----------------------------------------------------------

    async def close(self) -> None:
        """Close the cursor, here and on the server."""
        if not self.closed:
            self.closed = True
            await self._binding.spawn(self._close, (), {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


class _Each:
    """One run of `each`: documents go to a callback."""

    def __init__(self, cursor: _BaseCursor[Any], callback: Callable[..., Any]) -> None:
        self._cursor = cursor
        self._callback = callback

    def step(self, batch: Future[int] | None = None) -> None:
        """Hand on what has been fetched, then fetch more."""
        cursor = self._cursor
        try:
            # It may have been cancelled by another who waited for it.
            if batch is not None and not cursor._may_look_again(batch):
                cursor._forget(batch)
                batch.result()
        except (Exception, CancelledError) as error:  # noqa: BLE001 - it is handed on
            self._callback(None, error)
            return
        finally:
            # Its error would hold this frame, and the frame it.
            del batch
        while ready := self._ready():
            document = ready.popleft()
            if self._callback(document, None) is False or cursor.closed:
                return
        if ready is None:
            return
        if cursor.alive and cursor.delegate.cursor_id != 0:
            cursor._fetch().add_done_callback(self.step)
        else:
            cursor._binding.spawn(bool, (), {}).add_done_callback(self._end)

    def _ready(self) -> deque[Any] | None:
        """What is there; ``None`` if that cannot be decoded, after the callback was told."""
        try:
            return self._cursor._ready
        except Exception as error:  # noqa: BLE001 - it is handed on
            self._callback(None, error)
            return None

    def _end(self, done: Future[Any]) -> None:
        self._callback(None, None)


def _warn_deprecated(name: str) -> None:
    warnings.warn(
        f"{name} is deprecated, as in Motor: iterate the cursor with 'async for'",
        DeprecationWarning,
        stacklevel=3,
    )


class MotorCursor(_BaseCursor[_Document], wraps=_cursor.Cursor):
    """The documents that a query finds: `pymongo.cursor.Cursor`, for ``async for``."""

    collection: MotorCollection[Any]

    # Or ``for`` would ask for cursor[0], cursor[1], and so on, without end.
    __iter__: None = None

    @property
    def _unasked(self) -> Any:
        delegate = self.delegate
        is_asked = delegate.cursor_id is not None or delegate.session or delegate._exhaust
        return None if is_asked else delegate.collection

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
        self._detach()
        # Closing talks to the server; what is left there is killed later.
        self.delegate._die_no_lock()
        self.delegate.rewind()
        self.started = self.closed = self._is_fetching = False
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
        return self._binding.spawn(self._take_or_ask, (), {})

    def _take_or_ask(self) -> _Document | None:
        if self._held:
            return self._held.popleft()
        with self._alone() as delegate:
            self._rejoin()
            document: _Document | None = self._ask(delegate.try_next)
        return document


class MotorRawBatchCommandCursor(
    MotorCommandCursor[bytes], wraps=_command_cursor.RawBatchCommandCursor
):
    """Batches of undecoded BSON that a command returns."""
