"""A TCP proxy before a server, on the test's own loop, that can misbehave.

Rule: it behaves until a test tells it not to.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Proxy"]


class Proxy:
    """Forwards connections to *address*: ``async with Proxy(address) as proxy``.

    Attributes:
        is_refusing: New connections are closed at once.
        is_silent: No byte passes: connections are accepted and never answered.
        delay_seconds: How long each new connection waits before bytes pass.
        waiting: Connections that wait so now, and the most there were.
        accepted: How many connections there have been.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.is_refusing = False
        self.is_silent = False
        self.delay_seconds = 0.0
        self.waiting = 0
        self.most_waiting = 0
        self.accepted = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def uri(self) -> str:
        host, port = self._server.sockets[0].getsockname()
        return f"mongodb://{host}:{port}/"

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        self.is_refusing = True
        # Transports open and close their sockets on the loop's next turns.
        await asyncio.sleep(0.01)
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0.01)

    def cut(self) -> None:
        """Break all connections that there are."""
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.is_refusing:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.delay_seconds:
                await self._hold_back()
            there, back = await asyncio.open_connection(*self.address)
            self._writers.add(back)
            try:
                await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
            finally:
                back.transport.abort()
                self._writers.discard(back)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _hold_back(self) -> None:
        self.waiting += 1
        self.most_waiting = max(self.waiting, self.most_waiting)
        try:
            await asyncio.sleep(self.delay_seconds)
        finally:
            self.waiting -= 1

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if self.is_silent:
                await asyncio.Event().wait()
            target.write(data)
            await target.drain()
        target.transport.abort()
