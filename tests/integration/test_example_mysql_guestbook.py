"""The guest book on a real MariaDB."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from tests.integration.servers import MariaDB
from tests.integration.support import run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mysql_guestbook.py"

Ask = Callable[..., Coroutine[Any, Any, HTTPResponse]]


@pytest.fixture
def url(mariadb: MariaDB) -> Iterator[str]:
    mariadb.query("CREATE DATABASE guestbook")
    address = f"{mariadb.host}:{mariadb.port}"
    yield f"mysql://{mariadb.user}:{mariadb.password}@{address}/guestbook"
    mariadb.query("DROP DATABASE guestbook")


@pytest.fixture
def tell(url: str) -> Callable[..., None]:
    """Runs a story with a way to ask the guest book, while it serves."""
    spec = importlib.util.spec_from_file_location("mysql_guestbook_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    async def main(story: Callable[[Ask], Coroutine[Any, Any, None]], **options: Any) -> None:
        http = AsyncHTTPClient(force_instance=True, max_clients=100)
        async with example.serving(url, **options) as address:

            async def ask(**entry: str) -> HTTPResponse:
                sent = {"method": "POST", "body": urlencode(entry)} if entry else {}
                return await http.fetch(f"{address}/entries", raise_error=False, **sent)

            try:
                await story(ask)
            finally:
                http.close()

    return lambda story, **options: run(main(story, **options), timeout=60)


def test_guests_sign_and_read(tell: Callable[..., None]) -> None:
    async def story(ask: Ask) -> None:
        assert json.loads((await ask()).body) == {"entries": []}
        for count, text in enumerate(["Hello", "Καλημέρα"], start=1):
            assert json.loads((await ask(guest="Ada", text=text)).body) == {"entries": count}
        entries = json.loads((await ask()).body)["entries"]
        assert [(each["guest"], each["text"]) for each in entries] == [
            ("Ada", "Καλημέρα"),
            ("Ada", "Hello"),
        ]

    tell(story)


def test_what_is_refused_is_not_counted(tell: Callable[..., None]) -> None:
    async def story(ask: Ask) -> None:
        await ask(guest="Ada", text="Hello")
        assert (await ask(guest="Ada", text="Hello")).code == 409
        assert json.loads((await ask(guest="Ada", text="Goodbye")).body) == {"entries": 2}

    tell(story, pool_size=1)


def test_a_hundred_guests_sign_at_once(tell: Callable[..., None], mariadb: MariaDB) -> None:
    async def story(ask: Ask) -> None:
        entries = [{"guest": f"guest {n % 10}", "text": f"text {n % 90}"} for n in range(100)]
        answers = await asyncio.gather(*(ask(**entry) for entry in entries))
        signed = [json.loads(answer.body)["entries"] for answer in answers if answer.code == 200]
        assert [answer.code for answer in answers].count(409) == 10
        assert sorted(signed) == list(range(1, 91))
        assert mariadb.query("SELECT entries FROM guestbook.book") == ((90,),)
        assert mariadb.query("SELECT COUNT(*) FROM guestbook.entries") == ((90,),)

    tell(story, pool_size=10)


def test_it_runs_as_a_program(url: str) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", str(EXAMPLE), url, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().decode()
            assert line.startswith("Serving at http"), line
            address = line.removeprefix("Serving at ").partition(";")[0]
            with urllib.request.urlopen(address, timeout=30) as answer:
                assert json.loads(answer.read()) == {"entries": []}
        finally:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    # In dev mode asyncio reports slow steps, of which a busy machine has some.
    complaints = re.sub(r"(?m)^Executing <.*> took [\d.]+ seconds\n", "", errors.decode())
    assert (process.returncode, complaints) == (0, "")
