"""WSGI applications on Tornado's server, each request in a greenlet of its own.

Tornado's own container runs them on the event loop or in threads. This one
takes its place, for example behind `tornado.web.FallbackHandler`.

Rule: the whole of a request runs in one greenlet, up to the `close` of its
response: that is where Django ends a request and gives up its connections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tornado.httputil import HTTPServerRequest
from tornado.log import app_log
from tornado.wsgi import WSGIContainer

from motorlike import green

__all__ = ["GreenWSGIContainer"]


@dataclass
class _Answer:
    """A whole response, as `start_response` and the application gave it."""

    status: str = "500 Internal Server Error"
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Note what an application says before its body: a `start_response`."""
        # Django's cookies begin with a blank, which Tornado refuses in a header.
        self.status, self.headers = status, [(name, value.strip()) for name, value in headers]
        return self.body.append

    def replay(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Give the same answer again: a WSGI application that needs no time."""
        start_response(self.status, self.headers)
        return self.body


class GreenWSGIContainer(WSGIContainer):
    """A `tornado.wsgi.WSGIContainer` whose application may make green calls."""

    async def handle_request(self, request: HTTPServerRequest) -> None:
        """Run the application in a greenlet, and send what it answers."""
        try:
            answer = await green.spawn(_ask, self.wsgi_application, self.environ(request))
        except Exception:  # noqa: BLE001 - logged; and the client waits for an answer
            app_log.exception("%s %s failed", request.method, request.uri)
            answer = _Answer()
        await WSGIContainer(answer.replay).handle_request(request)


def _ask(application: WSGIApplication, environ: WSGIEnvironment) -> _Answer:
    answer = _Answer()
    chunks = application(environ, answer.start)
    try:
        answer.body.extend(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    return answer
