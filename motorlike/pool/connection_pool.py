"""`ConnectionPool`: one pool for connections of any kind.

Users make it, or a subclass with hooks of its own. The work is done in
`machinery`; here are the names that are promised, and their meaning.

Rule: whatever is public here works in a coroutine and in green code alike, or
says in its error what to write instead.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from random import Random
from types import EllipsisType, TracebackType
from typing import Concatenate, Generic, NamedTuple, ParamSpec, Self, TypeVar

from motorlike.green.hub import GreenFuture
from motorlike.green.worker import in_greenlet
from motorlike.pool.errors import outside_greenlet
from motorlike.pool.machinery import Machinery
from motorlike.pool.reservation import Reservation
from motorlike.pool.settings import PoolStats, Settings, check_size
from motorlike.pool.shelf import Order, Slot
from motorlike.request_map import RequestMap

__all__ = ["ConnectionPool"]

ConnT = TypeVar("ConnT")
P = ParamSpec("P")
T = TypeVar("T")


class _Given(NamedTuple, Generic[ConnT]):
    """The callables that take the place of a subclass."""

    connect: Callable[[], ConnT] | None
    ping: Callable[[ConnT], object] | None
    reset: Callable[[ConnT], object] | None
    close: Callable[[ConnT], object] | None


class ConnectionPool(Generic[ConnT]):
    """At most *max_size* connections, lent to one user at a time, in order of arrival.

    The callables are synchronous functions, and run green: they may wait on
    green sockets, and fail with anything. A subclass may override
    `make_connection`, `ping_connection`, `reset_connection` and
    `close_connection` instead of passing them. All durations are in seconds.

    Args:
        connect: Opens and returns a connection, which may be any object.
        max_size: How many connections there may be, those included that are
            being opened or closed.
        min_size: How many are kept open, from the first use of the pool on.
        order: Which idle connection is taken: ``"lifo"``, the one that was
            used last, so that the others can expire; ``"fifo"``, the one that
            was idle for longest. ``"least_loaded"`` shares: once all are open
            nobody waits, and the connection with the fewest users gets one
            more. It is for connections that several may use at a time.
        wait_timeout: How long to wait in line. ``None`` waits without limit.
        max_waiters: How many may wait in line; more are refused at once.
        max_idle_seconds: Connections unused for so long are closed, down to *min_size*.
        max_lifetime_seconds: Connections so old are replaced, when nobody uses
            them; each up to a tenth sooner, so that they do not all end together.
        keepalive_seconds: Idle connections are probed by *ping* this often.
        ping: Called with a connection. It works unless this raises or returns
            False. Without *keepalive_seconds*, each check-out begins with it.
        reset: Called with each connection that is given back whole: for SQL,
            to roll back. If that fails, the connection is closed.
        close: Called with each connection that is given up. By default, its
            ``close()``, if it has one.
        discard_on: Exceptions after which a connection is closed, not given
            back. So are those on which a `BaseException` struck, a cancel for example.
        hook_timeout: How long a ping, a close, a reset or a replacement may
            take in the background. Then it is cancelled.
        backoff_seconds: The longest delays before the first and before any
            further attempt to replace a connection. They double in between.
        random: The source of all jitter, for those who need it repeatable.
    """

    def __init__(
        self,
        connect: Callable[[], ConnT] | None = None,
        max_size: int = 10,
        *,
        min_size: int = 0,
        order: Order = "lifo",
        wait_timeout: float | None = None,
        max_waiters: int | None = None,
        max_idle_seconds: float | None = None,
        max_lifetime_seconds: float | None = None,
        keepalive_seconds: float | None = None,
        ping: Callable[[ConnT], object] | None = None,
        reset: Callable[[ConnT], object] | None = None,
        close: Callable[[ConnT], object] | None = None,
        discard_on: type[BaseException] | tuple[type[BaseException], ...] = (OSError,),
        hook_timeout: float = 10.0,
        backoff_seconds: tuple[float, float] = (0.1, 30.0),
        random: Random | None = None,
    ) -> None:
        self._given = _Given(connect, ping, reset, close)
        settings = Settings(
            max_size=max_size,
            min_size=min_size,
            order=order,
            wait_timeout=wait_timeout,
            max_waiters=max_waiters,
            max_idle_seconds=max_idle_seconds,
            max_lifetime_seconds=max_lifetime_seconds,
            keepalive_seconds=keepalive_seconds,
            hook_timeout=hook_timeout,
            backoff_seconds=backoff_seconds,
            discard_on=discard_on if isinstance(discard_on, tuple) else (discard_on,),
            random=random or Random(),
        )
        self._machinery = Machinery(
            self,
            settings,
            can_ping=ping is not None or self._overrides("ping_connection"),
            can_reset=reset is not None or self._overrides("reset_connection"),
        )
        self._check_hooks()
        # Whose connections those of `MappedPool` are.
        self._tasks = RequestMap()
        # By identity: connections need not be hashable.
        self._checked_out: dict[int, list[Slot[ConnT]]] = {}

    def _overrides(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(ConnectionPool, hook)

    def _check_hooks(self) -> None:
        settings = self._machinery.settings
        if self._given.connect is None and not self._overrides("make_connection"):
            raise TypeError("pass connect, or override make_connection in a subclass")
        if settings.keepalive_seconds is not None and not self._machinery.can_ping:
            raise TypeError("keepalive_seconds needs ping, or ping_connection in a subclass")
        if settings.order == "least_loaded" and self._machinery.can_reset:
            raise TypeError(
                'with order="least_loaded" others use a connection when it is given back: '
                "it cannot be reset"
            )

    # -- hooks for subclasses ---------------------------------------------

    def make_connection(self) -> ConnT:
        """Open and return a connection: a hook, which calls *connect*. Green."""
        assert self._given.connect is not None
        return self._given.connect()

    def ping_connection(self, connection: ConnT) -> object:
        """Raise or return False if *connection* does not work: a hook. Green."""
        return None if self._given.ping is None else self._given.ping(connection)

    def reset_connection(self, connection: ConnT) -> object:
        """Make *connection* fit for its next user: a hook. Green."""
        return None if self._given.reset is None else self._given.reset(connection)

    def close_connection(self, connection: ConnT) -> object:
        """Close *connection*: a hook, which calls *close*, or else its own. Green."""
        if self._given.close is not None:
            return self._given.close(connection)
        close = getattr(connection, "close", None)
        return None if close is None else close()

    # -- using connections ------------------------------------------------

    def reserve(self, *, wait_timeout: float | EllipsisType | None = ...) -> Reservation[ConnT]:
        """Return a context manager that has a connection to itself in its block.

        ``with`` in green code, ``async with`` in a coroutine; a synchronous
        connection is then used by ``await green.spawn(function, connection)``.

        Args:
            wait_timeout: Seconds to wait in line, instead of the pool's own.
                What opening a connection takes does not count.

        Raises:
            PoolTimeout: None was checked in within that time.
            TooManyWaiters: As many as *max_waiters* are in line already.
            PoolClosed: The pool has been closed.
            LoopMismatch: It has been used on another event loop.
            NotInGreenlet: ``with`` was used outside a greenlet.
            Exception: Whatever *connect* raises.
        """
        return Reservation(self._machinery, self._timeout(wait_timeout))

    def _timeout(self, wait_timeout: float | EllipsisType | None) -> float | None:
        own = self._machinery.settings.wait_timeout
        return own if isinstance(wait_timeout, EllipsisType) else wait_timeout

    def run(
        self, function: Callable[Concatenate[ConnT, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> GreenFuture[T]:
        """Call ``function(connection, *args, **kwargs)`` green, with a connection reserved.

        Returns:
            A future of its result. Cancelling it closes the connection.
        """
        machinery = self._machinery

        def call() -> T:
            with Reservation(machinery, machinery.settings.wait_timeout) as connection:
                return function(connection, *args, **kwargs)

        return machinery.enter_loop().spawn(call, (), {})

    def check_out(self, *, wait_timeout: float | EllipsisType | None = ...) -> ConnT:
        """Take a connection, for longer than a block. Green; raises as `reserve` does.

        Each is to be given back by `check_in` or `discard`, once.
        """
        if not in_greenlet():
            raise outside_greenlet("pool.check_out()")
        machinery = self._machinery
        slot = machinery.take_ready() or machinery.obtain(self._timeout(wait_timeout))
        assert slot.connection is not None
        self._checked_out.setdefault(id(slot.connection), []).append(slot)
        return slot.connection

    def check_in(self, connection: ConnT, exc: BaseException | None = None) -> None:
        """Give back what `check_out` returned. Green, if there is a *reset*.

        Args:
            exc: What its use ended by, to tell whether it is broken.

        Raises:
            ValueError: It is not checked out.
        """
        machinery = self._machinery
        if machinery.needs_reset and not machinery.is_broken_by(exc) and not in_greenlet():
            raise outside_greenlet("pool.check_in()")
        machinery.settle(self._slot_of(connection), exc)

    def discard(self, connection: ConnT) -> None:
        """Close what `check_out` returned, because it is broken. It is replaced.

        Raises:
            ValueError: It is not checked out.
        """
        self._machinery.discard_slot(self._slot_of(connection))

    def _slot_of(self, connection: ConnT) -> Slot[ConnT]:
        slots = self._checked_out.get(id(connection))
        if slots is None:
            raise ValueError(
                f"{connection!r} is not checked out of {self!r}: give back what check_out() "
                "returned, and only once"
            )
        slot = slots.pop()
        if not slots:
            del self._checked_out[id(connection)]
        return slot

    # -- the pool as a whole ----------------------------------------------

    async def fill(self, n: int | None = None) -> None:
        """Open connections until there are *n*, by default *max_size*.

        In green code: ``green.wait(pool.fill())``.

        Raises:
            ValueError: *n* is more than *max_size*.
            Exception: Whatever *connect* raised first. The others stay open.
        """
        machinery = self._machinery
        hub, shelf = machinery.enter_loop(), machinery.shelf
        wanted = shelf.max_size if n is None else n
        if wanted > shelf.max_size:
            raise ValueError(f"{self!r} holds at most {shelf.max_size} connections, not {n}")
        missing = range(wanted - len(shelf.slots))
        opening = [hub.spawn(machinery.open_idle, (), {}) for _ in missing]
        results = await asyncio.gather(*opening, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def resize(self, max_size: int) -> None:
        """Let there be *max_size* connections from now on.

        Of those that are too many, idle ones are closed at once, and those in
        use when they are given back.

        Raises:
            ValueError: *max_size* is below *min_size*.
        """
        machinery = self._machinery
        check_size(max_size, machinery.settings.min_size)
        machinery.resize(max_size)

    def stats(self) -> PoolStats:
        """Return how many connections there are, and what has happened."""
        return self._machinery.stats()

    async def aclose(self) -> None:
        """Close the pool for good, and wait until its idle connections are closed.

        Those who wait in line get `PoolClosed`. Connections in use are closed
        when they are given back. Closing twice is harmless. In green code:
        ``green.wait(pool.aclose())``.
        """
        self._machinery.shut()
        await self._machinery.drain()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        stats = self.stats()
        state = " (closed)" if self._machinery.is_closed else ""
        return (
            f"<{type(self).__name__} of {stats.max_size}{state}: {stats.in_use} in use, "
            f"{stats.idle} idle, {stats.waiting} waiting>"
        )

    def __del__(self) -> None:
        # Absent where the arguments were refused.
        machinery = getattr(self, "_machinery", None)
        if machinery is not None and not machinery.is_closed and machinery.shelf.slots:
            warnings.warn(
                f"unclosed {self!r}: call `await pool.aclose()`",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
