"""A request pool over scripted connections: slots, turns and pins."""

from __future__ import annotations

import asyncio

import pytest
from pymongo.errors import WaitQueueTimeoutError

from motorlike import driver, green
from tests.unit.driver.scripted_pool import Pool, run, spawn

_PoolClosedError = driver.load("pymongo.synchronous.pool")._PoolClosedError


def test_operations_of_a_request_use_one_connection_and_one_slot() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=5)
        await asyncio.gather(*(green.spawn(pool.use) for _ in range(3)))
        made = len(pool.made)
        assert made > 1
        with pool.map.start():
            numbers = await asyncio.gather(*(spawn(pool) for _ in range(20)))
            assert len(set(numbers)) == 1
            assert pool.requests == len(pool.held) == 1
        assert len(pool.made) == made
        pool.assert_at_rest()

    run(main)


def test_operations_take_their_turns_in_order_and_never_two_at_once() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=5)
        events: list[int] = []

        def work(number: int) -> None:
            events.append(number)
            green.sleep(0.001)
            events.append(number)

        with pool.map.start():
            await asyncio.gather(*(spawn(pool, lambda n=n: work(n)) for n in range(10)))
        assert events == [n for n in range(10) for _ in range(2)]
        pool.assert_at_rest()

    run(main)


def test_an_operation_within_an_operation_takes_a_connection_of_its_own() -> None:
    """It would wait for its own turn, and for ever."""

    async def main() -> None:
        pool = Pool(max_pool_size=2)
        inner: list[int] = []
        with pool.map.start():
            outer = await spawn(pool, lambda: inner.append(pool.use()))
            assert inner != [outer]
            assert pool.requests == 1
        pool.assert_at_rest()

    run(main)


def test_monitors_are_in_no_request() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=2)
        pool.is_sdam = True
        with pool.map.start():
            await spawn(pool)
            assert not pool.held
        pool.assert_at_rest()

    run(main)


def test_the_wait_queue_error_says_that_requests_hold_the_slots() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1, wait_queue_timeout=0.01)
        with pool.map.start():
            await spawn(pool)
            with pytest.raises(WaitQueueTimeoutError) as caught:
                await green.spawn(pool.use)
            assert "maxPoolSize: 1, timeout: 0.01. Socket requests hold 1" in str(caught.value)
            assert "start_request(shared=True)" in str(caught.value)
        await green.spawn(pool.use)
        pool.assert_at_rest()

    run(main)


def test_the_wait_queue_error_is_pymongos_where_requests_hold_nothing() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1, wait_queue_timeout=0.01)
        pool.map.is_used = True
        go = asyncio.Event()
        holder = green.spawn(pool.use, lambda: green.wait(go.wait()))
        with pytest.raises(WaitQueueTimeoutError) as caught:
            await green.spawn(pool.use)
        go.set()
        assert "Socket requests" not in str(caught.value)
        await holder
        pool.assert_at_rest()

    run(main)


def test_an_operation_that_waits_too_long_for_its_turn_says_so() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1, wait_queue_timeout=0.01)
        with pool.map.start():
            go = asyncio.Event()
            first = spawn(pool, lambda: green.wait(go.wait()))
            with pytest.raises(WaitQueueTimeoutError, match="its operations take turns"):
                await spawn(pool)
            go.set()
            assert await first == await spawn(pool)
        pool.assert_at_rest()

    run(main)


@pytest.mark.parametrize("reason", ["closed", "reset", "idle"])
def test_an_unusable_connection_is_replaced_on_its_slot_before_those_who_wait(reason: str) -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1, max_idle_time_seconds=5)
        with pool.map.start():
            first = await spawn(pool)
            waiting = green.spawn(pool.use)
            await asyncio.sleep(0)
            if reason == "closed":
                pool.made[0].closed = True
            elif reason == "reset":
                pool.reset_without_pause()
                await asyncio.sleep(0)
            else:
                pool.made[0].idle_seconds = 10
            pool.connecting = lambda: green.sleep(0.01)
            second = await spawn(pool)
            assert second == first + 1
            assert await spawn(pool) == second
            assert not waiting.done()
            assert pool.requests == 1
        assert await waiting == second
        pool.assert_at_rest()

    run(main)


def test_a_failed_replacement_gives_the_slot_to_the_next_in_line() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1)
        with pool.map.start():
            await spawn(pool)
            waiting = green.spawn(pool.use)
            await asyncio.sleep(0)
            pool.made[0].closed = True
            pool.error = ConnectionRefusedError()
            with pytest.raises(ConnectionRefusedError):
                await spawn(pool)
            pool.error = None
            assert await waiting == 1
            assert await spawn(pool) == 1
            assert pool.requests == 1
        pool.assert_at_rest()

    run(main)


def test_a_cancelled_replacement_gives_the_slot_back() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1)
        with pool.map.start():
            await spawn(pool)
            pool.made[0].closed = True
            pool.connecting = lambda: green.sleep(60)
            operation = spawn(pool)
            await asyncio.sleep(0)
            operation.cancel()
            await asyncio.sleep(0)
            assert pool.requests == 0
        pool.assert_at_rest()

    run(main)


def test_a_paused_pool_replaces_nothing_and_loses_no_slot() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1)
        with pool.map.start():
            await spawn(pool)
            pool.reset()
            with pytest.raises(Exception, match="paused"):
                await spawn(pool)
            pool.assert_at_rest()
            pool.ready()
            assert await spawn(pool) == 1
        pool.assert_at_rest()

    run(main)


def test_a_closed_pool_is_pymongos_error_and_gets_its_connection_closed() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1)
        with pool.map.start():
            await spawn(pool)
            pool.close()
            with pytest.raises(_PoolClosedError):
                await spawn(pool)
        pool.assert_at_rest()
        assert pool.made[0].closed

    run(main)


@pytest.mark.parametrize("pin", ["pinned_cursor", "pinned_txn"])
def test_a_pinned_connection_leaves_the_request_which_goes_on_with_another(pin: str) -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=2)
        with pool.map.start():
            pinned = spawn(pool, lambda: setattr(pool.made[0], pin, True))
            # They wait for the turn already: it must come.
            numbers = await asyncio.gather(pinned, spawn(pool), spawn(pool), spawn(pool))
            assert numbers == [0, 1, 1, 1]
            assert pool.ncursors + pool.ntxns == 1
            await green.spawn(pool.checkin, pool.made[0])
            assert pool.ncursors + pool.ntxns == 0
            assert await spawn(pool) == 1
        pool.assert_at_rest()

    run(main)


def test_a_connection_that_was_unpinned_within_the_operation_is_checked_in_once() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=2)

        def pin_and_unpin() -> None:
            pool.made[0].pinned_cursor = True
            pool.ncursors += 1
            pool.checkin(pool.made[0])  # type: ignore[arg-type]  # scripted

        with pool.map.start():
            await spawn(pool, pin_and_unpin)
            pool.assert_at_rest()
            await spawn(pool)
            assert pool.requests == 1
        pool.assert_at_rest()

    run(main)


def test_a_request_that_ends_in_the_middle_gives_back_after_the_last_operation() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=5)
        with pool.map.start():
            running = [spawn(pool, lambda: green.sleep(0.001)) for _ in range(3)]
        assert pool.requests == 1
        assert await asyncio.gather(*running) == [0, 0, 0]
        pool.assert_at_rest()

    run(main)


@pytest.mark.parametrize("moment", ["waiting", "woken"])
def test_the_last_in_line_of_an_ended_request_is_cancelled_and_nothing_is_lost(
    moment: str,
) -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=1)
        go = asyncio.Event()
        with pool.map.start():
            first = spawn(pool, lambda: green.wait(go.wait()))
            last = spawn(pool)
        await asyncio.sleep(0)
        if moment == "waiting":
            last.cancel()
            go.set()
        else:
            # The first one hands the turn over to one that will not use it.
            first.cancel()
            last.cancel()
        await asyncio.wait([first, last])
        await asyncio.sleep(0)
        assert last.cancelled()
        pool.assert_at_rest()

    run(main)


def test_a_request_that_ends_while_the_pools_lock_is_taken_gives_back_later() -> None:
    """A listener of pool events may wait, and PyMongo calls it under the lock."""

    async def main() -> None:
        pool = Pool(max_pool_size=1)
        request = pool.map.start()
        await spawn(pool)

        def listen() -> None:
            with pool.lock:
                green.sleep(0.01)

        listening = green.spawn(listen)
        request.end()
        assert pool.requests == 1
        await listening
        await asyncio.sleep(0.001)
        pool.assert_at_rest()

    run(main)


def test_shared_requests_of_many_tasks_need_one_slot_in_all() -> None:
    async def main() -> None:
        pool = Pool(max_pool_size=5)

        async def child() -> set[int]:
            return {await spawn(pool) for _ in range(5)}

        with pool.map.start(shared=True):
            results = await asyncio.gather(*(asyncio.create_task(child()) for _ in range(20)))
            assert results == [{0}] * 20
            assert pool.requests == 1
        pool.assert_at_rest()

    run(main)
