"""Operations that do not begin before it is their turn for a connection.

Where a pool is full, an operation would begin only to stand in its line, on a
stack of its own. If it is known which pool that will be, and nothing limits
how long it may stand there, a `QueuedOperation` takes its place instead: ten
thousand operations at a time need not have ten thousand stacks.

Rule: what has not begun stands where it would stand if it had. Whenever that
is not certain, the operation begins at once.
"""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from pymongo import _csot
from pymongo.read_preferences import Primary

from motorlike.driver import loader
from motorlike.driver.pool import FairPool
from motorlike.green.hub import GreenFuture, Hub

if TYPE_CHECKING:
    from motorlike.driver.client import MongoClient
    from motorlike.green.worker import Job

__all__ = ["QueuedOperation", "Turns"]

_PRIMARY = Primary().mode

_client_session = loader.load("pymongo.synchronous.client_session")
# What `ClientSession.bind` sets. Older versions of PyMongo have no such method.
_BOUND_SESSION: ContextVar[Any] = getattr(  # `Any`: a session, or None
    _client_session, "_SESSION", ContextVar("no session", default=None)
)


class Turns:
    """The lines in which one client's operations may stand before they begin."""

    def __init__(self, client: MongoClient) -> None:
        self._client = client
        self._requests = client.requests
        self._only_server = client.only_server
        # Their deadlines run from the call on.
        self._is_certain = client.options.timeout is None
        self._pool: FairPool | None = None

    def has_line(self) -> bool:
        """Whether writes, and reads from the primary, have to stand in a line."""
        topology: Any = self._client._topology  # None until a mongodb+srv:// name is looked up
        if topology is None:
            return False
        server = self._only_server.look_up(topology)
        pool = self._pool = None if server is None else server.pool
        return isinstance(pool, FairPool) and pool.has_line

    # `Any`: PyMongo's collection, and the result.
    def enlist(self, hub: Hub, job: Job, collection: Any) -> GreenFuture[Any] | None:
        """Let an operation stand in the line; ``None`` if it has to begin at once.

        Args:
            hub: Where it will run.
            job: The operation, which names no session and no read preference.
            collection: What it is an operation of.
        """
        pool = self._pool
        if (
            pool is None
            or not self._is_certain
            or self._requests.is_used
            or pool.opts.wait_queue_timeout
            or _csot.get_timeout() is not None
            or _BOUND_SESSION.get() is not None
            or not (
                collection.read_preference.mode == _PRIMARY or self._only_server.takes_all_reads
            )
        ):
            return None
        pool.growth.note_wait(hub)
        return QueuedOperation(hub, job, pool).future


class QueuedFuture(GreenFuture[Any]):
    """A `QueuedOperation`'s Future. Cancelled in time, it frees the place in the line."""

    # While that stands in line.
    operation: QueuedOperation | None = None

    # `Any`: as asyncio.Future.cancel declares it.
    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the operation, and return whether it was still to run or running."""
        if not super().cancel(msg):
            return False
        if self.operation is not None:
            self.operation.leave_line()
        return True


class QueuedOperation:
    """An operation with a Future and a place in a pool's line, and no greenlet yet.

    It stands there as a `Waiter` would. Being woken is being begun, in a copy
    of the context in which it was made.

    Attributes:
        future: Of its result. Once that is cancelled, it never begins.
    """

    __slots__ = ("_context", "_hub", "_job", "_pool", "_worker", "future", "is_woken", "number")

    def __init__(self, hub: Hub, job: Job, pool: FairPool) -> None:
        self._hub = hub
        self._job = job
        self._pool = pool
        self._context = copy_context()
        self.future = QueuedFuture(loop=hub.loop)
        # The hub looks here for the greenlet of a waiter.
        self._worker = None
        # Its place in the line, once it has one.
        self.number = -1
        self.stand_in_line()

    def stand_in_line(self) -> None:
        """Join the pool's line; where it has stood there before, at its old place."""
        self.is_woken = False
        self.future.operation = self
        # Counted as PyMongo counts its waiters, until it is woken.
        self._pool.operation_count += 1
        self._pool.size_cond.enlist(self)

    def leave_line(self) -> None:
        """Give the place in the line up, before being woken."""
        self._pool.size_cond.withdraw(self)
        self._pool.operation_count -= 1
        self.future.operation = None

    def wake(self) -> bool:
        """Let the hub begin it soon, and return whether it will: see `Waiter.wake`."""
        self._pool.operation_count -= 1
        # Without it, no cycle.
        self.future.operation = None
        if self._hub.is_closed:
            self._end_with_loop()
            return False
        self.is_woken = True
        self._hub.queue(self)
        return True

    def _end_with_loop(self) -> None:
        if not self._hub.loop.is_closed():
            self.future.cancel()

    def begin(self) -> None:
        """Run it until it ends or first waits, if there is room. Called by the hub."""
        pool = self._pool
        if self._hub.is_closed:
            self._end_with_loop()
        elif not self.future.done():
            if pool.has_room:
                self._run(pool)
            else:
                # The limit sank, or more were woken than it rose by: as in
                # `FairPool._wait_once`.
                pool.size_cond.strike_off(is_served=True)
                self.stand_in_line()
            return
        pool.size_cond.strike_off(is_served=False)

    def _run(self, pool: FairPool) -> None:
        # Where that is closed, its server has gone, and the operation finds another; or the
        # client has gone to another loop: what it left on this one must not run there.
        job: Job = (_check_out, (pool,), {}) if pool.is_left else self._job
        pool.is_admitting = True
        try:
            self._hub.start(self._context, self.future, job)
        finally:
            # What it did not take is for the next in line.
            is_served = not pool.is_admitting
            pool.is_admitting = False
            pool.size_cond.strike_off(is_served=is_served)


def _check_out(pool: FairPool) -> None:
    with pool.checkout():
        pass
