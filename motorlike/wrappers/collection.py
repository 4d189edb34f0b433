"""`MotorCollection`.

Rule: one line per method; what PyMongo documents is not documented again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self

from pymongo.typings import _DocumentType, _DocumentTypeArg

from motorlike import driver
from motorlike.declare import Call, InTurn, Property, Wrapper, reached_by_attribute, wrap
from motorlike.wrappers.change_stream import Watch
from motorlike.wrappers.latent_cursor import Latent

if TYPE_CHECKING:
    from bson.codec_options import CodecOptions
    from pymongo.read_concern import ReadConcern
    from pymongo.read_preferences import _ServerMode
    from pymongo.write_concern import WriteConcern

    from motorlike.wrappers.database import MotorDatabase

__all__ = ["MotorCollection"]

Collection = driver.load("pymongo.synchronous.collection").Collection
_Database = driver.load("pymongo.synchronous.database").Database


class MotorCollection(Wrapper, Generic[_DocumentType], wraps=Collection):
    """A MongoDB collection: `pymongo.collection.Collection`, to be awaited."""

    database: MotorDatabase[_DocumentType]

    # Or ``for`` would ask for collection[0], collection[1], and so on, without end.
    __iter__: None = None

    aggregate = Latent(in_turn=True)
    aggregate_raw_batches = Latent(in_turn=True)
    bulk_write = InTurn()
    codec_options = Property()
    count_documents = InTurn()
    create_index = InTurn()
    create_indexes = InTurn()
    create_search_index = InTurn()
    create_search_indexes = InTurn()
    delete_many = InTurn()
    delete_one = InTurn()
    distinct = InTurn()
    drop = InTurn()
    drop_index = InTurn()
    drop_indexes = InTurn()
    drop_search_index = InTurn()
    estimated_document_count = InTurn()
    find = Call()
    find_one = InTurn()
    find_one_and_delete = InTurn()
    find_one_and_replace = InTurn()
    find_one_and_update = InTurn()
    find_raw_batches = Call()
    full_name = Property()
    index_information = InTurn()
    insert_many = InTurn()
    insert_one = InTurn()
    list_indexes = Latent()
    list_search_indexes = Latent()
    name = Property()
    options = InTurn()
    read_concern = Property()
    read_preference = Property()
    rename = InTurn()
    replace_one = InTurn()
    update_many = InTurn()
    update_one = InTurn()
    update_search_index = InTurn()
    watch = Watch()
    with_options = Call()
    write_concern = Property()

    def __init__(
        self,
        database: MotorDatabase[_DocumentType],
        name: str,
        codec_options: CodecOptions[_DocumentTypeArg] | None = None,
        read_preference: _ServerMode | None = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
        _delegate: Any = None,
    ) -> None:
        """Make the collection *name* of *database*, with PyMongo's options for it.

        It is not created on the server: that happens at the first insert, or
        by `MotorDatabase.create_collection`.
        """
        if not isinstance(getattr(database, "delegate", None), _Database):
            raise TypeError(f"database must be a MotorDatabase, not {database!r}")
        self.database = database
        self._binding = database._binding
        self.delegate = _delegate
        if _delegate is None:
            self.delegate = Collection(
                database.delegate,
                name,
                codec_options=codec_options,
                read_preference=read_preference,
                write_concern=write_concern,
                read_concern=read_concern,
            )

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> Self:
        if isinstance(parent, cls):
            # As in Motor, `with_options` of a user's subclass is one again.
            return type(parent)(parent.database, delegate.name, _delegate=delegate)
        return cls(parent, delegate.name, _delegate=delegate)

    def _root(self) -> Wrapper:
        return self.database._root()

    def __getattr__(self, name: str) -> MotorCollection[_DocumentType]:
        if name.startswith("_"):
            full_name = f"{self.name}.{name}"
            raise AttributeError(
                f"{type(self).__qualname__} has no attribute {name!r}. To access the {full_name} "
                f"collection, use database[{full_name!r}]."
            )
        return reached_by_attribute(self[name])

    def __getitem__(self, name: str) -> MotorCollection[_DocumentType]:
        return self.__wrappers__[MotorCollection.__delegate_class__]._wrap(  # type: ignore[return-value]  # the registry holds its wrapper
            self.delegate[name], self.database
        )

    def wrap(self, obj: Any) -> Any:
        """Return the wrapper of an object of the green driver; others stay as they are."""
        return wrap(obj, self)

    def __bool__(self) -> bool:
        raise NotImplementedError(
            "a MotorCollection has no truth value: compare with None instead, "
            "as in 'collection is not None'"
        )
