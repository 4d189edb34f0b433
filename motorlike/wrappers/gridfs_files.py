"""The files of a GridFS bucket: `MotorGridOut` and `MotorGridIn`.

Rule: a plain call does no I/O. What would need the file's document raises
before that was fetched.
"""

from __future__ import annotations

import os
import warnings
from asyncio import Future
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from pymongo.errors import InvalidOperation

from motorlike import driver
from motorlike.declare import Async, Call, Property, Wrapper, unwrap_all
from motorlike.heap import keep_large_blocks
from motorlike.wrappers.collection import MotorCollection

if TYPE_CHECKING:
    from motorlike.wrappers.client_session import MotorClientSession

__all__ = ["MotorGridIn", "MotorGridOut"]

_grid_file = driver.load("gridfs.synchronous.grid_file")
GridIn = _grid_file.GridIn
GridOut = _grid_file.GridOut

# How much a download fetches at a time. PyMongo would take up to 16 MB.
_BATCH_BYTES = 1 << 20
_MAX_BATCH_CHUNKS = 1000


class Field(Property):
    """What a file's document says, once it was fetched.

    Args:
        field: Its name in the document.
        default: What is said where the document does not.
    """

    def __init__(self, field: str, default: Any = None) -> None:
        super().__init__()
        self.field = field
        self.default = default

    def resolve(self, name: str, original: Any) -> Any:
        """Return the property."""
        doc = (original.__doc__ or "").partition("\n\n")[0]
        warning = f"GridFS's {name!r} is {doc}" if doc.startswith("DEPRECATED") else ""

        def get(self: MotorGridOut) -> Any:
            if warning:
                warnings.warn(warning, DeprecationWarning, stacklevel=2)
            return self._document(name).get(field, default)

        field, default = self.field, self.default
        return property(get, doc=doc)


class MotorGridOut(Wrapper, wraps=GridOut):
    """A file that is read from GridFS: `gridfs.GridOut`, to be awaited.

    Use the bucket's `open_download_stream`, rather than this class. A file
    made by hand is opened by `open`, or by the first read; the attributes
    that come from its document raise `InvalidOperation` before that.

    ``async for`` yields it chunk by chunk. A read that failed or was cancelled
    leaves the position where it was, and can be repeated.
    """

    _id = Field("_id")
    aliases = Field("aliases")
    chunk_size = Field("chunkSize")
    content_type = Field("contentType")
    filename = Field("filename")
    length = Field("length", 0)
    metadata = Field("metadata")
    name = Field("filename")
    readable = Call()
    seekable = Call()
    tell = Call()
    upload_date = Field("uploadDate")
    write = Call()

    def __init__(
        self,
        root_collection: MotorCollection[Any],
        file_id: Any = None,
        file_document: Any = None,
        delegate: Any = None,
        session: MotorClientSession | None = None,
    ) -> None:
        """Make a file of *root_collection*, such as ``database.fs``.

        Args:
            file_id: The ``_id`` of the file.
            file_document: The file's document, where it is known.
            delegate: A green `gridfs.GridOut`, in place of all that.
            session: The session that it is read in.
        """
        check_parent(self, MotorCollection, root_collection)
        keep_large_blocks()
        self._collection = root_collection
        self._binding = root_collection._binding
        if delegate is None:
            args, _ = unwrap_all((root_collection, file_id, file_document, session), {})
            delegate = GridOut(*args)
        if not isinstance(delegate._chunks, _Chunks):
            delegate._chunks = _Chunks(delegate)
        self.delegate = delegate

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> Self:
        return cls(parent.collection, delegate=delegate)

    def _root(self) -> Wrapper:
        return self._collection._root()

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    # -- the file's document ----------------------------------------------

    def open(self) -> Future[Self]:
        """Fetch the file's document, unless it is known; return a Future of the file.

        Raises:
            NoFile: There is no such file.
        """
        return self._binding.spawn(self._open, (), {})

    def _open(self) -> Self:
        self.delegate.open()
        return self

    def _document(self, name: str) -> Any:
        if not self.delegate._file:
            raise InvalidOperation(
                f"the file's {name!r} is not known yet: call and await its open() first"
            )
        return self.delegate._file

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name not in ("delegate", "_binding"):
            document = self._document(name)
            if name in document:
                return document[name]
        raise AttributeError(f"{type(self).__name__} has no attribute or field {name!r}")

    # -- reading ----------------------------------------------------------

    def read(self, size: int = -1) -> Future[bytes]:
        """Read at most *size* bytes, or all that are left."""
        return self._binding.spawn(self._read, (self.delegate.read, size), {})

    def readchunk(self) -> Future[bytes]:
        """Read what is left of a chunk; nothing at the end of the file."""
        return self._binding.spawn(self._read, (self.delegate.readchunk,), {})

    def readline(self, size: int = -1) -> Future[bytes]:
        """Read one line, or at most *size* bytes of it."""
        # Not GridOut's own, which it inherits: that reads byte by byte.
        args = (self.delegate._read_size_or_line, size, True)
        return self._binding.spawn(self._read, args, {})

    def _read(self, method: Callable[..., bytes], *args: Any) -> bytes:
        position = self.delegate._position
        try:
            return method(*args)
        except BaseException:
            self._move(position)
            raise

    def seek(self, pos: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, as a file's `seek` does; return the new one."""
        if whence == os.SEEK_END:
            self._document("length")
        # GridOut's own closes its cursor, which talks to the server.
        before = self.delegate._position
        iterator, self.delegate._chunk_iter = self.delegate._chunk_iter, None
        try:
            after: int = self.delegate.seek(pos, whence)
        finally:
            self.delegate._chunk_iter = iterator
        if after != before:
            self._leave_cursor()
        return after

    def _move(self, position: int) -> None:
        self._leave_cursor()
        self.delegate._position = position
        self.delegate._buffer = b""
        self.delegate._buffer_pos = 0

    def _leave_cursor(self) -> None:
        iterator, self.delegate._chunk_iter = self.delegate._chunk_iter, None
        if iterator is not None and iterator._cursor is not None:
            # What is left of it on the server is killed later.
            iterator._cursor._die_no_lock()

    def close(self) -> None:
        """Let go of the file. It does no I/O."""
        self._leave_cursor()
        self.delegate.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if chunk := await self.readchunk():
            return chunk
        raise StopAsyncIteration

    def iter_range(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes]:
        """Yield the bytes from *start* up to *stop*, or to the end, chunk by chunk."""
        return self._iter_range(start, stop)

    async def _iter_range(self, start: int, stop: int | None) -> AsyncGenerator[bytes]:
        if not self.delegate._file:
            await self.open()
        left = (self.length if stop is None else min(stop, self.length)) - start
        self.seek(start)
        while left > 0:
            chunk = await self.readchunk()
            if not chunk:
                return
            yield chunk[:left]
            left -= len(chunk)

    async def stream_to_handler(self, request_handler: Any) -> None:
        """Send what is left of the file as the body of a Tornado response.

        Each chunk is fetched when the one before it has been sent: a slow
        reader costs little memory. Set all headers before.

        Raises:
            tornado.iostream.StreamClosedError: The reader went away.
        """
        async for chunk in self:
            request_handler.write(chunk)
            await request_handler.flush()


class _Chunks:
    """The chunks' collection as a GridOut sees it: they come a few at a time."""

    def __init__(self, grid_out: Any) -> None:
        self._collection = grid_out._chunks
        self._grid_out = grid_out

    def find(self, *args: Any, **kwargs: Any) -> Any:
        chunks = _BATCH_BYTES // max(int(self._grid_out.chunk_size), 1)
        batch_size = min(max(chunks, 1), _MAX_BATCH_CHUNKS)
        return self._collection.find(*args, batch_size=batch_size, **kwargs)


class MotorGridIn(Wrapper, wraps=GridIn):
    """A file that is written to GridFS: `gridfs.GridIn`, to be awaited.

    Use the bucket's `open_upload_stream`, rather than this class. ``async
    with`` closes the file at the end of its block, unless that raises.
    """

    _id = Property()
    abort = Async()
    chunk_size = Property()
    close = Async()
    closed = Property()
    content_type = Property()
    filename = Property()
    length = Property()
    name = Property()
    read = Call()
    readable = Call()
    seekable = Call()
    set = Async("__setattr__")
    upload_date = Property()
    writeable = Call()

    def __init__(
        self,
        root_collection: MotorCollection[Any],
        delegate: Any = None,
        session: MotorClientSession | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a file in *root_collection*, with PyMongo's options for it.

        Args:
            delegate: A green `gridfs.GridIn`, in place of all others.
            session: The session that it is written in.
        """
        check_parent(self, MotorCollection, root_collection)
        keep_large_blocks()
        self._collection = root_collection
        self._binding = root_collection._binding
        if delegate is None:
            args, _ = unwrap_all((root_collection, session), {})
            delegate = GridIn(*args, **kwargs)
        self.delegate = delegate

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> Self:
        return cls(parent.collection, delegate=delegate)

    def _root(self) -> Wrapper:
        return self._collection._root()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name not in ("delegate", "_binding"):
            if name in self.delegate._file:
                return self.delegate._file[name]
            if name in ("length", "upload_date"):
                raise AttributeError(f"{name!r} is known when the file is closed")
        raise AttributeError(f"{type(self).__name__} has no attribute or field {name!r}")

    def write(self, data: Any) -> Future[None]:
        """Write bytes, a string if the file has an encoding, or what a file object has.

        A file object is read to its end: one whose `read` is a coroutine
        function on the event loop, a `MotorGridOut` too, any other in the
        loop's executor.
        """
        return self._binding.spawn(self.delegate.write, (_source(data),), {})

    def writelines(self, sequence: Iterable[Any]) -> Future[None]:
        """Write all that is in *sequence*, with nothing in between."""
        ((lines,), _) = unwrap_all((sequence,), {})
        return self._binding.spawn(self.delegate.writelines, (map(_source, lines),), {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._binding.spawn(self.delegate.__exit__, exc_info, {})


def _source(data: Any) -> Any:
    ((data,), _) = unwrap_all((data,), {})
    return driver.source(data)


def check_parent(made: Wrapper, expected: type[Wrapper], parent: object) -> None:
    """Refuse to make a file or a bucket from an object of another class or family."""
    cls = made.__wrappers__[expected.__delegate_class__]
    if not isinstance(parent, cls):
        raise TypeError(f"a {type(made).__name__} is made from a {cls.__name__}, not {parent!r}")
