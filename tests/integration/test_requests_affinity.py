"""The proof of affinity: an unacknowledged write and the read after it, in order.

A hundred thousand pairs from two hundred tasks on a small pool. The server is
slow now and then, as a busy one is, so that a read on another socket may
overtake the write. Without requests some do; in requests none may.

It runs in a Python of its own, without the slow debug mode of the others.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from motorlike.testing.mongod import Deployment
from tests.integration.support import fail_point

SCRIPT = """
import asyncio, contextlib, sys, time
from pymongo.write_concern import WriteConcern
from motorlike import MotorClient

uri, how, tasks, pairs = sys.argv[1], sys.argv[2], 200, int(sys.argv[3])
stale = 0

async def work(client, number):
    global stale
    read = client.affinity.items
    write = read.with_options(write_concern=WriteConcern(w=0))
    for turn in range(pairs // tasks):
        _id = number * pairs + turn
        with client.start_request() if how == "exclusive" else contextlib.nullcontext():
            await write.insert_one({"_id": _id})
            if await read.find_one({"_id": _id}) is None:
                stale += 1

async def group(client, numbers):
    # Ten tasks that share one connection.
    async with client.start_request(shared=True):
        await asyncio.gather(*(work(client, number) for number in numbers))

async def main():
    async with MotorClient(uri, maxPoolSize=20) as client:
        await client.affinity.items.drop()
        await client.affinity.create_collection("items")
        started = time.perf_counter()
        if how == "shared":
            await asyncio.gather(*(group(client, range(n, tasks, 20)) for n in range(20)))
        else:
            await asyncio.gather(*(work(client, number) for number in range(tasks)))
        seconds = time.perf_counter() - started
        await asyncio.sleep(0)
        (server,) = client.delegate._topology._servers.values()
        pool = server.pool
        assert (pool.requests, pool.active_sockets, pool.operation_count) == (0, 0, 0)
        assert not pool.held and len(pool.conns) <= 20
        if how != "without":
            assert await client.affinity.items.count_documents({}) == pairs
    print(f"{how}: {stale} stale reads of {pairs}, {seconds:.1f} s")

asyncio.run(main())
"""


async def _count_stale_reads(mongod: Deployment, how: str, pairs: int) -> int:
    # So late that the read after it has had its turn, also where 200 tasks wait
    # for few connections on a slow machine.
    slow_now_and_then = {"activationProbability": 0.002}
    async with fail_point(mongod.address, ["insert"], mode=slow_now_and_then, blockTimeMS=500):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", SCRIPT, mongod.uri, how, str(pairs)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, error = await process.communicate()
    print(out.decode().strip())
    assert error == b""
    assert process.returncode == 0
    return int(out.split()[1])


@pytest.mark.slow
def test_without_requests_reads_overtake_unacknowledged_writes(mongod: Deployment) -> None:
    """Or else the next test would prove nothing."""
    assert asyncio.run(_count_stale_reads(mongod, "without", 20_000)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("how", "pairs"), [("exclusive", 100_000), ("shared", 50_000)])
def test_in_requests_no_read_overtakes_the_write_before_it(
    how: str, pairs: int, mongod: Deployment
) -> None:
    assert asyncio.run(_count_stale_reads(mongod, how, pairs)) == 0
