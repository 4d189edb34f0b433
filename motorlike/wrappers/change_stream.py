"""`MotorChangeStream`, and `Watch`, the declaration of what returns one.

A stream is opened in a greenlet by its first use. While it waits for changes
it holds a connection, for `max_await_time_ms` (one second by default) at a time.

Rule: PyMongo's own change stream resumes; nothing is tried again here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, Self

from motorlike import driver
from motorlike.declare import Declaration, Wrapper, named_after, unwrap_all, wrap
from motorlike.green.locks import LoopLock
from motorlike.wrappers.cursor import _Document

__all__ = ["MotorChangeStream", "Watch"]

_END: Any = object()

_change_stream = driver.load("pymongo.synchronous.change_stream")


class _NotOpened:
    """The place of a change stream until it is opened."""

    alive = True

    def __init__(
        self, watch: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.watch = watch
        self.args = args
        self.kwargs = kwargs
        # Held while it is opened: two uses at once wait for one stream.
        self.lock = LoopLock()

    @property
    def resume_token(self) -> Any:
        """What the stream will start after, as far as it is known now."""
        return self.kwargs.get("resume_after") or self.kwargs.get("start_after")

    def close(self) -> None:
        """Never open it."""
        self.alive = False


class MotorChangeStream(
    Wrapper,
    Generic[_Document],
    wraps=_change_stream.ChangeStream,
    also=(
        _change_stream.CollectionChangeStream,
        _change_stream.DatabaseChangeStream,
        _change_stream.ClusterChangeStream,
        _NotOpened,
    ),
):
    """Changes as they happen: `pymongo.change_stream.ChangeStream`, for ``async for``.

    Cancelling what waits for a change closes the stream, as in PyMongo's
    asynchronous client; the server's cursor is ended in the background.
    """

    def __init__(self, delegate: Any, target: Any) -> None:
        self.delegate = delegate
        self._target = target
        self._binding = target._binding
        self._closed = False
        self._waiting: set[asyncio.Future[Any]] = set()

    @classmethod
    def _wrap(cls, delegate: Any, parent: Any) -> Self:
        return cls(delegate, parent)

    def _root(self) -> Wrapper:
        root: Wrapper = self._target._root()
        return root

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def alive(self) -> bool:
        """Whether the stream may have more changes."""
        return bool(self.delegate.alive) and not self._closed

    @property
    def resume_token(self) -> Any:
        """The token that continues after the last change that was returned."""
        return self.delegate.resume_token

    def _open(self) -> None:
        pending = self.delegate
        if not isinstance(pending, _NotOpened):
            return
        with pending.lock.here():
            if self.delegate is pending and pending.alive:
                self.delegate = pending.watch(*pending.args, **pending.kwargs)
                if self._closed:
                    self.delegate.close()

    @property
    def _has_buffered(self) -> bool:
        """Whether the next change is here: getting it does no I/O, and needs no greenlet."""
        if self._closed:
            return False
        data: Any = getattr(getattr(self.delegate, "_cursor", None), "_data", None)
        # PyMongo closes the stream over a change without its token.
        return bool(data) and "_id" in data[0]

    def _next(self, waits: bool) -> Any:
        self._open()
        while self.alive:
            change = self.delegate.try_next()
            if change is not None or not waits:
                return change
        return _END if waits else None

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        operation = self._binding.spawn(function, args, {})
        self._waiting.add(operation)
        try:
            return await operation
        except asyncio.CancelledError:
            # Cancelled by close(), or with the task that waits here?
            if not self._closed or _is_cancelling():
                self._closed = True
                raise
            return _END
        finally:
            self._waiting.discard(operation)

    async def next(self) -> _Document:
        """Return the next change; wait until there is one.

        Raises:
            StopAsyncIteration: The stream is closed.
        """
        if self._has_buffered:
            return self.delegate.try_next()  # type: ignore[no-any-return]  # PyMongo's is untyped here
        change: _Document = await self._run(self._next, True) if self.alive else _END
        if change is _END:
            raise StopAsyncIteration
        return change

    __anext__ = next

    def __aiter__(self) -> Self:
        return self

    async def try_next(self) -> _Document | None:
        """Return the next change, or ``None`` if there is none now.

        It asks the server once, which waits up to `max_await_time_ms`.
        """
        if self._has_buffered:
            return self.delegate.try_next()  # type: ignore[no-any-return]  # as in `next`
        change: _Document | None = await self._run(self._next, False) if self.alive else None
        return None if change is _END else change

    async def close(self) -> None:
        """Close the stream, here and on the server; end what waits for changes."""
        if self._closed and not self._waiting:
            return
        self._closed = True
        for operation in list(self._waiting):
            operation.cancel()
        # What was left on another loop ends when that runs again, if ever.
        here = asyncio.get_running_loop()
        waiting = [operation for operation in self._waiting if operation.get_loop() is here]
        if waiting:
            await asyncio.wait(waiting)
        if isinstance(self.delegate, _NotOpened):
            self.delegate.close()
        else:
            await self._binding.spawn(self.delegate.close, (), {})

    def __await__(self) -> Generator[Any, None, Self]:
        # PyMongo's asynchronous client awaits `watch`, which opens the stream.
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        await self._run(self._open)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Watch(Declaration):
    """A plain call that returns a change stream, which is opened later."""

    kind = "watch"
    returns = "MotorChangeStream"

    def resolve(self, name: str, original: Any) -> Any:
        attribute = self.attribute or name

        def method(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = unwrap_all(args, kwargs)
            return wrap(_NotOpened(getattr(self.delegate, attribute), args, kwargs), self)

        return named_after(original, method, name, self.returns)
