"""How the cursors get their documents, batch by batch.

PyMongo's cursor has the documents of one batch. Those of batches before and after
it, which come by reading ahead, are held here, and everything that reads takes them
in their order.

Rule: a cursor has one fetch at a time, whoever waits for it.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Future
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from pymongo.errors import InvalidOperation

from motorlike import driver
from motorlike.declare import Wrapper
from motorlike.errors import LoopClosed
from motorlike.green.hub import GreenFuture, wait
from motorlike.green.locks import LoopLock
from motorlike.green.worker import is_job_over

__all__ = ["TAILABLE", "Batches"]

TAILABLE = 2

# Not PyMongo's own, which has a bound: raw batches are bytes.
_Document = TypeVar("_Document")


class Batches(Wrapper, Generic[_Document]):
    """The documents of a cursor, and the fetch that is under way."""

    started: bool
    closed: bool

    # A query ends with an empty batch; a command's cursor with its id.
    _goes_on_after_empty_batch = False

    # No defaults on the class: umongo's cursors are subclasses that pass what they
    # do not find, and what is set, to another cursor.
    def __init__(self, delegate: Any) -> None:
        self.delegate = delegate
        # What is to be read before the delegate's own documents.
        self._held: deque[_Document] = deque()
        # What is to be read between these two, not decoded yet.
        self._packed: driver.Packed | None = None
        # Whether a fetch goes on, or was cancelled. PyMongo closes the cursor then,
        # and would say of the documents that are missing that there are none.
        self._is_fetching = False
        # The last fetch: it runs, was cancelled, or failed ahead of its time.
        self._batch: GreenFuture[int] | None = None
        # Whether someone waits for it, who gets its error.
        self._is_awaited = True
        # Held by whoever asks the server by the delegate.
        self._lock = LoopLock()

    @property
    def _ready(self) -> deque[_Document]:
        """The documents that are there, to be taken from the left."""
        return self._held or self.delegate._data or self._take_packed()

    def _take_packed(self) -> deque[_Document]:
        packed, self._packed = self._packed, None
        if packed is not None:
            self._held = self._unpack(packed)
        return self._held

    def _unpack(self, packed: driver.Packed) -> deque[_Document]:
        """Decode what was read ahead."""
        delegate = self.delegate
        try:
            documents = packed.documents(delegate)
        except BaseException:
            self._break_off()
            raise
        if hasattr(delegate, "_retrieved"):
            # PyMongo has counted the batch as one.
            delegate._retrieved += len(documents) - 1
        return deque(documents)

    def _break_off(self) -> None:
        """Close PyMongo's cursor, as it does itself when it cannot decode a batch."""
        if self._batch is not None and self._is_batch_to_come:
            self._batch.cancel()
        self.delegate._die_no_lock()
        self.delegate._data.clear()

    @property
    def _has_more(self) -> bool:
        return bool(self._held or self._packed or self.delegate.alive or self._is_batch_to_come)

    @property
    def _is_batch_to_come(self) -> bool:
        """Whether a fetch runs, or failed with an error that nobody has been told."""
        batch = self._batch
        if batch is None or _is_lost(batch):
            return False
        return not batch.done() or (not self._is_awaited and batch.exception() is not None)

    def _fetch(self, wanted: int = 0, ask: Callable[[Any], int] | None = None) -> Future[int]:
        """Get the next batch, of *wanted* documents; return a Future of its size.

        Args:
            ask: Lets PyMongo's cursor get it, where that is not to be done as usual.
        """
        if not self._is_batch_to_come:
            if not self._has_more:
                raise InvalidOperation("the cursor is exhausted or closed: there is no next batch")
            self.started = True
            self._batch = self._start_fetch(wanted, ask)
        self._is_awaited = True
        batch = self._batch
        assert batch is not None
        if batch.done():
            self._forget(batch)
        return batch

    def _start_fetch(self, wanted: int, ask: Callable[[Any], int] | None) -> GreenFuture[int]:
        delegate = self.delegate
        if self._unasked is not None:
            return self._spawn(self._refresh, delegate)
        given = delegate._batch_size
        if given or not wanted:
            return self._binding.spawn(self._refresh, (delegate, ask), {})
        # PyMongo looks at it before it first waits, and that is before spawn()
        # returns. A clone must not take it for the user's.
        delegate._batch_size = wanted
        try:
            return self._binding.spawn(self._refresh, (delegate, ask), {})
        finally:
            delegate._batch_size = given

    @property
    def _may_ask_again(self) -> bool:
        """Whether what was asked may be asked once more, after it was cancelled."""
        return True

    @property
    def _unasked(self) -> Any:
        """PyMongo's collection, if it is asked first: then that may be done in its turn."""
        return None

    def _spawn(self, function: Callable[..., Any], *args: Any) -> GreenFuture[Any]:
        """Start what asks the server; what asks first stands in the pool's line before."""
        collection = self._unasked
        if collection is None:
            return self._binding.spawn(function, args, {})
        return self._binding.spawn_in_turn(function, args, {}, collection)

    @contextmanager
    def _alone(self) -> Iterator[Any]:
        """The delegate, while no other asks the server by it: it is made for one at a time."""
        while True:
            delegate = self.delegate
            with self._lock.here():
                # Or else it was rewound, or begun, meanwhile.
                if delegate is self.delegate:
                    yield delegate
                    return

    def _refresh(self, delegate: Any, ask: Callable[[Any], int] | None = None) -> int:
        """Get *delegate*'s next batch; return its size, or 1 if that was left by a rewind."""
        # That may be before this begins, or while another asks. Whoever waits looks again.
        if delegate is self.delegate:
            with self._lock.here():
                if delegate is self.delegate:
                    return self._get_batch(delegate, ask)
        return 1

    def _get_batch(self, delegate: Any, ask: Callable[[Any], int] | None) -> int:
        if self._packed is not None:
            # There is a batch, which the next one would take the place of.
            return 1
        if getattr(delegate, "_empty", False):
            # A slice of nothing, which PyMongo looks for elsewhere.
            delegate.close()
            return 0
        size: int = self._ask(ask or self._refresh_delegate, delegate)
        return size if delegate is self.delegate else 1

    def _refresh_delegate(self, delegate: Any) -> int:
        size: int = delegate._refresh()
        return size

    def _ask(self, ask: Callable[..., Any], *args: Any) -> Any:
        """Let PyMongo's cursor ask the server, and note whether that was cancelled."""
        delegate = self.delegate
        if self._is_fetching and (delegate._killed or delegate.cursor_id is not None):
            # Whoever asked before was cancelled, or left on another loop.
            self._check_closed()
        self._is_fetching = True
        try:
            answer = ask(*args)
        except LoopClosed:
            # A cancel, too: PyMongo has tried once more.
            raise
        except Exception:
            self._end_asking(delegate)
            raise
        except BaseException:
            # As PyMongo does itself for a query, but not for a command.
            delegate.close()
            raise
        self._end_asking(delegate)
        return answer

    def _end_asking(self, delegate: Any) -> None:
        # rewind() may have given the wrapper another one meanwhile.
        if delegate is self.delegate:
            self._is_fetching = False
            if self.closed and delegate.cursor_id:
                # It was closed before the server's cursor was known.
                delegate._killed = False
                delegate.close()

    def _check_whole(self) -> None:
        # A fetch that was cancelled before it asked has lost nothing.
        if self._is_fetching and not self._has_more:
            self._check_closed()

    def _check_closed(self) -> None:
        if not self.closed:
            raise InvalidOperation(
                "a fetch of this cursor was cancelled, which closed it, and documents are "
                "missing: make a new one, or rewind() that of a query"
            )

    async def _get_more(self, wanted: int = 0, ask: Callable[[Any], int] | None = None) -> bool:
        """Wait for the next batch; return whether to look for documents again."""
        self._check_whole()
        if not self._has_more:
            return False
        if self._packed is not None:
            return bool(self._take_packed())
        batch = self._fetch(wanted, ask)
        try:
            return bool(await batch) or self._goes_on_after_empty_batch
        except CancelledError:
            if _is_being_cancelled() or not self._may_look_again(batch):
                raise
            return True
        except Exception:
            self._forget(batch)
            raise
        finally:
            # Its error would hold this frame, and the frame it.
            del batch

    def _may_look_again(self, batch: Future[int]) -> bool:
        """Whether *batch* was cancelled by another that waited for it, and nothing is lost.

        Raises:
            InvalidOperation: It was, and documents are missing.
        """
        if not batch.cancelled() or not self._may_ask_again:
            return False
        self._check_whole()
        return True

    def _forget(self, batch: Future[int]) -> None:
        # Its error would hold the cursor, and the cursor it.
        if self._batch is batch:
            self._batch = None

    def _rejoin(self) -> None:
        """Give the delegate all documents that are here. By whoever may ask the server."""
        # If that fails, they are lost, as those are that PyMongo has put into its list.
        documents, self._held = self._held, deque()
        packed, self._packed = self._packed, None
        batch = self._batch
        if batch is not None and batch.done() and self._is_batch_to_come:
            # It failed ahead of its time: raise that.
            wait(self._fetch())
        # It may have been lost with its loop.
        self._check_whole()
        if packed is not None:
            documents.extend(self._unpack(packed))
        if documents:
            documents.extend(self.delegate._data)
            self.delegate._data = documents

    def _close(self) -> None:
        delegate, batch = self.delegate, self._batch
        if batch is None or batch.done() or self._is_awaited or _is_lost(batch):
            delegate.close()
            return
        # The server ends the fetch for it. It is waited for, and not cancelled:
        # that would cost its connection. The session is its until then.
        session, delegate._session = delegate._session, None
        try:
            delegate.close()
            # Its error is that end itself, or about documents that nobody will read.
            with suppress(Exception):
                wait(batch)
        except CancelledError:
            if is_job_over() or not batch.cancelled():
                raise
        finally:
            delegate._session = session
            delegate.close()
            if self._batch is batch:
                self._is_awaited = True

    def _detach(self) -> None:
        """Leave PyMongo's cursor to whoever asks by it now, and go on with a copy."""
        batch, self._batch = self._batch, None
        self._held.clear()
        self._packed = None
        self.delegate._data.clear()
        is_fetching = batch is not None and (batch.cancelled() or not batch.done())
        if is_fetching or self._lock.is_held:
            self.delegate = self.delegate.clone()
            self._lock = LoopLock()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or bool(task.cancelling())


def _is_lost(batch: GreenFuture[int]) -> bool:
    """Whether a fetch was cancelled, or was left on another loop, or ended with it."""
    if batch.done():
        return batch.cancelled()
    # It has no worker while it stands in a line.
    worker, loop = getattr(batch, "_worker", None), batch.get_loop()
    is_elsewhere = loop is not (asyncio._get_running_loop() or loop)
    return is_elsewhere or loop.is_closed() or (worker is not None and worker.hub.is_closed)
