"""A request pool over scripted connections, and operations that use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pymongo.pool_options import PoolOptions

from motorlike import green
from motorlike.driver.requests import RequestPool
from motorlike.request_map import RequestMap


class CancelContext:
    def cancel(self) -> None:
        pass


class Connection:
    """What a pool does with a connection, without a socket."""

    def __init__(self, pool: RequestPool, id_: int) -> None:
        self.id = id_
        self.generation = pool.gen.get_overall()
        self.service_id = None
        self.cancel_context = CancelContext()
        self.closed = self.active = self.pinned_txn = self.pinned_cursor = False
        self.idle_seconds = 0.0
        self.is_dead = False
        self.checked_in = 0

    @property
    def last_checkin_time(self) -> float:
        return time.monotonic() - self.idle_seconds

    def idle_time_seconds(self) -> float:
        return self.idle_seconds

    def conn_closed(self) -> bool:
        return self.is_dead

    def close_conn(self, reason: object) -> None:
        self.closed = True

    def update_last_checkin_time(self) -> None:
        self.checked_in += 1
        self.idle_seconds = 0.0

    def update_is_writable(self, is_writable: bool) -> None:
        pass


class Pool(RequestPool):
    """A request pool whose connections are scripted."""

    def __init__(self, **options: Any) -> None:
        requests = RequestMap()
        super().__init__(("server", 1), PoolOptions(**options), requests=requests)
        self.map = requests
        self.made: list[Connection] = []
        self.error: Exception | None = None
        self.connecting: Callable[[], None] = lambda: None
        self.ready()

    def connect(self, handler: Any = None) -> Any:
        self.connecting()
        if self.error is not None:
            raise self.error
        self.made.append(Connection(self, len(self.made)))
        return self.made[-1]

    def use(self, wait: Callable[[], object] = lambda: green.sleep(0)) -> int:
        with self.checkout() as connection:
            number: int = connection.id
            wait()
        return number

    def assert_at_rest(self) -> None:
        assert (self.requests, self.active_sockets) == (0, 0)
        if hasattr(self, "_restore_counters"):
            # PyMongo 4.18 does not count a failed check-out off.
            assert self.operation_count == 0
        assert (self._pending, self.held, self.replacing) == (0, set(), set())
        assert all(each.closed for each in self.made if each not in self.conns)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


def spawn(pool: Pool, *args: Any) -> asyncio.Future[int]:
    """Use *pool* as an operation of the running task."""
    return green.hub.current_hub().spawn(pool.use, args, {}, asyncio.current_task())
