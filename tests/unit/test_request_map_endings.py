"""A request ends with its block or its owner, and lets go of what it holds."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator

import pytest

from motorlike import green
from motorlike.request_map import RequestMap
from tests.unit.request_things import Thing, bind, in_task, is_empty, run


def test_nested_requests_are_one_until_the_outermost_ends() -> None:
    async def main() -> None:
        requests = RequestMap()
        outer = requests.start()
        thing = bind(outer)
        async with requests.start() as inner:
            assert inner is outer
        assert requests.current() is outer
        requests.start()
        requests.end()
        assert thing.releases == 0
        requests.end()
        assert requests.current() is None
        assert thing.releases == 1
        assert is_empty(requests)

    run(main)


def test_ending_more_often_than_starting_is_harmless() -> None:
    async def main() -> None:
        requests = RequestMap()
        requests.end()
        with requests.start() as request:
            thing = bind(request)
            requests.end()
            requests.end()
            assert requests.current() is None
            later = requests.start()
        # The block's end is not the end of the later request.
        assert requests.current() is later
        request.end()
        assert requests.current() is later
        requests.end()
        assert thing.releases == 1

    run(main)


def test_an_exception_in_the_block_ends_the_request_and_passes() -> None:
    async def main() -> None:
        requests = RequestMap()
        things: list[Thing] = []
        with pytest.raises(ZeroDivisionError), requests.start() as request:
            things.append(bind(request))
            raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            async with requests.start() as request:
                things.append(bind(request))
                raise ZeroDivisionError
        assert [each.releases for each in things] == [1, 1]
        assert requests.current() is None

    run(main)


def test_a_request_ends_with_its_task() -> None:
    async def main() -> None:
        requests = RequestMap()
        thing = await in_task(lambda: bind(requests.start()))
        await asyncio.sleep(0)
        assert thing.releases == 1
        assert is_empty(requests)

    run(main)


def test_a_request_ends_with_its_green_callable() -> None:
    async def main() -> None:
        requests = RequestMap()
        thing = await green.spawn(lambda: bind(requests.start()))
        await asyncio.sleep(0)
        assert thing.releases == 1
        assert is_empty(requests)

    run(main)


def test_a_request_ends_when_its_task_is_cancelled() -> None:
    async def main() -> None:
        requests = RequestMap()
        things: list[Thing] = []

        async def hold() -> None:
            things.append(bind(requests.start()))
            await asyncio.sleep(60)

        task = asyncio.create_task(hold())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert things[0].releases == 1
        assert is_empty(requests)

    run(main)


@pytest.mark.parametrize("shared", [False, True])
def test_a_request_ends_when_its_pending_task_is_collected(
    shared: bool, no_error_goes_unseen: list[logging.LogRecord]
) -> None:
    async def main() -> None:
        requests = RequestMap()
        things: list[Thing] = []

        async def hold() -> None:
            things.append(bind(requests.start(shared=shared)))
            await asyncio.Future()

        task = asyncio.create_task(hold())
        await asyncio.sleep(0)
        gone = weakref.ref(task)
        del task
        gc.collect()
        assert gone() is None
        assert things[0].releases == 0  # The collector itself only schedules.
        await asyncio.sleep(0)
        assert things[0].releases == 1
        assert is_empty(requests)

    run(main)
    # asyncio's own words, which the application should hear.
    assert "destroyed but it is pending" in no_error_goes_unseen.pop().getMessage()


def test_children_do_not_go_on_in_a_shared_request_whose_task_was_collected(
    no_error_goes_unseen: list[logging.LogRecord],
) -> None:
    async def main() -> None:
        requests = RequestMap()
        children: list[asyncio.Task[None]] = []
        collected = asyncio.Event()

        async def child() -> None:
            assert requests.current() is not None
            await collected.wait()
            # What they bound now, nobody would let go.
            assert requests.current() is None

        async def hold() -> None:
            requests.start(shared=True)
            children.append(asyncio.create_task(child()))
            await asyncio.Future()

        task = asyncio.create_task(hold())
        await asyncio.sleep(0.001)
        del task
        gc.collect()
        collected.set()
        await children[0]

    run(main)
    assert "destroyed but it is pending" in no_error_goes_unseen.pop().getMessage()


def test_a_generator_that_ends_in_another_task_ends_its_own_request() -> None:
    async def main() -> None:
        requests = RequestMap()

        async def holding() -> AsyncIterator[Thing]:
            with requests.start() as request:
                yield bind(request)

        generator = holding()
        thing = await anext(generator)
        await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]  # a generator
        assert thing.releases == 1
        assert requests.current() is None

    run(main)


def test_ending_all_and_abandoning_all_spare_those_on_a_loop_that_goes_on() -> None:
    requests = RequestMap()
    stopped = asyncio.new_event_loop()

    async def left_open() -> Thing:
        thing = bind(requests.start())
        asyncio.get_running_loop().stop()
        await asyncio.sleep(60)
        return thing

    task = stopped.create_task(left_open())
    stopped.run_forever()
    (left,) = requests._by_owner.values()
    thing = left.holdings.held["server"]
    assert isinstance(thing, Thing)

    async def main() -> None:
        here = asyncio.get_running_loop()
        request = requests.start()
        requests.abandon_all(apart_from=stopped)
        assert request.has_ended
        assert not left.has_ended
        request = requests.start()
        bound = bind(request)
        requests.end_all(apart_from=here)
        assert requests.current() is request
        assert (left.has_ended, thing.releases) == (True, 1)
        requests.abandon_all()
        assert (request.has_ended, bound.releases) == (True, 0)

    run(main)
    task.cancel()
    stopped.run_until_complete(asyncio.wait([task]))
    stopped.close()
