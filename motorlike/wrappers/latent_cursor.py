"""Cursors of commands that have not been sent yet, and what declares them.

Rule: the command is sent by the first use, and once.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Self

from pymongo.errors import InvalidOperation

from motorlike.declare import Declaration, Wrapper, is_bound, named_after, unwrap_all, wrap
from motorlike.wrappers.cursor import MotorCommandCursor, _Document

__all__ = ["Latent", "MotorLatentCommandCursor"]


class _NotStarted:
    """The place of a command's cursor until the command is sent."""

    alive = True
    address = cursor_id = session = None

    # `Any`: arguments of all kinds, and PyMongo's collection.
    def __init__(
        self,
        command: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        collection: Any = None,
    ) -> None:
        self.command = command
        self.args = args
        self.kwargs = kwargs
        # That it is a command of, if it may be sent in its turn.
        self.collection = collection
        self.is_sent = False
        self._data: deque[Any] = deque()
        self._batch_size: int | None = None

    def batch_size(self, batch_size: int) -> None:
        """Set how many documents a batch has, from the first one on."""
        if not isinstance(batch_size, int):
            raise TypeError(f"batch_size must be an int, not {batch_size!r}")
        if batch_size < 0:
            raise ValueError(f"batch_size must be >= 0, not {batch_size}")
        self._batch_size = batch_size

    def close(self) -> None:
        """Never send the command."""
        self.alive = False

    def start(self) -> Any:
        """Send the command; return PyMongo's cursor. In a greenlet."""
        if self._batch_size is not None and _takes_options(self.command):
            self.kwargs["batchSize"] = self._batch_size
        self.is_sent = True
        cursor = self.command(*self.args, **self.kwargs)
        if self._batch_size is not None:
            cursor.batch_size(self._batch_size)
        return cursor


def _takes_options(command: Callable[..., Any]) -> bool:
    parameters = inspect.signature(command).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


class MotorLatentCommandCursor(MotorCommandCursor[_Document], wraps=_NotStarted):
    """A command's cursor; the command is sent at the first fetch.

    It may also be awaited, which sends the command at once.
    """

    def _start_now(self) -> None:
        if not isinstance(self.delegate, _NotStarted):
            return
        with self._alone() as pending:
            if isinstance(pending, _NotStarted) and pending.alive:
                if pending.is_sent:
                    raise InvalidOperation(
                        "the command of this cursor was sent, and failed, was cancelled or was "
                        "left on another loop: it is not sent twice. Call the method again, for "
                        "another cursor."
                    )
                self.delegate = pending.start()
                if self.closed:
                    self.delegate.close()

    @property
    def _unasked(self) -> Any:
        return self.delegate.collection if isinstance(self.delegate, _NotStarted) else None

    @property
    def _may_ask_again(self) -> bool:
        # The command may have written something.
        return not (isinstance(self.delegate, _NotStarted) and self.delegate.is_sent)

    def _refresh(self, delegate: Any, ask: Callable[[Any], int] | None = None) -> int:
        self._start_now()
        if isinstance(self.delegate, _NotStarted):
            # It was closed before its turn.
            return 0
        return len(self.delegate._data) or super()._refresh(self.delegate, ask)

    def _list(self, length: int | None) -> list[_Document]:
        self._start_now()
        return [] if isinstance(self.delegate, _NotStarted) else super()._list(length)

    def _start(self) -> Self:
        self._start_now()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        self.started = True
        return self._spawn(self._start).__await__()

    async def try_next(self) -> _Document | None:
        """Return the next document, or ``None`` if there is none now."""
        await self
        return None if isinstance(self.delegate, _NotStarted) else await self._try_next()


class Latent(Declaration):
    """A plain call that returns a cursor; its command is sent later.

    Args:
        in_turn: Whether it is sent in its turn where the pool is full.
    """

    kind = "latent"
    returns = "MotorLatentCommandCursor"

    def __init__(self, *, in_turn: bool = False) -> None:
        super().__init__()
        self._in_turn = in_turn

    def resolve(self, name: str, original: Any) -> Any:
        attribute = self.attribute or name
        in_turn = self._in_turn

        def method(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            delegate = self.delegate
            collection = delegate if in_turn and not is_bound(args, kwargs) else None
            args, kwargs = unwrap_all(args, kwargs)
            return wrap(_NotStarted(getattr(delegate, attribute), args, kwargs, collection), self)

        return named_after(original, method, name, self.returns)
