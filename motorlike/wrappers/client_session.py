"""`MotorClientSession`: sessions and transactions.

Rule: one line per method; what PyMongo documents is not documented again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from motorlike import driver
from motorlike.declare import Async, Call, Property, Wrapper, parameters_of

if TYPE_CHECKING:
    from motorlike.wrappers.client import MotorClient

__all__ = ["MotorClientSession"]

ClientSession = driver.load("pymongo.synchronous.client_session").ClientSession


class MotorClientSession(Wrapper, wraps=ClientSession):
    """A session: `pymongo.client_session.ClientSession`, to be awaited."""

    client: MotorClient[Any]

    abort_transaction = Async()
    advance_cluster_time = Call()
    advance_operation_time = Call()
    cluster_time = Property()
    commit_transaction = Async()
    end_session = Async()
    has_ended = Property()
    in_transaction = Property()
    operation_time = Property()
    options = Property()
    session_id = Property()

    def __init__(self, delegate: Any, client: MotorClient[Any]) -> None:
        self.delegate = delegate
        self.client = client
        self._binding = client._binding

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> Self:
        return cls(delegate, parent._root())

    def _root(self) -> MotorClient[Any]:
        return self.client

    __hash__ = object.__hash__

    @parameters_of(ClientSession.start_transaction)
    def start_transaction(self, *args: Any, **kwargs: Any) -> _Transaction:
        """Start a transaction; use it with ``async with`` to commit or abort it.

        Args: as `pymongo.client_session.ClientSession.start_transaction`.
        """
        self.delegate.start_transaction(*args, **kwargs)
        return _Transaction(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.end_session()


class _Transaction:
    """Commits at the end of its block; aborts where that raises."""

    def __init__(self, session: MotorClientSession) -> None:
        self._session = session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: Any, *exc_info: object) -> None:
        if self._session.in_transaction:
            if exc_type is None:
                await self._session.commit_transaction()
            else:
                await self._session.abort_transaction()
