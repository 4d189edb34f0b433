"""Who is in which request: by task, by green callable, by itself, and shared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from motorlike import green
from motorlike.request_map import Request, RequestMap, current_owner
from tests.unit.request_things import bind, in_task, is_empty, run


def test_a_tasks_code_and_what_it_spawns_for_a_driver_have_one_owner() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert current_owner() is task
        hub = green.hub.current_hub()
        assert await hub.spawn(current_owner, (), {}, task) is task

    run(main)


def test_a_green_callable_is_an_owner_of_its_own() -> None:
    async def main() -> None:
        owners: list[object] = []

        def call() -> None:
            owners.append(current_owner())
            green.sleep(0)
            owners.append(current_owner())

        future = green.spawn(call)
        await future
        assert owners[0] is owners[1] is future

    run(main)


def test_a_plain_callback_is_nobodys() -> None:
    async def main() -> None:
        owners: list[object] = []
        asyncio.get_running_loop().call_soon(lambda: owners.append(current_owner()))
        await asyncio.sleep(0.001)
        assert owners == [None]

    run(main)
    assert current_owner() is None


def test_start_where_nobodys_code_runs_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="Call start_request\\(\\) inside a coroutine or a gree"):
        RequestMap().start()


def test_a_request_is_its_tasks_alone() -> None:
    async def main() -> None:
        requests = RequestMap()
        with requests.start() as request:
            assert requests.current() is request
            assert await in_task(requests.current) is None
            assert await green.spawn(requests.current) is None
        assert requests.current() is None

    run(main)


def test_green_callables_have_requests_of_their_own() -> None:
    async def main() -> None:
        requests = RequestMap()

        def call() -> Request:
            with requests.start() as request:
                green.sleep(0)
                assert requests.current() is request
            assert requests.current() is None
            return request

        first, second = await asyncio.gather(green.spawn(call), green.spawn(call))
        assert first is not second
        assert requests.current() is None

    run(main)


def test_two_maps_know_nothing_of_each_other() -> None:
    async def main() -> None:
        one, other = RequestMap(), RequestMap()
        with one.start():
            assert other.current() is None
            with other.start(shared=True):
                assert one.current() is not other.current()
            assert one.current() is not None

    run(main)


def test_a_map_is_used_from_its_first_request_on() -> None:
    async def main() -> None:
        requests = RequestMap()
        requests.current()
        requests.end()
        assert not requests.is_used
        requests.start().end()
        assert requests.is_used
        assert RequestMap(starts_by_itself=True).is_used

    run(main)


# -- by itself ------------------------------------------------------------


def test_each_task_gets_its_own_where_requests_start_by_themselves() -> None:
    async def main() -> None:
        requests = RequestMap(starts_by_itself=True)

        def use() -> Request | None:
            owner = current_owner()
            assert owner is not None
            requests.enter(owner)
            requests.enter(owner)
            return requests.current()

        assert requests.current() is None
        mine = use()
        theirs = await in_task(use)
        assert mine is not None
        assert theirs is not None
        assert theirs is not mine
        assert use() is mine
        with requests.start() as nested:
            assert nested is mine
        assert not mine.has_ended
        requests.end()
        assert mine.has_ended
        assert use() is not mine
        await asyncio.sleep(0)
        assert theirs.has_ended

    run(main)


def test_none_starts_by_itself_within_a_shared_one() -> None:
    async def main() -> None:
        requests = RequestMap(starts_by_itself=True)
        with requests.start(shared=True) as request:

            def use() -> Request | None:
                owner = current_owner()
                assert owner is not None
                requests.enter(owner)
                return requests.current()

            assert await in_task(use) is request

    run(main)


# -- shared ---------------------------------------------------------------


def test_tasks_and_green_callables_started_in_a_shared_request_take_part() -> None:
    async def main() -> None:
        requests = RequestMap()

        async def grandchild() -> Request | None:
            return await asyncio.create_task(in_task(requests.current))

        before = asyncio.create_task(grandchild())
        with requests.start(shared=True) as request:
            assert await asyncio.create_task(grandchild()) is request
            assert await green.spawn(requests.current) is request
            assert await before is None
        assert requests.current() is None

    run(main)


def test_a_child_task_goes_on_without_when_the_shared_request_ends() -> None:
    async def main() -> None:
        requests = RequestMap()
        request = requests.start(shared=True)
        ended = asyncio.Event()

        async def child() -> None:
            assert requests.current() is request
            # It is not the child's to end.
            requests.end()
            assert requests.current() is request
            await ended.wait()
            assert requests.current() is None

        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        requests.end()
        ended.set()
        await task

    run(main)


def test_a_shared_request_within_one_joins_it_and_holds_on_until_both_have_ended() -> None:
    async def main() -> None:
        requests = RequestMap()
        outer = requests.start(shared=True)
        thing = bind(outer)
        ended = asyncio.Event()

        async def child() -> None:
            with requests.start(shared=True) as inner:
                assert inner is not outer
                assert inner.holdings is outer.holdings
                await ended.wait()
                assert requests.current() is inner
                assert inner.holdings.held == {"server": thing}
                assert thing.releases == 0
            assert thing.releases == 1
            assert requests.current() is None

        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        requests.end()
        ended.set()
        await task

    run(main)


def test_after_its_own_request_a_task_is_in_the_shared_one_again() -> None:
    async def main() -> None:
        requests = RequestMap()
        with requests.start(shared=True) as outer:

            def child(shared: bool) -> None:
                with requests.start(shared=shared) as own:
                    assert requests.current() is own
                    assert (own.holdings is outer.holdings) is shared
                assert requests.current() is outer

            await in_task(lambda: child(True))
            await in_task(lambda: child(False))

    run(main)


@pytest.mark.parametrize("kinds", [(True, False), (False, True)])
def test_one_task_cannot_nest_requests_of_both_kinds(kinds: tuple[bool, bool]) -> None:
    async def main() -> None:
        requests = RequestMap()
        with requests.start(shared=kinds[0]) as request:
            with pytest.raises(RuntimeError, match="cannot nest"):
                requests.start(shared=kinds[1])
            assert request.depth == 1
        assert is_empty(requests)

    run(main)


def test_ended_shared_requests_do_not_pile_up() -> None:
    async def main() -> None:
        requests = RequestMap()

        def chain(request: Request | None) -> Iterator[Request]:
            while request is not None:
                yield request
                request = request.outer

        for _ in range(5):
            with requests.start(shared=True) as request:
                assert len(list(chain(request))) == 1

    run(main)
