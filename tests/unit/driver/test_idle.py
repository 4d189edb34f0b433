"""Check-outs and check-ins of idle connections, beside PyMongo's own, on scripted connections."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from typing import Any

import pymongo
import pytest
from pymongo.pool_options import PoolOptions

from motorlike import green
from motorlike.driver import idle
from motorlike.driver import pool as driver_pool
from motorlike.driver.pool import FairPool
from tests.unit.driver.scripted_pool import Pool, run

ROUNDS = 200
STEPS = 40
PLACES = 4

_PyMongoPool: Any = FairPool.__mro__[1]


class Twin:
    """A pool and the check-outs from it, of which each step is the same for two twins."""

    def __init__(self, *, is_plain: bool) -> None:
        self.pool = Pool(max_pool_size=PLACES)
        assert self.pool._has_plain_accounts
        self.pool._has_plain_accounts = is_plain
        self.checkouts: list[Any] = []

    @property
    def out(self) -> list[Any]:
        return [each for each in self.pool.made if each.active]

    def check_out(self, _: random.Random) -> None:
        if self.pool.requests < PLACES and not self.pool.closed:
            checkout = self.pool.checkout()
            checkout.__enter__()
            self.checkouts.append(checkout)

    def check_in(self, chance: random.Random) -> None:
        if self.checkouts:
            checkout = self.checkouts.pop(chance.randrange(len(self.checkouts)))
            checkout.__exit__(*chance.choice([(None, None, None), (OSError, OSError(), None)]))

    def check_in_pinned(self, chance: random.Random) -> None:
        # As a cursor or a transaction does at its end.
        pinned = [each for each in self.out if each.pinned_txn or each.pinned_cursor]
        left = [each for each in pinned if each not in [c._conn for c in self.checkouts]]
        if left:
            self.pool.checkin(chance.choice(left))

    def pin(self, chance: random.Random) -> None:
        if self.out:
            connection = chance.choice(self.out)
            if chance.random() < 0.5:
                connection.pinned_cursor = True
            else:
                connection.pinned_txn = True

    def break_one(self, chance: random.Random) -> None:
        if self.out:
            chance.choice(self.out).closed = True

    def age_one(self, chance: random.Random) -> None:
        if self.pool.conns:
            connection: Any = chance.choice(list(self.pool.conns))
            connection.idle_seconds = 10
            connection.is_dead = chance.random() < 0.5

    def clear(self, _: random.Random) -> None:
        self.pool.reset()
        self.pool.ready()

    def pause(self, chance: random.Random) -> None:
        self.pool.reset()
        self.check_in(chance)
        self.pool.ready()

    def figures(self) -> dict[str, Any]:
        pool = self.pool
        names = "requests active_sockets operation_count ncursors ntxns _pending state"
        return {name: getattr(pool, name) for name in names.split()} | {
            "idle": [each.id for each in pool.conns],  # type: ignore[attr-defined]  # scripted
            "pinned": sorted(each.id for each in pool._pinned_sockets),
            "contexts": sum(each.cancel_context in pool.active_contexts for each in pool.made),
            "connections": [
                (each.active, each.closed, each.pinned_txn, each.pinned_cursor, each.checked_in)
                for each in pool.made
            ],
        }


STEPS_OF = ("check_out", "check_in", "check_in_pinned", "pin", "break_one", "age_one", "clear")
WEIGHTS = (8, 6, 2, 1, 1, 1, 1)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_figure_ends_up_as_pymongo_leaves_it(seed: int) -> None:
    def both() -> None:
        ours, theirs = Twin(is_plain=True), Twin(is_plain=False)
        schedule = random.Random(seed)
        for number in range(STEPS):
            [step] = schedule.choices((*STEPS_OF, "pause"), (*WEIGHTS, 1))
            chance = schedule.random()
            for twin in (ours, theirs):
                getattr(twin, step)(random.Random(chance))
            assert ours.figures() == theirs.figures(), (number, step)

    run(lambda: _spawned(both))


async def _spawned(function: Callable[[], None]) -> None:
    await green.spawn(function)


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("the other way was taken")


def test_a_sound_idle_connection_needs_nothing_of_pymongo(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        pool = Pool()
        pool.use()
        monkeypatch.setattr(_PyMongoPool, "_get_conn", refuse)
        monkeypatch.setattr(_PyMongoPool, "checkin", refuse)
        assert [pool.use() for _ in range(3)] == [0, 0, 0]
        pool.assert_at_rest()

    run(lambda: _spawned(check))


@pytest.mark.parametrize("option", [{"max_idle_time_seconds": 5}, {"load_balanced": True}], ids=str)
def test_without_plain_accounts_all_is_left_to_pymongo(
    option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_pool, "take_idle", refuse)
    monkeypatch.setattr(driver_pool, "put_back", refuse)

    def check() -> None:
        pool = Pool(**option)
        assert [pool.use() for _ in range(3)] == [0, 0, 0]
        pool.assert_at_rest()

    run(lambda: _spawned(check))


def hold_lock(pool: Pool) -> None:
    pool.lock.acquire()


def age(pool: Pool) -> None:
    for each in pool.made:
        each.idle_seconds = 1.1


def outdate(pool: Pool) -> None:
    pool.gen.inc(None)


def check_always(pool: Pool) -> None:
    pool._check_interval_seconds = 0


def check_never(pool: Pool) -> None:
    pool._check_interval_seconds = None  # type: ignore[assignment]  # PyMongo asks for it


def fork(pool: Pool) -> None:
    pool.pid = os.getpid() + 1


def pause(pool: Pool) -> None:
    pool.state = 1  # PAUSED, with its connections


def fill(pool: Pool) -> None:
    pool.max_pool_size = pool.requests


@pytest.mark.parametrize(
    "change", [hold_lock, age, outdate, check_always, check_never, fork, pause, fill]
)
def test_what_is_not_plain_is_left_to_pymongo_at_the_check_out(
    change: Callable[[Pool], None],
) -> None:
    def check() -> None:
        pool = Pool()
        pool.use()
        before = [each.id for each in pool.made]
        change(pool)
        assert idle.take_idle(pool) is None
        assert [each.id for each in pool.conns] == before  # type: ignore[attr-defined]  # scripted
        assert (pool.requests, pool.active_sockets, pool.operation_count) == (0, 0, 0)

    run(lambda: _spawned(check))


def test_a_pool_without_idle_connections_leaves_the_check_out_to_pymongo() -> None:
    async def main() -> None:
        assert idle.take_idle(Pool()) is None

    run(main)


def close(pool: Pool) -> None:
    pool.made[0].closed = True


def pin_transaction(pool: Pool) -> None:
    pool.made[0].pinned_txn = True


def pin_cursor(pool: Pool) -> None:
    pool.made[0].pinned_cursor = True


def publish(pool: Pool) -> None:
    pool._telemetry._should_publish = True


def log(pool: Pool) -> None:
    pool._telemetry._log = True


def log_nothing(pool: Pool) -> None:
    pool._telemetry._log = False


@pytest.mark.parametrize(
    "change", [hold_lock, outdate, fork, pause, close, pin_transaction, pin_cursor, publish, log]
)
def test_what_is_not_plain_is_left_to_pymongo_at_the_check_in(
    change: Callable[[Pool], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pymongo.connection")

    def check() -> None:
        pool = Pool()
        log_nothing(pool)
        connection = pool.checkout().__enter__()
        change(pool)
        assert not idle.put_back(pool, connection)
        assert connection.active
        assert (pool.requests, pool.active_sockets, pool.operation_count) == (1, 1, 1)
        assert not pool.conns

    run(lambda: _spawned(check))


@pytest.mark.parametrize("change", [log, log_nothing])
def test_a_pool_whose_log_nobody_reads_checks_in_by_itself(
    change: Callable[[Pool], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO if change is log else logging.DEBUG, "pymongo.connection")

    def check() -> None:
        pool = Pool()
        change(pool)
        assert idle.put_back(pool, pool.checkout().__enter__())

    run(lambda: _spawned(check))


@pytest.mark.parametrize(
    "options", [{"load_balanced": True}, {"max_idle_time_seconds": 5}], ids=str
)
def test_pools_with_more_to_look_at_have_no_plain_accounts(options: dict[str, Any]) -> None:
    assert not idle.has_plain_accounts(PoolOptions(**options))
    assert idle.has_plain_accounts(PoolOptions())


def test_a_version_that_was_not_tried_has_no_plain_accounts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idle, "version_tuple", (pymongo.version_tuple[0], 99, 0))
    assert not idle.has_plain_accounts(PoolOptions())


def test_a_connection_that_comes_back_goes_to_one_who_waits_to_open_another() -> None:
    async def main() -> None:
        pool = Pool(max_connecting=1)
        gate, opening = asyncio.Event(), asyncio.Event()
        held = green.spawn(pool.use, lambda: green.wait(gate.wait()))
        pool.connecting = lambda: green.wait(opening.wait())
        # One opens its own, which takes long; the other may not yet.
        slow, waiting = green.spawn(pool.use), green.spawn(pool.use)
        await asyncio.sleep(0)
        gate.set()
        assert await held == await waiting == 0
        opening.set()
        assert await slow == 1
        pool.assert_at_rest()

    run(main)


def test_the_first_in_line_has_the_next_connection() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1)
        gate = asyncio.Event()
        order: list[int] = []

        def use(number: int) -> None:
            with pool.checkout():
                order.append(number)
                green.wait(gate.wait())

        uses = [green.spawn(use, number) for number in range(5)]
        gate.set()
        await asyncio.gather(*uses)
        assert order == list(range(5))
        assert len(pool.made) == 1
        pool.assert_at_rest()

    run(main)


def test_what_is_checked_in_keeps_the_standing_of_its_server() -> None:
    def check() -> None:
        pool = Pool()
        seen: list[bool] = []
        with pool.checkout() as connection:
            connection.update_is_writable = seen.append  # type: ignore[method-assign]
            pool.is_writable = True
        assert seen == [True]

    run(lambda: _spawned(check))
