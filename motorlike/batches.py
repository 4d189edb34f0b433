"""How the cursors get their documents: batch by batch, and one batch ahead.

PyMongo's cursor replaces its documents by those of the next batch, and asks
for that only when it has none left. So while a batch is read ahead, the
documents before it are held here. A batch that was read ahead is decoded when
its turn has come, while the server makes the one after it.

Rule: a cursor has one fetch at a time, whoever waits for it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import CancelledError, Future
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from pymongo import _csot
from pymongo.errors import InvalidOperation

from motorlike import driver
from motorlike.declare import Wrapper
from motorlike.green.hub import GreenFuture, Hub, current_hub, wait
from motorlike.green.threading import Lock
from motorlike.pace import Pace

__all__ = ["TAILABLE", "Batches", "start_unseen"]

TAILABLE = 2

# Not PyMongo's own, which has a bound: raw batches are bytes.
_Document = TypeVar("_Document")


class Batches(Wrapper, Generic[_Document]):
    """The documents of a cursor, and the fetch that is under way."""

    started: bool
    closed: bool

    # A query ends with an empty batch; a command's cursor with its id.
    _goes_on_after_empty_batch = False

    # Whether the documents are what the delegate decodes.
    _may_pack = True

    # No defaults on the class: umongo's cursors are subclasses that pass what they
    # do not find, and what is set, to another cursor.
    def __init__(self, delegate: Any) -> None:
        self.delegate = delegate
        # What is to be read before the delegate's own documents.
        self._held: deque[_Document] = deque()
        # What is to be read between these two, not decoded yet.
        self._packed: driver.Packed | None = None
        # When the fetch ahead began, on the monotonic clock.
        self._asked_at = 0.0
        # Whether a fetch goes on, or was cancelled. PyMongo closes the cursor then,
        # and would say of the documents that are missing that there are none.
        self._is_fetching = False
        # The last fetch: it runs, was cancelled, or failed ahead of its time.
        self._batch: GreenFuture[int] | None = None
        # Whether someone waits for it, who gets its error.
        self._is_awaited = True
        # Held by whoever asks the server by the delegate, and the hub that this is on.
        self._lock: Lock | None = None
        self._hub: Hub | None = None

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

    def _fetch(self, wanted: int = 0) -> Future[int]:
        """Get the next batch, of *wanted* documents; return a Future of its size."""
        if not self._is_batch_to_come:
            if not self._has_more:
                raise InvalidOperation("the cursor is exhausted or closed: there is no next batch")
            self.started = True
            self._batch = self._start_fetch(wanted)
        self._is_awaited = True
        batch = self._batch
        assert batch is not None
        if batch.done():
            # Its error would hold the cursor, and the cursor it.
            self._batch = None
        return batch

    def _start_fetch(
        self, wanted: int, refresh: Callable[[], int] | None = None
    ) -> GreenFuture[int]:
        delegate = self.delegate
        if self._unasked is not None:
            return self._spawn(self._refresh)
        given = delegate._batch_size
        refresh = refresh or self._refresh
        if given or not wanted:
            return self._binding.spawn(refresh, (), {})
        # PyMongo looks at it before it first waits, and that is before spawn()
        # returns. A clone must not take it for the user's.
        delegate._batch_size = wanted
        try:
            return self._binding.spawn(refresh, (), {})
        finally:
            delegate._batch_size = given

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
            delegate, hub = self.delegate, current_hub()
            if self._lock is None or self._hub is not hub:
                # Another loop may have ended, or stopped, with somebody who holds it.
                self._lock, self._hub = Lock(), hub
            with self._lock:
                # Or else it was rewound meanwhile.
                if delegate is self.delegate:
                    yield delegate
                    return

    def _refresh(self) -> int:
        with self._alone() as delegate:
            size: int = self._ask(delegate._refresh)
        return size

    def _refresh_packed(self) -> int:
        with self._alone() as delegate:
            with driver.leaving_packed(delegate, _is_alone):
                size: int = self._ask(delegate._refresh)
            data = delegate._data
            if delegate is self.delegate and data and isinstance(data[0], driver.Packed):
                self._packed = data.popleft()
        return size

    def _ask(self, ask: Callable[..., Any], *args: Any) -> Any:
        """Let PyMongo's cursor ask the server, and note whether that was cancelled."""
        delegate = self.delegate
        self._is_fetching = True
        try:
            answer = ask(*args)
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

    def _check_whole(self) -> None:
        is_cut_off = self._is_fetching or (self._batch is not None and _is_lost(self._batch))
        if is_cut_off and not (self._has_more or self.closed):
            raise InvalidOperation(
                "a fetch of this cursor was cancelled, which closed it, and documents are "
                "missing: make a new one, or rewind() that of a query"
            )

    async def _get_more(self, wanted: int = 0) -> bool:
        """Wait for the next batch; return whether to look for documents again."""
        self._check_whole()
        if not self._has_more:
            return False
        if self._packed is not None:
            return bool(self._take_packed())
        try:
            return bool(await self._fetch(wanted)) or self._goes_on_after_empty_batch
        except CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                # Not the caller was cancelled, but another that waited for the same.
                self._check_whole()
            raise
        except Exception:
            self._batch = None
            raise

    # -- one batch ahead --------------------------------------------------

    async def _documents(self) -> AsyncGenerator[_Document]:
        yield None  # type: ignore[misc]  # taken by `start_unseen`
        pace = Pace()
        is_consumed = False
        while True:
            if not self._held and self._may_read_ahead():
                # Many cursors are left in their first batch: nothing is read ahead of that.
                self._take_up(pace, self._read_ahead if is_consumed else None)
            ready = self._ready
            if ready:
                while ready:
                    yield ready.popleft()
                is_consumed = True
                continue
            since = time.monotonic() if self._is_batch_to_come else None
            if not await self._get_more(pace.size):
                return
            if since is not None:
                self._note_wait(pace, since)

    def _take_up(self, pace: Pace, read_ahead: Callable[[int], None] | None) -> None:
        """Hold the batch that is there, after its successor was asked for."""
        # Out of the way of that one, which may be there at once.
        packed, self._packed = self._packed, None
        if packed is None and not self.delegate._batch_size:
            pace.weigh(self.delegate._data[0])
        try:
            if read_ahead is not None:
                read_ahead(pace.size)
        finally:
            if packed is not None:
                self._held = self._unpack(packed)
                pace.add(len(self._held), packed.size)

    def _note_wait(self, pace: Pace, since: float) -> None:
        now = time.monotonic()
        packed = self._packed
        count = pace.count(packed.size) if packed else len(self.delegate._data)
        pace.note_wait(count, now - self._asked_at, now - since)

    def _may_read_ahead(self) -> bool:
        delegate = self.delegate
        return not (
            not (delegate._data or self._packed)
            or not delegate.cursor_id
            or delegate._killed
            or self._is_batch_to_come
            # Two operations in one session, or on one connection, must not overlap.
            or delegate.session is not None
            or delegate._sock_mgr is not None
            or self._binding.client.requests.is_used
            # These wait for what does not exist yet.
            or getattr(delegate, "_query_flags", 0) & TAILABLE
            or getattr(delegate, "_postbatchresumetoken", None) is not None
            or delegate._max_await_time_ms is not None
            or getattr(delegate, "_exhaust", False)
            # The time that the caller allows is not for what it has not asked for.
            or _csot.get_timeout() is not None
        )

    def _read_ahead(self, wanted: int) -> None:
        """Start the next fetch, while the documents of the last one are read."""
        self._held, self.delegate._data = self.delegate._data, deque()
        self._is_awaited = False
        self._asked_at = time.monotonic()
        self._batch = self._start_fetch(wanted, self._refresh_packed if self._may_pack else None)
        self._batch.add_done_callback(_keep_quiet)

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
        if batch is None or batch.done() or self._is_awaited:
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
        finally:
            delegate._session = session
            delegate.close()
            self._is_awaited = True

    def _detach(self) -> None:
        """Leave PyMongo's cursor to whoever asks by it now, and go on with a copy."""
        batch, self._batch = self._batch, None
        self._held.clear()
        self._packed = None
        self.delegate._data.clear()
        is_fetching = batch is not None and (batch.cancelled() or not batch.done())
        if is_fetching or (self._lock is not None and self._lock.locked()):
            self.delegate = self.delegate.clone()
            self._lock = None


def _is_alone() -> bool:
    """Whether the server would have nothing to do while a batch is decoded.

    In company it has, and what is decoded as an event comes in slices.
    """
    # One may be a monitor's, whose answer takes up to ten seconds.
    return current_hub().outbox.awaited <= 1


def _is_lost(batch: GreenFuture[int]) -> bool:
    """Whether a fetch was cancelled, or ended with its loop."""
    if batch.done():
        return batch.cancelled()
    # It has none while it stands in a line.
    worker = batch._worker
    return batch.get_loop().is_closed() or (worker is not None and worker.hub.is_closed)


def _keep_quiet(batch: Future[int]) -> None:
    # Who breaks off the iteration never hears of an error ahead.
    if not batch.cancelled():
        batch.exception()


def start_unseen(documents: AsyncGenerator[_Document]) -> AsyncIterator[_Document]:
    """Start a generator, up to its first ``yield``, without the event loop's hooks.

    With them, a loop that is left by ``break`` would cost a task, and a loop
    that is then closed would find that task pending. There is nothing to
    await at this generator's end.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        documents.asend(None).send(None)
    except StopIteration:
        pass
    finally:
        sys.set_asyncgen_hooks(*hooks)
    return documents
