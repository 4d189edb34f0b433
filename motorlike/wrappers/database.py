"""`MotorDatabase`.

Rule: one line per method; what PyMongo documents is not documented again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self

from pymongo.typings import _DocumentType, _DocumentTypeArg

from motorlike import driver
from motorlike.declare import Async, Call, Property, Wrapper, reached_by_attribute, wrap
from motorlike.wrappers.change_stream import Watch
from motorlike.wrappers.collection import MotorCollection
from motorlike.wrappers.latent_cursor import Latent

if TYPE_CHECKING:
    from bson.codec_options import CodecOptions
    from pymongo.read_concern import ReadConcern
    from pymongo.read_preferences import _ServerMode
    from pymongo.write_concern import WriteConcern

    from motorlike.wrappers.client import MotorClient

__all__ = ["MotorDatabase"]

Database = driver.load("pymongo.synchronous.database").Database


class MotorDatabase(Wrapper, Generic[_DocumentType], wraps=Database):
    """A MongoDB database: `pymongo.database.Database`, to be awaited."""

    client: MotorClient[_DocumentType]

    # It has items, by name; `for` would ask for them by number.
    __iter__: None = None

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
    watch = Watch()
    with_options = Call()
    write_concern = Property()

    def __init__(
        self,
        client: MotorClient[_DocumentType],
        name: str,
        codec_options: CodecOptions[_DocumentTypeArg] | None = None,
        read_preference: _ServerMode | None = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
        _delegate: Any = None,
    ) -> None:
        """Make the database *name* of *client*, with PyMongo's options for it."""
        if not isinstance(getattr(client, "delegate", None), driver.MongoClient):
            raise TypeError(f"client must be a MotorClient, not {client!r}")
        self.client = client
        self._binding = client._binding
        self.delegate = _delegate
        if _delegate is None:
            self.delegate = Database(
                client.delegate, name, codec_options, read_preference, write_concern, read_concern
            )

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> Self:
        if isinstance(parent, cls):
            # As in Motor, `with_options` of a user's subclass is one again.
            return type(parent)(parent.client, delegate.name, _delegate=delegate)
        return cls(parent, delegate.name, _delegate=delegate)

    def _root(self) -> Wrapper:
        return self.client

    def __getattr__(self, name: str) -> MotorCollection[_DocumentType]:
        if name.startswith("_"):
            raise AttributeError(
                f"{type(self).__qualname__} has no attribute {name!r}. To access the {name} "
                f"collection, use database[{name!r}]."
            )
        return reached_by_attribute(self[name])

    def __getitem__(self, name: str) -> MotorCollection[_DocumentType]:
        return self.__wrappers__[MotorCollection.__delegate_class__]._wrap(  # type: ignore[return-value]  # the registry holds its wrapper
            self.delegate[name], self
        )

    def wrap(self, obj: Any) -> Any:
        """Return the wrapper of an object of the green driver; others stay as they are."""
        return wrap(obj, self)

    def __bool__(self) -> bool:
        raise NotImplementedError(
            "a MotorDatabase has no truth value: compare with None instead, "
            "as in 'database is not None'"
        )
