"""The standard library's own clients, loaded green, against a Tornado server in the same loop.

One that blocked would wait for ever: nobody could answer.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import time

import pytest
import tornado.web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from motorlike import green
from tests.integration.support import run

WAIT_SECONDS = 0.2
AT_A_TIME = 50


class SlowHandler(tornado.web.RequestHandler):
    async def get(self, name: str) -> None:
        await asyncio.sleep(WAIT_SECONDS)
        self.write(f"hello {name}")


def test_urllib_visits_50_pages_at_a_time() -> None:
    request, _ = green.load("urllib.request", "http.client")

    async def main() -> None:
        server = HTTPServer(tornado.web.Application([(r"/(\w+)", SlowHandler)]))
        bound, port = bind_unused_port()
        server.add_sockets([bound])
        # No proxy that the environment names.
        opener = request.build_opener(request.ProxyHandler({}))

        def visit(name: str) -> bytes:
            with opener.open(f"http://127.0.0.1:{port}/{name}", timeout=20) as answer:
                return bytes(answer.read())

        started = time.monotonic()
        names = [f"name{n}" for n in range(AT_A_TIME)]
        pages = await asyncio.gather(*(green.spawn(visit, name) for name in names))
        assert time.monotonic() - started < WAIT_SECONDS * AT_A_TIME / 2
        assert pages == [f"hello {name}".encode() for name in names]
        server.stop()
        await server.close_all_connections()

    run(main())


@pytest.mark.parametrize("name", ["http.client", "smtplib", "ftplib", "imaplib", "poplib"])
def test_the_application_s_own_client_is_untouched(name: str) -> None:
    own = importlib.import_module(name)
    loaded = green.load(name)
    assert loaded is not own
    assert own.socket is socket
    assert loaded.socket is not socket
