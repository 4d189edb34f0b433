"""Socket requests on PyMongo's pool: one connection a server, kept between operations.

A `RequestPool` asks the client's `RequestMap` who is checking out. Without a
request it is a `FairPool`; with one, the connection stays checked out until
the request ends, and its operations take turns on it.

Rule: a held connection occupies its slot until PyMongo's own `checkin`, which
runs once for it, whatever happened to the connection meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from greenlet import getcurrent
from pymongo import _csot
from pymongo.errors import WaitQueueTimeoutError

from motorlike.driver.pool import FairPool
from motorlike.green.hub import current_hub
from motorlike.green.locks import Lock
from motorlike.green.worker import in_greenlet
from motorlike.request_map import Request, RequestMap

if TYPE_CHECKING:
    from pymongo.synchronous.pool import Connection
    from pymongo.topology_description import TopologyDescription

__all__ = ["HeldConnection", "RequestPool", "member_for"]


class HeldConnection:
    """A request's place in one pool: its connection, once there is one.

    Attributes:
        connection: Checked out of the pool, from the first operation on.
        user: The greenlet that uses it now.
        has_ended: Whether the request has.
    """

    def __init__(self, pool: RequestPool) -> None:
        self.pool = pool
        self.connection: Connection | None = None
        self.user: Any = None  # a greenlet, only ever compared
        self.has_ended = False
        # Held by the operation that uses the connection. The others wait for
        # it in the order in which they came.
        self._turn = Lock()
        self._checkout: Any = None  # PyMongo's, of the connection

    def take(self, handler: Any) -> Connection:
        """Wait for a turn, and return the connection, made or replaced if need be."""
        deadline = self.pool._wait_deadline()
        timeout = -1 if deadline is None else max(deadline - time.monotonic(), 0)
        try:
            has_turn = self._turn.acquire(timeout=timeout)
        except BaseException:
            # The last one in line may be leaving it.
            self._settle()
            raise
        if not has_turn:
            self._raise_turn_timeout()
        self.user = getcurrent()
        try:
            return self._bind(handler)
        except BaseException:
            self._end_turn()
            raise

    def put_down(self, *exc_info: Any) -> None:
        """End the turn that `take` began."""
        try:
            connection = self.connection
            assert connection is not None
            if connection.pinned_txn or connection.pinned_cursor or not connection.active:
                # A transaction or a cursor has it for longer than an operation,
                # and PyMongo counts it; or it had it, and PyMongo checked the
                # connection in. The next operation takes another one.
                self._let_go()(*exc_info)
            else:
                connection.update_last_checkin_time()
        finally:
            self._end_turn()

    def release(self) -> None:
        """Give the connection back, after the operations that wait for it."""
        self.has_ended = True
        self._settle()

    def _end_turn(self) -> None:
        self.user = None
        self._turn.release()
        self._settle()

    def _settle(self) -> None:
        if self.has_ended and not self._turn.locked() and self._checkout is not None:
            check_in = self._let_go()
            if self.pool.lock.locked() and not in_greenlet():
                # The hub must not wait for the lock.
                current_hub().spawn(check_in, (None, None, None), {})
            else:
                check_in(None, None, None)

    def _bind(self, handler: Any) -> Connection:
        connection = self.connection
        if connection is None:
            return self._check_out(handler)
        if not connection.closed and not self.pool._perished(connection):
            return connection
        # The new connection takes over the dead one's slot: that is free for
        # an instant only, in which no other greenlet runs.
        replacing = self.pool.replacing
        replacing.add(self.user)
        try:
            self._let_go()(None, None, None)
            return self._check_out(handler)
        finally:
            replacing.discard(self.user)

    def _check_out(self, handler: Any) -> Connection:
        checkout = self.pool.plain_checkout(handler)
        connection: Connection = checkout.__enter__()
        self.connection, self._checkout = connection, checkout
        self.pool.held.add(self)
        return connection

    def _let_go(self) -> Callable[..., object]:
        """Return what checks the connection in, as PyMongo ends an operation."""
        checkout, self._checkout, self.connection = self._checkout, None, None
        self.pool.held.discard(self)
        exit_: Callable[..., object] = checkout.__exit__
        return exit_

    def _raise_turn_timeout(self) -> NoReturn:
        timeout = _csot.get_timeout() or self.pool.opts.wait_queue_timeout
        raise WaitQueueTimeoutError(
            "Timed out while waiting for the connection of a socket request, on which its "
            f"operations take turns. timeout: {timeout}. Start fewer of them at once, or use "
            "a request for each task."
        )


class _Turn:
    """One operation's use of a held connection, where PyMongo expects a check-out."""

    __slots__ = ("_handler", "_held")

    def __init__(self, held: HeldConnection, handler: Any) -> None:
        self._held = held
        self._handler = handler

    def __enter__(self) -> Connection:
        return self._held.take(self._handler)

    def __exit__(self, *exc_info: object) -> None:
        self._held.put_down(*exc_info)


class RequestPool(FairPool):
    """A `FairPool` that knows socket requests.

    Args:
        requests: The client's request map.

    Attributes:
        held: The connections that requests hold.
        replacing: The greenlets that replace one. They have a slot, and do
            not wait in line for it.
    """

    def __init__(self, *args: Any, requests: RequestMap, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request_map = requests
        self.held: set[HeldConnection] = set()
        self.replacing: set[Any] = set()

    # `Any`: PyMongo's own class of check-outs is private, and so is its handler's.
    def checkout(self, handler: Any = None) -> Any:
        """Return the context in which one operation uses a connection."""
        if self._request_map.is_used and not self.is_sdam:
            request = self._request_map.current()
            held = None if request is None else self._held_by(request)
            # The greenlet that has the turn waits for no other one: it makes
            # an operation within an operation, to fetch a key for encryption.
            if held is not None and held.user is not getcurrent():
                return _Turn(held, handler)
        return super().checkout(handler)

    def plain_checkout(self, handler: Any) -> Any:
        """Check out as without a request."""
        return super().checkout(handler)

    def _held_by(self, request: Request) -> HeldConnection:
        bound = request.holdings.held
        held = bound.get(self)
        if held is None:
            held = bound[self] = HeldConnection(self)
        assert isinstance(held, HeldConnection)
        return held

    def _wait_in_line(self, checkout_started_time: float) -> None:
        if getcurrent() not in self.replacing:
            super()._wait_in_line(checkout_started_time)

    def _raise_wait_queue_timeout(self, checkout_started_time: float) -> NoReturn:
        try:
            super()._raise_wait_queue_timeout(checkout_started_time)
        except WaitQueueTimeoutError as exc:
            if not self.held:
                raise
            raise WaitQueueTimeoutError(
                f"{exc}. Socket requests hold {len(self.held)} of the pool's connections: end "
                "them sooner, raise maxPoolSize, or let tasks share one with "
                "start_request(shared=True)."
            ) from None


def member_for(
    members: list[Any], description: TopologyDescription, selector: Any, custom_selector: Any
) -> Any:
    """Return the first of a request's *members* that will do for an operation.

    Which one is the nearest does not count here: that changes all the time.
    Members that went away are struck off the list, and do not come back.
    """
    known = description.server_descriptions()
    members[:] = [each for each in members if each in known and known[each].is_server_type_known]
    if not members:
        return None
    suitable: list[Any] = []

    def note(servers: list[Any]) -> list[Any]:
        suitable.extend(servers if custom_selector is None else custom_selector(servers))
        return suitable

    # PyMongo asks a custom selector before it looks at latencies.
    found = description.apply_selector(selector, None, custom_selector=note)
    addresses = {each.address for each in suitable or found}
    return next((each for each in members if each in addresses), None)
