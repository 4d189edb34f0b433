"""Server selection as the application sees it, though its outcome is remembered."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, InvalidOperation, ServerSelectionTimeoutError

from motorlike import MotorClient
from motorlike.testing import mongod as launcher
from motorlike.testing.mongod import Deployment
from tests.integration.support import run


def test_each_selection_is_logged_once_that_is_wanted(
    mongod_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with MotorClient(mongod_uri) as client:
            await client.admin.command("ping")
            with caplog.at_level(logging.DEBUG, "pymongo.serverSelection"):
                await client.test.things.find_one()
                await client.test.things.update_one({"_id": 1}, {"$set": {"x": 1}})
            await client.test.things.find_one()

    run(main())
    messages = [record.getMessage() for record in caplog.records]
    succeeded = [each for each in messages if "Server selection succeeded" in each]
    assert ["find" in succeeded[0], "update" in succeeded[1], len(succeeded)] == [True, True, 2]


def test_an_applications_own_selector_is_asked_for_each_operation(replica_set: Deployment) -> None:
    asked: list[int] = []

    def selector(servers: list[Any]) -> list[Any]:
        asked.append(len(servers))
        return servers

    async def main() -> None:
        async with MotorClient(replica_set.uri, server_selector=selector) as client:
            await client.admin.command("ping")
            before = len(asked)
            for _ in range(5):
                await client.test.things.find_one()
            assert len(asked) >= before + 5

    run(main())


def test_an_operation_after_a_transaction_ends_its_repeatability(replica_set: Deployment) -> None:
    async def main() -> None:
        async with MotorClient(replica_set.uri) as client, await client.start_session() as session:
            async with session.start_transaction():
                await client.test.things.find_one(session=session)
            await client.test.things.find_one(session=session)
            with pytest.raises(InvalidOperation, match="No transaction started"):
                await session.commit_transaction()

    run(main())


def test_a_server_that_went_away_is_not_selected_before_it_is_back() -> None:
    options = {"heartbeatFrequencyMS": 500, "serverSelectionTimeoutMS": 700, "retryReads": False}

    async def find(client: MotorClient) -> Any:
        """What is read, or the error's type."""
        try:
            return await client.test.things.find_one()
        except AutoReconnect as exc:
            return type(exc)

    async def until(client: MotorClient, wanted: Any) -> None:
        async with asyncio.timeout(20):
            while await find(client) != wanted:
                await asyncio.sleep(0.01)

    async def main(server: Deployment) -> None:
        async with MotorClient(server.uri, journal=True, **options) as client:
            await client.test.things.insert_one({"_id": 1})
            (member,) = server.members
            await asyncio.to_thread(member.kill)
            await until(client, ServerSelectionTimeoutError)
            await asyncio.to_thread(member.restart)
            await until(client, {"_id": 1})

    with launcher.standalone() as server:
        run(main(server), timeout=60)
