"""Shows the changes of a collection in browsers, as they happen, over WebSockets.

Change streams need a replica set. Start one, give its address to this
program, and open the page that it names in two windows:

    python -m motorlike server --replica-set 1
    python examples/live_changes.py "mongodb://127.0.0.1:27017/?replicaSet=motorlike"

All browsers share one change stream, so a thousand of them cost the database
as much as one.

A browser that is too slow is sent away with close code 4008, rather than
held in memory without limit; it connects again.

Rule: whoever publishes a change waits for no browser.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bson import json_util
from pymongo.errors import OperationFailure
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from motorlike import MotorChangeStream, MotorClient, MotorCollection

Document = dict[str, Any]  # Any: as BSON

# How many changes may wait for one browser.
QUEUE_SIZE = 1000
# Codes from 4000 on are the application's own (RFC 6455, 7.4.2).
GOING_AWAY, TOO_SLOW = 1001, 4008
# One of the server's error codes.
CURSOR_KILLED = 237

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Live changes</title>
<h1>Live changes</h1>
<form action="/items" method="post">
<input name="text" required maxlength="200" autofocus> <button>Insert</button>
</form>
<p id="state">connecting
<ol id="changes" reversed></ol>
<script>
const state = document.getElementById("state");
const changes = document.getElementById("changes");

function connect() {
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/changes");
  socket.onopen = () => { state.textContent = "connected"; };
  socket.onmessage = (message) => {
    const change = JSON.parse(message.data);
    const line = document.createElement("li");
    // As text: a document may hold HTML.
    line.textContent = change.operationType + " " + JSON.stringify(change.fullDocument ?? change.documentKey);
    changes.prepend(line);
  };
  socket.onclose = (event) => {
    state.textContent = `closed (${event.code} ${event.reason}), trying again`;
    setTimeout(connect, 1000);
  };
}

document.querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  const form = event.target;
  await fetch(form.action, {method: "POST", body: new URLSearchParams(new FormData(form))});
  form.reset();
};
connect();
</script>
</html>
"""  # noqa: E501 (a line of JavaScript)


class Feed:
    """One change stream, and the browsers that are told of it."""

    def __init__(
        self, items: MotorCollection[Document], stream: MotorChangeStream[Document]
    ) -> None:
        self.items = items
        self.stream = stream
        self.browsers: set[Browser] = set()
        self.is_stopping = False

    async def follow(self) -> None:
        """Publish changes until cancelled.

        The stream resumes by itself after lost connections and elections. Errors
        that it cannot resume from are for whoever runs this program.
        """
        while True:
            try:
                async for change in self.stream:
                    self._publish(json_util.dumps(change))
            except OperationFailure as exc:
                # Somebody killed the cursor while it waited; between two waits
                # the stream would have resumed.
                if exc.code != CURSOR_KILLED:
                    raise
            # Either that, or the collection was dropped or renamed, which ends its
            # stream. The next one needs no closing: cancelling its reader closes it.
            self.stream = self.items.watch(start_after=self.stream.resume_token)

    def _publish(self, text: str) -> None:
        for browser in list(self.browsers):
            browser.tell(text)

    async def stop(self) -> None:
        """Send all browsers away, and wait until they are gone.

        Tornado cuts off those that do not answer within five seconds.
        """
        self.is_stopping = True
        for browser in list(self.browsers):
            browser.close(GOING_AWAY, "the server stops")
        while self.browsers:
            await next(iter(self.browsers)).gone.wait()


class Browser(WebSocketHandler):
    """A browser that is connected, with the changes that wait for it."""

    sender: asyncio.Task[None]

    def initialize(self, feed: Feed) -> None:
        self.feed = feed
        self.waiting: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)
        self.gone = asyncio.Event()

    def open(self, *args: str, **kwargs: str) -> None:
        self.feed.browsers.add(self)
        self.sender = asyncio.create_task(self._send())
        if self.feed.is_stopping:
            self.close(GOING_AWAY, "the server stops")

    def tell(self, text: str) -> None:
        """Send *text* when those before it are sent; too many, and the connection ends."""
        try:
            self.waiting.put_nowait(text)
        except asyncio.QueueFull:
            # Again and again until it is gone; only the first time counts.
            self.close(TOO_SLOW, f"more than {QUEUE_SIZE} changes behind")

    async def _send(self) -> None:
        with suppress(WebSocketClosedError):
            while True:
                text = await self.waiting.get()
                # Waits until the text is out of this process's hands.
                await self.write_message(text)

    def on_message(self, message: str | bytes) -> None:
        """Ignore it: browsers only listen here."""

    def on_close(self) -> None:
        # A connection may also be lost before it was open.
        if self in self.feed.browsers:
            self.feed.browsers.remove(self)
            self.sender.cancel()
            self.gone.set()


class Home(RequestHandler):
    """The page that shows the changes."""

    def get(self) -> None:
        self.write(PAGE)


class Items(RequestHandler):
    """Inserts what the form says."""

    def initialize(self, feed: Feed) -> None:
        self.items = feed.items

    async def post(self) -> None:
        text = self.get_body_argument("text")
        if not 0 < len(text) <= 200:
            raise HTTPError(400, reason="text must have 1 to 200 characters")
        result = await self.items.insert_one({"text": text})
        self.set_status(201)
        self.write({"inserted": str(result.inserted_id)})


@asynccontextmanager
async def serving(feed: Feed, port: int = 0) -> AsyncIterator[str]:
    """Serve the page, its form and its WebSockets for the block; yield their URL."""
    handlers = [
        (r"/", Home, {}),
        (r"/items", Items, {"feed": feed}),
        (r"/changes", Browser, {"feed": feed}),
    ]
    # Pings find out about browsers that vanished without a word.
    server = HTTPServer(Application(handlers, websocket_ping_interval=30))
    (socket,) = bind_sockets(port, "127.0.0.1")
    server.add_sockets([socket])
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.stop()
        await feed.stop()
        await server.close_all_connections()


async def main(uri: str, port: int) -> None:
    """Serve until cancelled, which Ctrl-C does."""
    async with MotorClient[Document](uri) as client:
        items = client.live_changes.items
        # First the stream: no change is missed after the page is there.
        async with items.watch() as stream:
            feed = Feed(items, stream)
            async with serving(feed, port) as url:
                print(f"Open {url} in a browser; Ctrl-C ends it.", flush=True)
                await feed.follow()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show the changes of a collection in browsers.")
    parser.add_argument("uri", help="of a replica set; its database 'live_changes' is used")
    parser.add_argument("--port", type=int, default=8888, help="default: %(default)s")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(main(arguments.uri, arguments.port))
