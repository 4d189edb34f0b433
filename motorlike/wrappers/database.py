"""`MotorDatabase`.

Rule: one line per method; what PyMongo documents is not documented again.
"""

from __future__ import annotations

from typing import Any

from motorlike import driver
from motorlike.declare import Async, Call, Property, Wrapper
from motorlike.wrappers.collection import MotorCollection
from motorlike.wrappers.cursor import Latent

__all__ = ["MotorDatabase"]

Database = driver.load("pymongo.synchronous.database").Database


class MotorDatabase(Wrapper, wraps=Database):
    """A MongoDB database: `pymongo.database.Database`, to be awaited."""

    aggregate = Latent()
    codec_options = Property()
    command = Async()
    create_collection = Async(wraps=True)
    cursor_command = Async(wraps=True)
    dereference = Async()
    drop_collection = Async()
    get_collection = Call()
    list_collection_names = Async()
    list_collections = Async(wraps=True)
    name = Property()
    read_concern = Property()
    read_preference = Property()
    validate_collection = Async()
    with_options = Call()
    write_concern = Property()

    def __init__(self, client: Any, name: str, *, _delegate: Any = None, **options: Any) -> None:
        """Make the database *name* of *client*, with PyMongo's options for it."""
        self.client = client
        self._binding = client._binding
        self.delegate = _delegate
        if _delegate is None:
            self.delegate = Database(client.delegate, name, **options)

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> MotorDatabase:
        client = parent.client if isinstance(parent, MotorDatabase) else parent
        return cls(client, delegate.name, _delegate=delegate)

    def __getattr__(self, name: str) -> MotorCollection:
        if name.startswith("_"):
            raise AttributeError(
                f"MotorDatabase has no attribute {name!r}. To access the {name} collection, "
                f"use database[{name!r}]."
            )
        return self[name]

    def __getitem__(self, name: str) -> MotorCollection:
        return self.__wrappers__[MotorCollection.__delegate_class__]._wrap(  # type: ignore[return-value]  # the registry holds its wrapper
            self.delegate[name], self
        )

    def __bool__(self) -> bool:
        raise NotImplementedError(
            "a MotorDatabase has no truth value: compare with None instead, "
            "as in 'database is not None'"
        )
