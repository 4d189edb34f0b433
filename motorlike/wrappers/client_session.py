"""`MotorClientSession`: sessions and transactions.

Rule: one line per method; what PyMongo documents is not documented again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from motorlike import driver, green
from motorlike.declare import Async, Call, Property, Wrapper, parameters_of

if TYPE_CHECKING:
    from pymongo.read_concern import ReadConcern
    from pymongo.read_preferences import _ServerMode
    from pymongo.write_concern import WriteConcern

    from motorlike.wrappers.client import MotorClient

__all__ = ["MotorClientSession"]

_T = TypeVar("_T")

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

    async def with_transaction(
        self,
        coro: Callable[[Self], Awaitable[_T]],
        read_concern: ReadConcern | None = None,
        write_concern: WriteConcern | None = None,
        read_preference: _ServerMode | None = None,
        max_commit_time_ms: int | None = None,
    ) -> _T:
        """Run a coroutine function in a transaction; commit, and retry as PyMongo does.

        PyMongo's own `ClientSession.with_transaction` decides when the callback
        or the commit is tried again, and for how long.

        Args:
            coro: Called with this session, and awaited in the caller's task;
                more than once where the transaction is tried again.
        """
        options = (read_concern, write_concern, read_preference, max_commit_time_ms)
        calls: _Calls[_T] = _Calls()
        operation = self._binding.spawn(calls.run, (self.delegate.with_transaction, *options), {})
        result: _T = await calls.serve(coro, self, operation)
        return result

    def bind(self, end_session: bool = True) -> _Bound[Self]:
        """Use this session for the operations of an ``async with`` block that name none.

        Args:
            end_session: Whether the session ends with the block.
        """
        return _Bound(self, self.delegate.bind(end_session=False), end_session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.end_session()


class _Calls(Generic[_T]):
    """Carries a callback's calls from PyMongo's greenlet to the caller's task.

    In that task the callback keeps its context variables and socket request.
    """

    def __init__(self) -> None:
        self.first = self._called = _future()
        # Of the greenlet, which outlives the Future that is cancelled: it ends
        # when the transaction has been aborted.
        self._end: asyncio.Future[None] | None = None

    def run(self, with_transaction: Callable[..., _T], *options: Any) -> _T:
        """Perform PyMongo's `with_transaction`. In a greenlet."""
        self._end = _future()
        try:
            return with_transaction(self.make, *options)
        finally:
            if not self._end.get_loop().is_closed():
                self._end.set_result(None)

    def make(self, session: Any) -> _T:
        """Have the callback awaited; return its result. In a greenlet."""
        answer: asyncio.Future[_T] = _future()
        called, self._called = self._called, _future()
        called.set_result((answer, self._called))
        return green.wait(answer)

    async def serve(
        self, callback: Callable[[Any], Awaitable[_T]], session: Any, operation: asyncio.Future[Any]
    ) -> Any:
        """Await *callback* each time that it is called, until *operation* is done."""
        try:
            called = self.first
            while True:
                await asyncio.wait({called, operation}, return_when=asyncio.FIRST_COMPLETED)
                if operation.done():
                    return await operation
                answer, called = called.result()
                await _settle(answer, callback, session)
        except BaseException:
            await self._stop(operation)
            raise

    async def _stop(self, operation: asyncio.Future[Any]) -> None:
        # PyMongo aborts the transaction before the caller goes on.
        operation.cancel()
        if self._end is not None:
            await asyncio.wait({self._end})
        if not operation.cancelled():
            operation.exception()


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def _settle(
    answer: asyncio.Future[_T], callback: Callable[[Any], Awaitable[_T]], session: Any
) -> None:
    try:
        result = await callback(session)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # noqa: BLE001 - PyMongo decides what becomes of it
        if not answer.done():
            answer.set_exception(exc)
    else:
        if not answer.done():
            answer.set_result(result)


_Session = TypeVar("_Session")


class _Bound(Generic[_Session]):
    """Binds a session for its block, and ends it there unless told otherwise."""

    def __init__(self, session: _Session, delegate: Any, ends: bool) -> None:
        self._session = session
        self._delegate = delegate
        self._ends = ends

    async def __aenter__(self) -> _Session:
        self._delegate.__enter__()
        return self._session

    async def __aexit__(self, *exc_info: object) -> None:
        self._delegate.__exit__(*exc_info)
        if self._ends:
            session: Any = self._session
            await session.end_session()


class _Transaction:
    """Commits at the end of its block; aborts where that raises."""

    def __init__(self, session: MotorClientSession) -> None:
        self._session = session

    def __await__(self) -> Generator[Any, None, Self]:
        # The transaction has begun; PyMongo's asynchronous client awaits it.
        yield from ()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: Any, *exc_info: object) -> None:
        if self._session.in_transaction:
            if exc_type is None:
                await self._session.commit_transaction()
            else:
                await self._session.abort_transaction()
