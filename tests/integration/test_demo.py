"""``python -m motorlike demo`` from its start to its end, against a real mongod."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from motorlike.demo import app, command

DEV = ("-X", "dev", "-W", "error")
DEMO = ("-m", "motorlike", "demo")
RUN_SECONDS = 60
# The loop's debug mode, which is part of dev mode, tells of a busy machine.
SLOW_CALLBACK = re.compile(r"^Executing <.* took [\d.]+ seconds\n", re.MULTILINE)
INTERRUPTED = "motorlike demo: interrupted; the counts were not checked.\n"


class Scene:
    """Where a demo runs: it shows what temporary files and processes are left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "TMPDIR": str(folder)}

    def run(
        self, *arguments: str, python: tuple[str, ...] = DEV
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *python, *DEMO, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        done.stderr = SLOW_CALLBACK.sub("", done.stderr)
        return done

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, *DEV, *DEMO, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def processes(self) -> list[str]:
        """The command lines of the processes whose files are in the folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # It has ended.
                continue
            if f"{self.folder}/" in line:
                found.append(line)
        return found

    def assert_empty(self) -> None:
        assert self.processes() == []
        assert list(self.folder.iterdir()) == []


@pytest.fixture
def scene(mongod_uri: str) -> Iterator[Scene]:
    """Asks for a server only so that a machine without a mongod skips the test."""
    # Not tmp_path: the path of a UNIX socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    yield Scene(folder)
    shutil.rmtree(folder)


def read_until(process: subprocess.Popen[str], start: str) -> str:
    """Read lines up to one that begins with *start*; return its rest."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line.removeprefix(start).strip()
    raise AssertionError(f"no line began with {start!r}")


def ending(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=RUN_SECONDS)
    return process.returncode, SLOW_CALLBACK.sub("", errors)


def numbers(output: str, heading: str) -> list[float]:
    (line,) = re.findall(rf"^{heading}  +(.*)$", output, re.MULTILINE)
    return [float(figure) for figure in re.findall(r"(?<!p)\b\d+(?:\.\d+)?", line)]


def table(output: str) -> dict[str, list[int]]:
    rows = re.findall(r"^(\w+|all pages) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
    return {page: list(map(int, figures)) for page, *figures in rows}


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def demo_databases(uri: str) -> list[str]:
    with MongoClient[dict[str, Any]](uri) as client:
        return [name for name in client.list_database_names() if "demo" in name]


def test_demo_prints_figures_that_add_up_and_leaves_nothing(scene: Scene) -> None:
    done = scene.run()
    assert (done.stderr, done.returncode) == ("", 0)
    output = done.stdout
    requests, seconds, rate = numbers(output, "requests")
    assert requests == 600
    assert rate == pytest.approx(requests / seconds, rel=0.05)
    assert numbers(output, "errors") == [0]
    p50, p95, p99 = numbers(output, "latency")
    assert 0 < p50 <= p95 <= p99 <= seconds * 1000 + 10
    rows = table(output)
    visits, counted, logged = rows.pop("all pages")
    assert visits == counted == logged == sum(row[0] for row in rows.values())
    assert len(rows) == 5
    assert all(sent == counted == logged for sent, counted, logged in rows.values())
    opened, most_in_use, taken = numbers(output, "connections")
    assert 1 <= most_in_use <= opened <= 100
    # A visit takes one to count it and one for its request, all others take one.
    assert taken == requests + visits
    assert numbers(output, "stale reads") == [0, visits]
    assert output.endswith("counts add up: each visit sent was counted once and logged once.\n")
    scene.assert_empty()


def test_without_affinity_some_reads_are_stale_and_the_counts_still_add_up(scene: Scene) -> None:
    # Dev mode is so slow that the writes often arrive in time.
    done = scene.run("--without-affinity", python=("-W", "error"))
    assert (done.stderr, done.returncode) == ("", 0)
    visits, counted, logged = table(done.stdout)["all pages"]
    assert visits == counted == logged
    stale, reads = numbers(done.stdout, "stale reads")
    assert 0 < stale < reads == visits
    requests, *_ = numbers(done.stdout, "requests")
    *_, taken = numbers(done.stdout, "connections")
    # A visit is three operations, each on any connection, every other request one.
    assert taken >= requests + 2 * visits
    scene.assert_empty()


def test_demo_uses_the_server_it_is_given_and_drops_its_database(
    scene: Scene, mongod_uri: str
) -> None:
    done = scene.run("--uri", mongod_uri, "--requests", "40", "--concurrency", "8")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "Started a MongoDB server" not in done.stdout
    assert "The server given by --uri is not slowed" in done.stdout
    assert table(done.stdout)["all pages"] == [28, 28, 28]
    assert demo_databases(mongod_uri) == []
    scene.assert_empty()


def test_visits_that_are_not_logged_make_it_fail(
    mongod_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def count_only(self: app.VisitHandler, page: str) -> None:
        await self.pages.update_one({"_id": page}, {"$inc": {"visits": 1}}, upsert=True)

    monkeypatch.setattr(app.VisitHandler, "get", count_only)
    assert command.main(["--uri", mongod_uri, "--requests", "40"]) == 1
    told = capsys.readouterr()
    assert told.err == ""
    assert table(told.out)["all pages"] == [28, 28, 0]
    assert "This does not add up:\n- guide: " in told.out
    assert re.search(r"- home: (\d+) visits sent, \1 counted, 0 logged\n", told.out)
    assert demo_databases(mongod_uri) == []


def test_failed_requests_make_it_fail_and_are_told_without_tracebacks(
    mongod_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(self: app.RecentHandler) -> None:
        raise OperationFailure("not today", 1, {"ok": 0})

    monkeypatch.setattr(app.RecentHandler, "get", refuse)
    assert command.main(["--uri", mongod_uri, "--requests", "40"]) == 1
    told = capsys.readouterr()
    assert told.err == ""
    assert numbers(told.out, "errors") == [4]
    assert table(told.out)["all pages"] == [28, 28, 28]
    assert "\n- failed requests: 4 with HTTP 500, OperationFailure: not today\n" in told.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_keep_goes_on_serving_until_a_signal(scene: Scene, number: signal.Signals) -> None:
    with scene.running("--keep", "--requests", "100") as process:
        url = read_until(process, "Still serving at ")
        home = fetch(url)
        assert len(re.findall(r'<a href="/visit/\w+">', home)) == 5
        fetch(f"{url}visit/%3Cb%3E")
        fetch(f"{url}visit/%3Cb%3E")
        assert json.loads(fetch(f"{url}page/%3Cb%3E")) == {"page": "<b>", "visits": 2}
        assert json.loads(fetch(f"{url}page/nobody")) == {"page": "nobody", "visits": 0}
        recent = json.loads(fetch(f"{url}recent"))["visits"]
        assert [visit["page"] for visit in recent[:2]] == ["<b>", "<b>"]
        assert len(recent) == 20
        assert '<a href="/visit/%3Cb%3E">&lt;b&gt;</a><td>2\n' in fetch(url)
        assert len(scene.processes()) == 1
        process.send_signal(number)
        assert ending(process) == (0, "")
    scene.assert_empty()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_under_load_ends_it_in_order(scene: Scene, number: signal.Signals) -> None:
    with scene.running("--requests", "100000") as process:
        read_until(process, "Sending ")
        time.sleep(0.5)
        process.send_signal(number)
        assert ending(process) == (128 + number, INTERRUPTED)
    scene.assert_empty()


def test_a_taken_port_is_one_line_and_exit_code_2(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = scene.run("--port", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"motorlike demo: cannot listen on port {port} .*\n", done.stderr)


def test_a_server_out_of_reach_is_one_line_and_exit_code_2(scene: Scene) -> None:
    with socket.socket() as held:  # Bound, but not listening: it refuses.
        held.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{held.getsockname()[1]}"
        done = scene.run("--uri", f"mongodb://user:secret@{host}/")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        rf"motorlike demo: no MongoDB server was reached in 3 s: {host}: .*refused\n", done.stderr
    )


@pytest.mark.slow
def test_a_server_that_dies_under_load_makes_it_fail(scene: Scene) -> None:
    with scene.running() as process:
        uri = read_until(process, "Started a MongoDB server at ")
        with MongoClient[dict[str, Any]](uri) as client:
            pid = client.admin.command("serverStatus")["pid"]
        read_until(process, "Sending ")
        os.kill(pid, signal.SIGKILL)
        output, errors = process.communicate(timeout=RUN_SECONDS)
    assert (process.returncode, SLOW_CALLBACK.sub("", errors)) == (1, "")
    assert "This does not add up:\n- the counts could not be read: " in output
    assert "\n- failed requests: " in output
    assert max(map(len, output.splitlines())) < 200
    scene.assert_empty()
