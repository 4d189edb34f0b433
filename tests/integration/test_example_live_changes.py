"""The WebSocket example: every browser sees every change, and none is in another's way."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pymongo
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.websocket import WebSocketClientConnection, websocket_connect

from motorlike import MotorClient
from motorlike.green.hub import current_hub
from motorlike.testing.mongod import Deployment
from tests.integration.support import eventually, run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "live_changes.py"
# The loop's debug mode, which is part of dev mode, tells of a busy machine.
SLOW_CALLBACK = re.compile(r"^Executing <.* took [\d.]+ seconds\n", re.MULTILINE)

Story = Callable[[Any, Any, str], Coroutine[Any, Any, None]]


@pytest.fixture
def example() -> Any:
    spec = importlib.util.spec_from_file_location("live_changes_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def uri(replica_set: Deployment) -> Iterator[str]:
    with pymongo.MongoClient(replica_set.uri, w="majority") as client:
        client.drop_database("live_changes")
        client.live_changes.create_collection("items")
        yield replica_set.uri
        client.drop_database("live_changes")


def tell(example: Any, uri: str, story: Story) -> None:
    """Run *story* with the example's module, its feed and its URL while it serves."""

    async def main() -> None:
        async with MotorClient(uri) as client:
            items = client.live_changes.items
            async with items.watch(max_await_time_ms=100) as stream:
                feed = example.Feed(items, stream)
                async with example.serving(feed) as url, following(feed):
                    await story(example, feed, url)
                assert feed.browsers == set()
        # The cancelled stream's greenlet still tells the server to drop its
        # cursor, which nobody waits for.
        await eventually(lambda: current_hub().suspended == 0)

    run(main())


@asynccontextmanager
async def following(feed: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.follow())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[WebSocketClientConnection]:
    """A WebSocket for the block, which is really closed after it."""
    browser = await websocket_connect(url.replace("http", "ws", 1) + "/changes")
    stream = browser.protocol.stream
    try:
        yield browser
    finally:
        browser.close()
        await eventually(stream.closed)


async def post(url: str, text: str) -> int:
    http = AsyncHTTPClient()
    answer = await http.fetch(f"{url}/items", method="POST", body=urlencode({"text": text}))
    return answer.code


async def texts(browser: WebSocketClientConnection, count: int) -> list[str]:
    changes = [json.loads(await browser.read_message() or "null") for _ in range(count)]
    assert {change["operationType"] for change in changes} == {"insert"}
    return [change["fullDocument"]["text"] for change in changes]


def test_two_browsers_see_what_is_inserted_in_order(example: Any, uri: str) -> None:
    async def story(example: Any, feed: Any, url: str) -> None:
        expected = [f"<{i}> ö" for i in range(20)]
        async with connected(url) as one, connected(url) as other:
            for text in expected:
                assert await post(url, text) == 201
            assert await texts(one, 20) == expected
            assert await texts(other, 20) == expected

    tell(example, uri, story)


def test_page_is_served_and_bad_forms_are_refused(example: Any, uri: str) -> None:
    async def story(example: Any, feed: Any, url: str) -> None:
        page = await AsyncHTTPClient().fetch(url)
        assert b"new WebSocket" in page.body
        for text in ("", "x" * 201):
            with pytest.raises(HTTPClientError, match="400"):
                await post(url, text)
        assert await feed.items.count_documents({}) == 0

    tell(example, uri, story)


def test_browser_that_disconnects_leaves_nothing(example: Any, uri: str) -> None:
    async def story(example: Any, feed: Any, url: str) -> None:
        async with connected(url) as staying:
            async with connected(url):
                await eventually(lambda: len(feed.browsers) == 2)
                senders = [browser.sender for browser in feed.browsers]
            await eventually(lambda: len(feed.browsers) == 1)
            await eventually(lambda: sum(sender.done() for sender in senders) == 1)
            await post(url, "still here")
            assert await texts(staying, 1) == ["still here"]

    tell(example, uri, story)


def test_feed_goes_on_after_its_cursor_was_killed(example: Any, uri: str) -> None:
    async def story(example: Any, feed: Any, url: str) -> None:
        async with connected(url) as browser:
            for i in range(5):  # While it waits, or between two waits.
                await post(url, f"before {i}")
                assert await texts(browser, 1) == [f"before {i}"]
                cursor = feed.stream.delegate._cursor.cursor_id
                await feed.items.database.command("killCursors", "items", cursors=[cursor])
                await post(url, f"after {i}")
                assert await texts(browser, 1) == [f"after {i}"]
                assert feed.stream.delegate._cursor.cursor_id != cursor

    tell(example, uri, story)


def test_feed_goes_on_after_its_collection_was_dropped(example: Any, uri: str) -> None:
    async def story(example: Any, feed: Any, url: str) -> None:
        async with connected(url) as browser:
            await feed.items.drop()
            await post(url, "anew")
            changes = [json.loads(await browser.read_message() or "null") for _ in range(3)]
        kinds = [change["operationType"] for change in changes]
        assert kinds == ["drop", "invalidate", "insert"]

    tell(example, uri, story)


def test_slow_browser_is_sent_away_and_holds_up_nobody(
    example: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "QUEUE_SIZE", 3)

    async def story(example: Any, feed: Any, url: str) -> None:
        async with connected(url) as fast, connected(url) as slow:
            await eventually(lambda: len(feed.browsers) == 2)
            address = slow.protocol.stream.socket.getsockname()
            (there,) = (
                browser
                for browser in feed.browsers
                if browser.ws_connection.stream.socket.getpeername() == address
            )
            # As a full socket does it: what is written never leaves.
            stuck: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            monkeypatch.setattr(there, "write_message", lambda text: stuck)
            for i in range(5):  # One is being written, three wait, the fifth is too many.
                await post(url, str(i))
                assert await texts(fast, 1) == [str(i)]
            assert await slow.read_message() is None
            assert slow.close_code == example.TOO_SLOW
            assert slow.close_reason == "more than 3 changes behind"
            await eventually(lambda: len(feed.browsers) == 1)
            await eventually(there.sender.cancelled)

    tell(example, uri, story)


def test_browser_that_reads_nothing_is_cut_off(
    example: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "QUEUE_SIZE", 3)

    async def story(example: Any, feed: Any, url: str) -> None:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as mute:
            mute.sendall(
                b"GET /changes HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            await eventually(lambda: len(feed.browsers) == 1)
            for _ in range(8):  # 16 MB each: more than the system's buffers take.
                feed._publish("x" * (16 << 20))
                await asyncio.sleep(0)
            # Tornado waits five seconds for an answer to its close frame.
            await eventually(lambda: not feed.browsers, 20)

    tell(example, uri, story)


def test_stopping_tells_the_browsers(example: Any, uri: str) -> None:
    async def story(example: Any, feed: Any, url: str) -> None:
        async with connected(url) as browser:
            await eventually(lambda: len(feed.browsers) == 1)
            await asyncio.gather(feed.stop(), browser.read_message())
            assert browser.close_code == example.GOING_AWAY
            assert feed.browsers == set()

    tell(example, uri, story)


@pytest.mark.parametrize("is_connected", [False, True])
def test_interrupt_ends_it_cleanly(uri: str, is_connected: bool) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", str(EXAMPLE), uri, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    async def visit(url: str) -> None:
        async with connected(url) as browser:
            await post(url, "hello")
            assert await texts(browser, 1) == ["hello"]
            process.send_signal(signal.SIGINT)
            assert await browser.read_message() is None
            assert browser.close_code == 1001

    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[1]
            if is_connected:
                asyncio.run(asyncio.wait_for(visit(url), 30))
            else:
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (SLOW_CALLBACK.sub("", errors), process.returncode) == ("", 0)
