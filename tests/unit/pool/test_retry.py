"""`retry`: tenacity, sleeping green."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from motorlike import green
from motorlike.errors import NotInGreenlet
from motorlike.pool import retry
from tests.unit.pool.things import Broken, Connection, Server, main, run

tenacity = pytest.importorskip("tenacity")

AT_ONCE = tenacity.wait_none()


class Flaky:
    """Fails as often as it is told to."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or Broken("try again")
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


@main
async def test_the_bare_decorator_tries_again_and_lets_the_loop_run_meanwhile() -> None:
    flaky = Flaky(2)

    @retry
    def call() -> int:
        """What it does."""
        return flaky()

    assert (call.__name__, call.__doc__) == ("call", "What it does.")
    calling, ticks = green.spawn(call), 0
    while not calling.done():
        ticks += 1
        await asyncio.sleep(0.001)
    assert await calling == 3
    assert ticks > 1


@main
async def test_the_decorator_with_arguments_says_when_and_how_often() -> None:
    flaky = Flaky(5, KeyError("no"))

    @retry(on=KeyError, attempts=3, wait=AT_ONCE)
    def call() -> int:
        return flaky()

    with pytest.raises(KeyError, match="no"):
        await green.spawn(call)
    assert flaky.calls == 3
    assert await green.spawn(call) == 6


@main
async def test_coroutine_functions_are_retried_too() -> None:
    flaky = Flaky(2)

    @retry(wait=AT_ONCE)
    async def call() -> int:
        await asyncio.sleep(0)
        return flaky()

    assert await call() == 3


@main
async def test_other_errors_and_cancels_pass_at_once() -> None:
    for error in (ValueError(), asyncio.CancelledError(), KeyboardInterrupt()):
        flaky = Flaky(1, error)
        with pytest.raises(type(error)):
            retry(wait=AT_ONCE)(flaky)()
        assert flaky.calls == 1


@main
async def test_a_cancel_ends_the_sleep_and_the_retrying() -> None:
    flaky = Flaky(9)
    calling = green.spawn(retry(wait=tenacity.wait_fixed(60))(flaky))
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert flaky.calls == 1


@main
async def test_each_attempt_gets_a_connection_that_works() -> None:
    server, seen = Server(), []

    async with server.pool(2) as pool:

        @retry(wait=AT_ONCE)
        def call() -> int:
            with pool.reserve() as connection:
                seen.append(connection.id)
                if len(seen) < 3:
                    raise Broken
                return connection.use()

        assert await green.spawn(call) == seen[2]
        assert len(set(seen)) == 3


@main
async def test_on_the_loop_it_refuses_to_sleep() -> None:
    with pytest.raises(NotInGreenlet):
        retry(Flaky(1))()


def test_without_a_loop_it_simply_sleeps() -> None:
    started = time.monotonic()
    assert retry(wait=tenacity.wait_fixed(0.01))(Flaky(1))() == 2
    assert time.monotonic() - started >= 0.01


def test_one_decorator_serves_functions_of_both_kinds() -> None:
    decorate = retry(wait=AT_ONCE)

    async def use() -> int:
        return Connection(Server(), 7).id

    assert decorate(Flaky(1))() == 2
    assert run(decorate(use)()) == 7
    assert decorate(Flaky(2))() == 3


def test_without_tenacity_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(ImportError, match=r"motorlike\[retry\]"):
        retry(Flaky(0))
