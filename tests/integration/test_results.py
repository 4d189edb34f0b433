"""Importing many files at once: large inserts, and callers that hold the loop.

The rules of holding are in `tests/unit/green/test_results.py`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from motorlike import MotorClient
from motorlike.green.hub import current_hub
from motorlike.green.results import Results
from tests.integration.support import assert_pool_is_at_rest, run

IMPORTERS = 6
FILES = 30
LINES = 80
PADDING = "x" * 100_000
PARSE_SECONDS = 0.04


def parse(file: int) -> list[dict[str, Any]]:
    """Make a file's documents, 8 MB of them, and take some time for it."""
    time.sleep(PARSE_SECONDS)
    return [{"_id": f"{file} {line}", "file": file, "padding": PADDING} for line in range(LINES)]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many results were held, after each that came while a large send was under way."""
    counts: list[int] = []
    give = Results.give

    def counting(results: Results, future: asyncio.Future[Any], result: Any) -> None:
        give(results, future, result)
        counts.append(len(results._held))

    monkeypatch.setattr(Results, "give", counting)
    return counts


def test_importers_get_their_own_results_and_lose_nothing(
    mongod_uri: str, database_name: str, held: list[int]
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name].items
            files = iter(range(FILES))

            async def work() -> None:
                for file in files:
                    result = await items.insert_many(parse(file))
                    assert result.inserted_ids == [f"{file} {line}" for line in range(LINES)]

            await asyncio.gather(*(work() for _ in range(IMPORTERS)))
            assert await items.count_documents({}) == FILES * LINES
            for file in range(FILES):
                assert await items.count_documents({"file": file, "padding": PADDING}) == LINES
            results = current_hub().results
            assert not results.is_active
            assert results.sends == 0
            assert_pool_is_at_rest(client)

    run(main(), timeout=120)
    assert any(held)


def test_a_cancelled_importer_leaves_the_others_alone(
    mongod_uri: str, database_name: str, held: list[int]
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            items = client[database_name].items
            done: list[int] = []

            async def work(file: int) -> None:
                await items.insert_many(parse(file))
                done.append(file)
                time.sleep(PARSE_SECONDS)

            tasks = [asyncio.create_task(work(file)) for file in range(12)]
            await asyncio.sleep(0.05)
            for task in tasks[::3]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for file, outcome in enumerate(outcomes):
                assert outcome is None or (file % 3 == 0 and not isinstance(outcome, Exception))
            assert set(done) >= {file for file in range(12) if file % 3}
            for file in done:
                assert await items.count_documents({"file": file}) == LINES
            assert not current_hub().results.is_active
            assert_pool_is_at_rest(client)

    run(main(), timeout=120)
