"""Fake libraries that block, and a probe that tells where they were called.

A fake blocks until the loop has run meanwhile, so a call on the loop's own
thread fails at once instead of passing slowly.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from motorlike import green


class Probe:
    """What the fake libraries report to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.loop_thread = 0

    def block(self, name: str) -> None:
        """Block until the loop has run, as it can on another thread only."""
        assert threading.get_ident() != self.loop_thread, f"{name} ran on the loop's thread"
        self.calls.append(name)
        ticked = threading.Event()
        assert self.loop is not None
        self.loop.call_soon_threadsafe(ticked.set)
        assert ticked.wait(10), f"the loop stood still during {name}"

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run *function* in a child greenlet and return its result."""

        async def main() -> Any:
            self.loop = asyncio.get_running_loop()
            self.loop_thread = threading.get_ident()
            return await green.spawn(function, *args)

        return asyncio.run(main())


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    probe = Probe()
    monkeypatch.setitem(sys.modules, "blocking_probe", probe)  # type: ignore[arg-type]
    return probe


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put fake packages on `sys.path`: ``install("dns", resolver="...")``."""
    tops: list[str] = []
    before = dict(sys.modules)

    def install(package: str, source: str = "", **submodules: str) -> None:
        folder = tmp_path / package
        folder.mkdir()
        for name, text in {"__init__": source, **submodules}.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(text))
        tops.append(package)
        for name in list(sys.modules):
            if name.partition(".")[0] == package:
                del sys.modules[name]
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    for name in list(sys.modules):
        if name.partition(".")[0] in tops:
            del sys.modules[name]
    sys.modules.update({n: m for n, m in before.items() if n.partition(".")[0] in tops})


class Connection:
    """A connection that records commands and answers from a script."""

    address = ("db.example.com", 27017)
    auth_ctx = None
    oidc_token_gen_id: int | None = None

    def __init__(self, *replies: Any) -> None:
        self.commands: list[Any] = []
        self._replies = list(replies)

    def command(self, database: str, command: Any, **options: Any) -> Any:
        self.commands.append(command)
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


@pytest.fixture
def connect() -> type[Connection]:
    """Make a connection that answers from a script: ``connect(reply, ...)``."""
    return Connection
