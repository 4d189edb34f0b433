"""What the GridFS tests share: an HTTP client that takes its time, and what that costs."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from typing import Any

from motorlike import MotorClient
from tests.integration.support import assert_pool_is_at_rest, eventually, pool_of

MB = 1 << 20


async def end_of_background_work(client: MotorClient) -> None:
    """Wait until what was left of cursors is killed; nothing else may be under way."""
    await eventually(lambda: pool_of(client).active_sockets == 0)
    assert_pool_is_at_rest(client)


async def read_slowly(port: int, path: str, pause_after: int, while_paused: Any) -> int:
    """Get a file through a small window, with a pause; return how many bytes came."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(connection, request.encode())
        received = -1
        while data := await loop.sock_recv(connection, 64 * 1024):
            if received < 0:
                received = -len(data.partition(b"\r\n\r\n")[0]) - 4
            received += len(data)
            if pause_after and received >= pause_after:
                pause_after = 0
                await while_paused()
        return received


async def growth_while_a_reader_is_slow(port: int) -> tuple[int, int]:
    """Get /files/f, of 64 MB; return its size, and by how much the memory in use grew."""
    peaks: list[int] = []

    async def pause() -> None:
        # Long enough for a server that does not wait to have read it all.
        await asyncio.sleep(1)
        peaks.append(tracemalloc.get_traced_memory()[1])

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        size = await read_slowly(port, "/files/f", MB, pause)
        peaks.append(tracemalloc.get_traced_memory()[1])
        return size, max(peaks) - before
    finally:
        tracemalloc.stop()
