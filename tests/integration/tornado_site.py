"""A Tornado application on a port of its own, and visits to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import tornado.web
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

__all__ = ["Visit", "visiting"]

Visit = Callable[..., Awaitable[HTTPResponse]]


@asynccontextmanager
async def visiting(
    application: tornado.web.Application, at_a_time: int = 100
) -> AsyncIterator[Visit]:
    """Serve *application*; yield what fetches a path of it, as `AsyncHTTPClient.fetch` does."""
    server = HTTPServer(application)
    bound, port = bind_unused_port()
    server.add_sockets([bound])
    # Tornado's 20 s are few for hundreds of visits on a busy machine in debug mode.
    patience = {"connect_timeout": 60, "request_timeout": 60}
    http = AsyncHTTPClient(force_instance=True, max_clients=at_a_time, defaults=patience)

    def visit(path: str, **options: Any) -> Awaitable[HTTPResponse]:
        return http.fetch(f"http://127.0.0.1:{port}{path}", **options)

    try:
        yield visit
    finally:
        http.close()
        server.stop()
        await server.close_all_connections()
