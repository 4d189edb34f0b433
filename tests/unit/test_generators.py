"""The generator behind ``async for`` over a cursor, where no server is needed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

from motorlike.generators import start_unseen


async def numbers() -> AsyncGenerator[int]:
    yield -1
    for number in range(3):
        yield number


def test_a_generator_started_unseen_yields_all_but_its_first() -> None:
    async def main() -> list[int]:
        return [number async for number in start_unseen(numbers())]

    assert asyncio.run(main()) == [0, 1, 2]


def test_leaving_a_generator_started_unseen_starts_no_task() -> None:
    async def main() -> None:
        async for number in start_unseen(numbers()):
            if number == 1:
                break
        # asyncio's hook would have scheduled one for the loop's next turn.
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_the_hooks_of_the_loop_are_back_for_other_generators() -> None:
    async def main() -> None:
        before = sys.get_asyncgen_hooks()
        start_unseen(numbers())
        assert before.firstiter is not None
        assert sys.get_asyncgen_hooks() == before

    asyncio.run(main())
