"""GridFS: `MotorGridFSBucket`, and the cursor over the files in it.

Rule: a plain call does no I/O.
"""

from __future__ import annotations

import warnings
from asyncio import Future
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from motorlike import driver
from motorlike.declare import Async, Call, Wrapper, parameters_of, unwrap_all, wrap
from motorlike.heap import keep_large_blocks
from motorlike.wrappers.collection import MotorCollection
from motorlike.wrappers.cursor import MotorCursor
from motorlike.wrappers.database import MotorDatabase
from motorlike.wrappers.gridfs_files import MotorGridOut, check_parent

if TYPE_CHECKING:
    from bson.objectid import ObjectId
    from pymongo.read_preferences import _ServerMode
    from pymongo.write_concern import WriteConcern

__all__ = ["MotorGridFSBucket", "MotorGridOutCursor"]

_grid_file = driver.load("gridfs.synchronous.grid_file")
GridFSBucket = _grid_file.GridFSBucket
GridOut = _grid_file.GridOut
GridOutCursor = _grid_file.GridOutCursor

DEFAULT_CHUNK_SIZE: int = driver.load("gridfs.grid_file_shared").DEFAULT_CHUNK_SIZE


class MotorGridOutCursor(MotorCursor[MotorGridOut], wraps=GridOutCursor):
    """The files that a bucket's `find` finds, for ``async for``."""

    # Files are made of the documents as these arrive.
    _may_pack = False

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> Self:
        return cls(delegate, parent.collection)

    def _refresh_delegate(self, delegate: Any) -> int:
        try:
            return super()._refresh_delegate(delegate)
        finally:
            self._make_files(delegate)

    def _make_files(self, delegate: Any) -> None:
        # They are taken from there by everything that a cursor can do.
        data = delegate._data
        for index, document in enumerate(data):
            data[index] = self._file(document)

    def _file(self, document: Any) -> Any:
        if isinstance(document, MotorGridOut):
            return document
        root, session = self.delegate._root_collection, self.delegate.session
        return wrap(GridOut(root, file_document=document, session=session), self)

    def _list(self, length: int | None) -> list[MotorGridOut]:
        if length is not None and length <= len(self._held):
            return [self._held.popleft() for _ in range(length)]
        with self._alone() as delegate:
            self._rejoin()
            # Not its own, which makes PyMongo's files, of documents alone.
            try:
                documents = self._ask(super(GridOutCursor, delegate).to_list, length)
            finally:
                # What it left of its last batch.
                self._make_files(delegate)
        return [self._file(document) for document in documents]


class MotorGridFSBucket(Wrapper, wraps=GridFSBucket):
    """A GridFS bucket: `gridfs.GridFSBucket`, to be awaited."""

    collection: MotorCollection[Any]

    delete = Async()
    delete_by_name = Async(optional=True)
    find = Call()
    open_download_stream = Async(wraps=True)
    open_download_stream_by_name = Async(wraps=True)
    open_upload_stream = Call()
    open_upload_stream_with_id = Call()
    rename = Async()
    rename_by_name = Async(optional=True)

    def __init__(
        self,
        database: MotorDatabase[Any],
        bucket_name: str = "fs",
        chunk_size_bytes: int = DEFAULT_CHUNK_SIZE,
        write_concern: WriteConcern | None = None,
        read_preference: _ServerMode | None = None,
        collection: str | None = None,
    ) -> None:
        """Make the bucket *bucket_name* of *database*, with PyMongo's options for it.

        Args:
            collection: Motor's old name for *bucket_name*; deprecated.

        Raises:
            ConfigurationError: The write concern is an unacknowledged one.
        """
        if collection is not None:
            message = "'collection' is deprecated: the parameter is now named 'bucket_name'"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            bucket_name = collection
        check_parent(self, MotorDatabase, database)
        keep_large_blocks()
        self._binding = database._binding
        self.delegate = GridFSBucket(
            database.delegate, bucket_name, chunk_size_bytes, write_concern, read_preference
        )
        self.collection = database.get_collection(
            bucket_name, write_concern=write_concern, read_preference=read_preference
        )

    def _root(self) -> Wrapper:
        return self.collection._root()

    def wrap(self, obj: Any) -> Any:
        """Return the wrapper of one of GridFS's objects."""
        return wrap(obj, self)

    @parameters_of(GridFSBucket.upload_from_stream)
    def upload_from_stream(self, *args: Any, **kwargs: Any) -> Future[ObjectId]:
        """Store what the file object *source*, or a string of bytes, has.

        Returns:
            A Future of the new file's ``_id``.
        """
        return self._transfer(self.delegate.upload_from_stream, "source", 1, args, kwargs)

    @parameters_of(GridFSBucket.upload_from_stream_with_id)
    def upload_from_stream_with_id(self, *args: Any, **kwargs: Any) -> Future[None]:
        """Store what the file object *source* has, in a file with this ``_id``."""
        return self._transfer(self.delegate.upload_from_stream_with_id, "source", 2, args, kwargs)

    @parameters_of(GridFSBucket.download_to_stream)
    def download_to_stream(self, *args: Any, **kwargs: Any) -> Future[None]:
        """Write the whole file to the file object *destination*."""
        return self._transfer(self.delegate.download_to_stream, "destination", 1, args, kwargs)

    @parameters_of(GridFSBucket.download_to_stream_by_name)
    def download_to_stream_by_name(self, *args: Any, **kwargs: Any) -> Future[None]:
        """Write a whole file of this name to the file object *destination*."""
        method = self.delegate.download_to_stream_by_name
        return self._transfer(method, "destination", 1, args, kwargs)

    def _transfer(
        self,
        method: Callable[..., Any],
        stream: str,
        position: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[Any]:
        """Call *method* with the file object among its arguments made green."""
        args, kwargs = unwrap_all(args, kwargs)
        adapt = driver.source if stream == "source" else driver.destination
        if len(args) > position:
            args = (*args[:position], adapt(args[position]), *args[position + 1 :])
        elif stream in kwargs:
            kwargs[stream] = adapt(kwargs[stream])
        return self._binding.spawn(method, args, kwargs)
