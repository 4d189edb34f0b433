"""A client of each library, behind one small asynchronous interface.

Tasks get one from `Bench.connect`. What all libraries call by the same names
(`find_one`, `insert_one`, `insert_many`, `update_one`, `replace_one`,
`delete_many`, …) is called on what `collection` returns, which is the
library's own collection wherever that is asynchronous: nothing of the suite's
then stands between. Where the libraries differ, `Client` has a method.

Rule: each library is used as its own documentation tells its users to, with
its own default options.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

__all__ = [
    "AsynchronousClient",
    "Client",
    "MongojetClient",
    "MotorClient",
    "MotorlikeClient",
    "SynchronousClient",
    "ThreadedClient",
]

# Any, here and below: five libraries' objects, of which one has no types that
# agree with the others'; and documents.
Command = Callable[[Mapping[str, Any]], Awaitable[Any]]
Document = Mapping[str, Any]


class Client(ABC):
    """An open client.

    Attributes:
        native: The library's own client.
    """

    def __init__(self, native: Any) -> None:
        self.native = native

    @classmethod
    @abstractmethod
    async def open(cls, uri: str) -> Client:
        """Make a client, as a user would on the event loop."""

    def database(self, name: str) -> Any:
        """The library's own database object."""
        return self.native[name]

    def collection(self, database: str, name: str) -> Any:
        """An object whose methods return awaitables."""
        return self.native[database][name]

    def command(self, database: str) -> Command:
        """A function that runs a command on *database*."""
        run: Command = self.native[database].command
        return run

    @abstractmethod
    async def read_list(self, collection: Any, query: Document) -> list[Any]:
        """Find, all documents at once."""

    @abstractmethod
    async def read_each(self, collection: Any, query: Document) -> int:
        """Find, one document after the other, and count them."""

    @abstractmethod
    async def aggregate(self, collection: Any, pipeline: Sequence[Document]) -> list[Any]:
        """Aggregate, all documents at once."""

    def adapt(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Make a function of the library asynchronous, if it is not so already."""
        return function

    @abstractmethod
    def bucket(self, database: str, name: str = "fs") -> Any:
        """The library's own GridFS bucket; its methods go through `adapt`."""

    @abstractmethod
    async def upload(self, database: str, name: str, data: bytes) -> Any:
        """Put *data* into GridFS, and return the id."""

    @abstractmethod
    async def download(self, database: str, file_id: Any) -> bytes:
        """Get a file from GridFS into memory."""

    async def close(self) -> None:
        """Close the client, as its library wants it."""
        self.native.close()


class _MotorLike(Client):
    """What motorlike has from Motor."""

    async def read_list(self, collection: Any, query: Document) -> list[Any]:
        found: list[Any] = await collection.find(query).to_list(None)
        return found

    async def read_each(self, collection: Any, query: Document) -> int:
        count = 0
        async for _ in collection.find(query):
            count += 1
        return count

    async def aggregate(self, collection: Any, pipeline: Sequence[Document]) -> list[Any]:
        found: list[Any] = await collection.aggregate(pipeline).to_list(None)
        return found

    async def upload(self, database: str, name: str, data: bytes) -> Any:
        return await self.bucket(database).upload_from_stream(name, data)

    async def download(self, database: str, file_id: Any) -> bytes:
        stream = await self.bucket(database).open_download_stream(file_id)
        data: bytes = await stream.read()
        return data


class MotorlikeClient(_MotorLike):
    """motorlike itself."""

    @classmethod
    async def open(cls, uri: str) -> Client:
        """Make a client."""
        import motorlike

        return cls(motorlike.MotorClient(uri))

    def bucket(self, database: str, name: str = "fs") -> Any:
        """The library's own GridFS bucket."""
        import motorlike

        return motorlike.MotorGridFSBucket(self.native[database], name)

    async def close(self) -> None:
        """Close the client, and wait until its monitors have ended."""
        await self.native.close()


class MotorClient(_MotorLike):
    """Motor on asyncio."""

    @classmethod
    async def open(cls, uri: str) -> Client:
        """Make a client."""
        from motor.motor_asyncio import AsyncIOMotorClient

        return cls(AsyncIOMotorClient(uri))

    def bucket(self, database: str, name: str = "fs") -> Any:
        """The library's own GridFS bucket."""
        from motor.motor_asyncio import AsyncIOMotorGridFSBucket

        return AsyncIOMotorGridFSBucket(self.native[database], name)


class AsynchronousClient(Client):
    """PyMongo's own `AsyncMongoClient`."""

    @classmethod
    async def open(cls, uri: str) -> Client:
        """Make a client."""
        from pymongo import AsyncMongoClient

        return cls(AsyncMongoClient(uri))

    async def read_list(self, collection: Any, query: Document) -> list[Any]:
        """Find, all documents at once."""
        found: list[Any] = await collection.find(query).to_list()
        return found

    async def read_each(self, collection: Any, query: Document) -> int:
        """Find, one document after the other, and count them."""
        count = 0
        async for _ in collection.find(query):
            count += 1
        return count

    async def aggregate(self, collection: Any, pipeline: Sequence[Document]) -> list[Any]:
        """Aggregate, all documents at once."""
        found: list[Any] = await (await collection.aggregate(pipeline)).to_list()
        return found

    def bucket(self, database: str, name: str = "fs") -> Any:
        """The library's own GridFS bucket."""
        from gridfs import AsyncGridFSBucket

        return AsyncGridFSBucket(self.native[database], name)

    async def upload(self, database: str, name: str, data: bytes) -> Any:
        """Put *data* into GridFS, and return the id."""
        return await self.bucket(database).upload_from_stream(name, data)

    async def download(self, database: str, file_id: Any) -> bytes:
        """Get a file from GridFS into memory."""
        stream = await self.bucket(database).open_download_stream(file_id)
        data: bytes = await stream.read()
        return data

    async def close(self) -> None:
        """Close the client."""
        await self.native.close()


class MongojetClient(Client):
    """mongojet, whose driver is written in Rust."""

    @classmethod
    async def open(cls, uri: str) -> Client:
        """Make a client."""
        from mongojet import create_client

        return cls(await create_client(uri))

    def command(self, database: str) -> Command:
        """A function that runs a command on *database*."""
        run: Command = self.native[database].run_command
        return run

    async def read_list(self, collection: Any, query: Document) -> list[Any]:
        """Find, all documents at once."""
        found: list[Any] = await (await collection.find(query)).to_list()
        return found

    async def read_each(self, collection: Any, query: Document) -> int:
        """Find, one document after the other, and count them."""
        count = 0
        async for _ in await collection.find(query):
            count += 1
        return count

    async def aggregate(self, collection: Any, pipeline: Sequence[Document]) -> list[Any]:
        """Aggregate, all documents at once."""
        found: list[Any] = await (await collection.aggregate(pipeline)).to_list()
        return found

    def bucket(self, database: str, name: str = "fs") -> Any:
        """The library's own GridFS bucket, which has no streams."""
        return self.native[database].gridfs_bucket(bucket_name=name)

    async def upload(self, database: str, name: str, data: bytes) -> Any:
        """Put *data* into GridFS, and return the id."""
        result = await self.bucket(database).put(data, filename=name)
        return result["file_id"]

    async def download(self, database: str, file_id: Any) -> bytes:
        """Get a file from GridFS into memory."""
        data: bytes = await self.bucket(database).get_by_id(file_id)
        return data

    async def close(self) -> None:
        """Close the client."""
        await self.native.close()


class _Adapted:
    """A synchronous object whose methods have become asynchronous."""

    def __init__(self, native: Any, adapt: Callable[[Callable[..., Any]], Any]) -> None:
        self.native = native
        self._adapt = adapt

    def __getattr__(self, name: str) -> Any:
        # Once for each method: the next time it is found as an attribute.
        method = self._adapt(getattr(self.native, name))
        setattr(self, name, method)
        return method


class SynchronousClient(Client):
    """PyMongo's `MongoClient`, which blocks the loop: one thing at a time."""

    @classmethod
    async def open(cls, uri: str) -> Client:
        """Make a client."""
        from pymongo import MongoClient as PyMongoClient

        return cls(PyMongoClient(uri))

    def adapt(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Make *function* asynchronous, in the way of this peer."""

        async def adapted(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return adapted

    def collection(self, database: str, name: str) -> Any:
        """An object whose methods return awaitables; `native` is PyMongo's own."""
        return _Adapted(self.native[database][name], self.adapt)

    def command(self, database: str) -> Command:
        """A function that runs a command on *database*."""
        return self.adapt(self.native[database].command)

    async def read_list(self, collection: Any, query: Document) -> list[Any]:
        """Find, all documents at once."""

        found: list[Any] = await self.adapt(lambda: collection.native.find(query).to_list())()
        return found

    async def read_each(self, collection: Any, query: Document) -> int:
        """Find, one document after the other, and count them."""

        def read() -> int:
            count = 0
            for _ in collection.native.find(query):
                count += 1
            return count

        found: int = await self.adapt(read)()
        return found

    async def aggregate(self, collection: Any, pipeline: Sequence[Document]) -> list[Any]:
        """Aggregate, all documents at once."""
        native = collection.native
        found: list[Any] = await self.adapt(lambda: native.aggregate(pipeline).to_list())()
        return found

    def bucket(self, database: str, name: str = "fs") -> Any:
        """The library's own GridFS bucket."""
        from gridfs import GridFSBucket

        return GridFSBucket(self.native[database], name)

    async def upload(self, database: str, name: str, data: bytes) -> Any:
        """Put *data* into GridFS, and return the id."""
        return await self.adapt(self.bucket(database).upload_from_stream)(name, data)

    async def download(self, database: str, file_id: Any) -> bytes:
        """Get a file from GridFS into memory."""
        bucket = self.bucket(database)
        data: bytes = await self.adapt(lambda: bucket.open_download_stream(file_id).read())()
        return data


class ThreadedClient(SynchronousClient):
    """PyMongo's `MongoClient` in the loop's default thread pool."""

    def adapt(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Let *function* run in a thread, as ``asyncio.to_thread`` does."""

        async def adapted(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(function, *args, **kwargs)

        return adapted

    async def close(self) -> None:
        """Close the client, which waits for its monitors' threads."""
        await self.adapt(self.native.close)()
