"""Iterations, which have the next batch fetched while one is read.

PyMongo's cursor replaces its documents by those of the next batch, and asks
for that only when it has none left. So the documents before it are held. A batch
that was read ahead is decoded when its turn has come, while the server makes the
one after it.

Rule: an iteration is one batch ahead and no more.
"""

from __future__ import annotations

import time
from asyncio import Future
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from pymongo import _csot

from motorlike import driver
from motorlike.batches import TAILABLE, Batches
from motorlike.green.hub import current_hub
from motorlike.pace import Pace

__all__ = ["ReadAhead"]

# Not PyMongo's own, which has a bound: raw batches are bytes.
_Document = TypeVar("_Document")


class ReadAhead(Batches[_Document]):
    """A cursor that is iterated, and what is fetched ahead of that."""

    # Whether the documents are what the delegate decodes.
    _may_pack = True

    def __init__(self, delegate: Any) -> None:
        super().__init__(delegate)
        # When the fetch ahead began, on the monotonic clock.
        self._asked_at = 0.0

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
            is_ahead, since = self._is_batch_to_come, time.monotonic()
            # One that is wanted now is left packed too, so that the next is asked for before.
            ask = self._refresh_packed if pace.size and self._may_pack else None
            if not await self._get_more(pace.size, ask):
                return
            if is_ahead:
                self._note_wait(pace, since)
            elif _is_alone():
                pace.note_answer(time.monotonic() - since)

    def _take_up(self, pace: Pace, read_ahead: Callable[[int], None] | None) -> None:
        """Hold the batch that is there, after its successor was asked for."""
        # Out of the way of that one, which may be there at once.
        packed, self._packed = self._packed, None
        if packed is not None:
            pace.grow(packed.size)
        elif not self.delegate._batch_size:
            pace.weigh(self.delegate._data[0], len(self.delegate._data))
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

    def _refresh_packed(self, delegate: Any) -> int:
        with driver.leaving_packed(delegate, _is_alone):
            size: int = delegate._refresh()
        data = delegate._data
        if data and isinstance(data[0], driver.Packed):
            packed = data.popleft()
            if delegate is self.delegate:
                self._packed = packed
        return size


def _is_alone() -> bool:
    """Whether the server would have nothing to do while a batch is decoded.

    In company it has, and what is decoded as an event comes in slices.
    """
    # One may be a monitor's, whose answer takes up to ten seconds.
    return current_hub().outbox.awaited <= 1


def _keep_quiet(batch: Future[int]) -> None:
    # Who breaks off the iteration never hears of an error ahead.
    if not batch.cancelled():
        batch.exception()
