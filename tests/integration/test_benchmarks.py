"""The benchmark suite from its command line to its tables, JSON and plots, in small.

Nothing here is said of speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tests.integration.support import run_script
from tests.unit.benchmarks.suite import PACKAGE, module

peers = module("peers")

# In a process of its own: mongojet may crash one that ends in the usual way.
USE_OF_CLIENTS = """
import asyncio, importlib, json, os, sys

async def use(peer, uri, database):
    client = await peer.connect(uri)
    found = [await client.command("admin")({"ping": 1})]
    things = client.collection(database, "things")
    await things.drop()
    await things.insert_many([{"_id": n, "even": n % 2 == 0} for n in range(300)])
    await things.insert_one({"_id": 300, "even": True})
    await things.update_one({"_id": 1}, {"$set": {"even": None}})
    found.append(await things.find_one({"_id": 1}))
    found.append(len(await client.read_list(things, {"even": True})))
    found.append(await client.read_each(things, {"even": False}))
    found.append(await client.aggregate(things, [{"$group": {"_id": 1, "n": {"$sum": "$_id"}}}]))
    file_id = await client.upload(database, "a file", b"data" * 100_000)
    found.append(await client.download(database, file_id) == b"data" * 100_000)
    await client.close()
    return found

package, uri, database, *names = sys.argv[1:]
peers = importlib.import_module(package + ".peers").PEERS
for name in names:
    print(json.dumps(asyncio.run(use(peers[name], uri, database))), flush=True)
os._exit(0)
"""

INSTALLED = [name for name, peer in peers.PEERS.items() if peer.is_installed]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "motorlike", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def cells(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The cells of the JSON, by task, transport and peer."""
    tables = json.loads(path.read_text())["tables"]
    return {
        (table["task"], table["transport"], cell["peer"]): cell
        for table in tables
        for cell in table["cells"]
    }


def test_all_peers_are_measured_side_by_side_with_the_limit(
    mongod_uri: str, synchronous: pymongo.MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    tasks = ["--tasks", "find_one", "--at-once", "3", "--quick"]
    short = ["--rounds", "1", "--seconds", "0.05", "--warm-up", "0.01"]
    written = tmp_path / "all.json"
    done = bench(*tasks, *short, "--uri", mongod_uri, "--json", str(written))
    assert (done.stderr, done.returncode) == ("", 0)
    found = cells(written)
    for name in INSTALLED:
        cell = found["operations.find_one", "plain", name]
        assert cell["problem"] is None
        assert cell["medians"]["rate"] > 0
        assert cell["medians"]["p50"] <= cell["medians"]["p99"]
        assert cell["ratios"]["rate"] > 0
        assert cell["cpu_to_limit"] > 0
        assert f"\n| {name} " in done.stdout
    assert found["operations.find_one", "plain", "pymongo"]["at_once"] == 1
    assert found["operations.find_one", "plain", "motorlike"]["at_once"] == 3
    limit = found["operations.find_one", "plain", "limit"]["medians"]
    assert limit["cpu"] == pytest.approx(limit["limit_driver"] + limit["limit_kernel"])
    assert limit["limit_frame"] == 0
    assert "motorlike_benchmarks" not in synchronous.list_database_names()


def test_each_client_does_what_it_is_asked(mongod_uri: str, database_name: str) -> None:
    printed = run_script(USE_OF_CLIENTS, PACKAGE, mongod_uri, database_name, *INSTALLED)
    expected = [{"ok": 1.0}, {"_id": 1, "even": None}, 151, 149, [{"_id": 1, "n": 45150}], True]
    assert [json.loads(line) for line in printed.splitlines()] == [expected] * len(INSTALLED)


def test_servers_of_its_own_are_reached_by_tls_and_unix_socket_and_plots_drawn(
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    written = tmp_path / "own.json"
    plots = tmp_path / "plots"
    done = bench(
        *["--tasks", "ping", "--peers", "motorlike", "--at-once", "2", "--quick"],
        *["--rounds", "1", "--seconds", "0.02", "--warm-up", "0", "--pool-size", "2"],
        *["--transport", "plain", "tls", "unix"],
        *["--json", str(written), "--plots", str(plots), "--plot-formats", "svg", "png"],
    )
    assert done.returncode == 0, done.stderr
    found = cells(written)
    assert [transport for _, transport, _ in found] == ["plain", "tls", "unix"]
    for cell in found.values():
        assert cell["problem"] is None
        assert len(cell["rounds"]) == 1
    names = {path.name for path in plots.iterdir()}
    assert names == {
        f"operations.ping.{transport}.{suffix}"
        for transport in ("plain", "tls", "unix")
        for suffix in ("svg", "png")
    }
    assert (plots / "operations.ping.tls.svg").read_text().startswith("<?xml")


def test_a_server_that_cannot_be_reached_ends_the_run() -> None:
    done = bench("--tasks", "ping", "--quick", "--uri", "mongodb://127.0.0.1:1/?timeoutMS=200")
    assert (done.stdout, done.returncode) == ("", 2)
    assert "127.0.0.1:1: [Errno 111] Connection refused" in done.stderr


def test_documents_are_read_and_written_on_either_loop(mongod_uri: str, tmp_path: Path) -> None:
    written = tmp_path / "documents.json"
    done = bench(
        *["--tasks", "async_for_small", "bulk_write_small", "--peers", "motorlike", "--quick"],
        *["--loop", "asyncio", "uvloop", "--rounds", "1", "--seconds", "0", "--warm-up", "0"],
        *["--uri", mongod_uri, "--json", str(written)],
    )
    assert (done.stderr, done.returncode) == ("", 0)
    for table in json.loads(written.read_text())["tables"]:
        assert [cell["loop"] for cell in table["cells"]] == ["asyncio", "uvloop"]
        assert [cell["problem"] for cell in table["cells"]] == [None, None]
    assert done.stdout.count("\n| motorlike on uvloop ") == 2
