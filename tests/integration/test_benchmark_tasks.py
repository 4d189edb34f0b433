"""The benchmarks' tasks against real servers, in sizes that take no time.

What is claimed is that they do what they say, for motorlike and for another
client; never how fast.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from gridfs import GridFSBucket
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from motorlike.testing.mongod import Deployment
from tests.integration.support import CommandLog, run
from tests.unit.benchmarks.suite import module

load = module("load")
measure = module("measure")
peers = module("peers")
task_module = module("task")
tasks = module("tasks")

DATABASE = task_module.DATABASE
BOTH = pytest.mark.parametrize("peer", ["motorlike", "pymongo-async"])
Document = dict[str, Any]

DOCUMENTS: Document = {
    "tweet.json": {"text": "a tweet", "user": {"name": "somebody"}},
    "small_doc.json": {"field": "a small document"},
    "large_doc.json": {f"field{i}": "a large document" for i in range(100)},
}
LINES = [f"ldjson{i:03}.txt" for i in range(3)]
FILES = [f"file{i:02}.txt" for i in range(3)]
# Fewer than are published, where the data are not files already.
FEW = 5


def write_archive(folder: Path, name: str, files: dict[str, bytes]) -> None:
    with tarfile.open(folder / f"{name}.tgz", "w:gz") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def lines_of(name: str) -> bytes:
    return b"".join(b'{"file_name": "%s", "line": %d}\n' % (name.encode(), i) for i in range(4))


def content_of(name: str) -> bytes:
    return name.encode() * 1000


@pytest.fixture(scope="session")
def published_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of the published benchmark's form, and of a size for tests."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "benchmarking"
    folder.mkdir()
    single = {name: json.dumps(document).encode() for name, document in DOCUMENTS.items()}
    single["gridfs_large.bin"] = bytes(300_000)
    write_archive(folder, "single_and_multi_document", single)
    many = {f"ldjson_multi/{name}": lines_of(name) for name in LINES}
    many |= {f"gridfs_multi/{name}": content_of(name) for name in FILES}
    write_archive(folder, "parallel", many)
    return data


@pytest.fixture(autouse=True)
def small_sizes(published_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTORLIKE_DATA", str(published_data))
    for each in tasks.all_tasks():
        count = getattr(each, "count", 0)
        if each.group == "published" and count == 10:
            monkeypatch.setattr(each, "count", 2)
        elif count > 100:
            monkeypatch.setattr(each, "count", FEW)
    for each in module("tasks.memory").TASKS:
        monkeypatch.setattr(each, "warm_up_count", FEW)


@pytest.fixture
def database(
    synchronous: pymongo.MongoClient[Document],
) -> Iterator[pymongo.database.Database[Document]]:
    """What the tasks use of `mongod`."""
    synchronous.drop_database(DATABASE)
    yield synchronous[DATABASE]
    synchronous.drop_database(DATABASE)


def figures_of(
    name: str, peer: str, uri: str, folder: Path, *, at_once: int = 1, seconds: float = 0.01
) -> dict[str, float]:
    """Run the task once in this process, without warm-up."""
    task = tasks.find_task(name)
    assert task.lacks(peers.PEERS[peer]) is None
    case = measure.Case(name, peer, "asyncio", "plain", at_once, seconds, 0.0, uri, str(folder))

    async def main() -> dict[str, float]:
        bench = measure.Bench(case, peers.PEERS[peer])
        try:
            figures: dict[str, float] = await task.run(bench)
        finally:
            await bench.close()
        return figures

    figures = run(main())
    assert set(figures) == {figure.name for figure in task.figures}
    assert all(math.isfinite(figure) for figure in figures.values())
    return figures


Measure = Callable[..., dict[str, float]]


@pytest.fixture
def prepare_and_run(
    database: Any,
    synchronous: pymongo.MongoClient[Document],
    mongod_uri: str,
    tmp_path: Path,
) -> Measure:
    def prepared(name: str, peer: str, **options: Any) -> dict[str, float]:
        tasks.find_task(name).prepare(synchronous, tmp_path)
        return figures_of(name, peer, mongod_uri, tmp_path, **options)

    return prepared


# -- the published benchmark -----------------------------------------------


ALL_PUBLISHED = [task.name for task in tasks.all_tasks() if task.group == "published"]
PUBLISHED = [name for name in ALL_PUBLISHED if "client" not in name]
CLIENT_BULK_WRITES = [name for name in ALL_PUBLISHED if "client" in name]
# How many documents an iteration of each leaves in its collection.
WRITTEN = {
    "small_doc_insert_one": FEW,
    "small_doc_bulk_insert": FEW,
    "small_doc_collection_bulk_write_insert": FEW,
    "small_doc_collection_bulk_write_mixed": 0,
    "large_doc_insert_one": 2,
    "large_doc_bulk_insert": 2,
    "large_doc_collection_bulk_write_insert": 2,
    "ldjson_multi_file_import": 12,
}


SYNCHRONOUS = ["small_doc_insert_one", "ldjson_multi_file_import", "gridfs_multi_file_upload"]


@pytest.mark.parametrize(
    ("name", "peer"),
    [(name, peer) for peer in ("motorlike", "pymongo-async") for name in PUBLISHED]
    + [(name, "threads") for name in SYNCHRONOUS],
)
def test_published_task_does_its_work_and_gives_a_score(
    prepare_and_run: Measure, database: Any, name: str, peer: str
) -> None:
    figures = prepare_and_run(f"published.{name}", peer)
    assert figures["score"] > 0
    assert figures["cpu"] > 0
    if name in WRITTEN:
        assert database[f"published_{name}"].count_documents({}) == WRITTEN[name]


def test_an_export_has_every_line_of_every_file(prepare_and_run: Measure, tmp_path: Path) -> None:
    prepare_and_run("published.ldjson_multi_file_export", "motorlike")
    for name in LINES:
        exported = (tmp_path / name).with_suffix(".out").read_text().splitlines()
        found = [json.loads(line) for line in exported]
        assert [document["line"] for document in found] == [0, 1, 2, 3]
        assert {document["file_name"] for document in found} == {name}


def test_downloaded_files_are_those_that_were_stored(
    prepare_and_run: Measure, tmp_path: Path
) -> None:
    prepare_and_run("published.gridfs_multi_file_download", "motorlike")
    for name in FILES:
        assert (tmp_path / name).read_bytes() == content_of(name)


@BOTH
@pytest.mark.parametrize("name", ["gridfs_upload", "gridfs_multi_file_upload"])
def test_uploaded_files_are_deleted_after_the_iteration(
    prepare_and_run: Measure, database: Any, name: str, peer: str
) -> None:
    prepare_and_run(f"published.{name}", peer)
    assert database.fs.files.count_documents({}) == 0
    assert database.fs.chunks.count_documents({}) == 0


def test_client_bulk_writes_ask_for_a_server_that_has_them(
    prepare_and_run: Measure, synchronous: pymongo.MongoClient[Document]
) -> None:
    version = synchronous.server_info()["version"]
    assert len(CLIENT_BULK_WRITES) == 3
    for name in CLIENT_BULK_WRITES:
        if int(version.partition(".")[0]) >= 8:
            assert prepare_and_run(f"published.{name}", "motorlike")["score"] > 0
        else:
            with pytest.raises(task_module.Unavailable, match=version):
                prepare_and_run(f"published.{name}", "motorlike")


# -- GridFS and change streams ---------------------------------------------


@pytest.mark.parametrize("peer", ["motorlike", "pymongo-async", "threads"])
@pytest.mark.parametrize("name", ["gridfs.upload", "gridfs.download"])
def test_files_are_streamed(prepare_and_run: Measure, database: Any, name: str, peer: str) -> None:
    figures = prepare_and_run(name, peer, at_once=2)
    assert figures["megabytes"] > 0
    assert database.gridfs_uploads.files.count_documents({}) == 0


def test_a_file_that_is_short_is_noticed(
    prepare_and_run: Measure, database: Any, mongod_uri: str, tmp_path: Path
) -> None:
    prepare_and_run("gridfs.download", "motorlike")
    bucket = GridFSBucket(database, "gridfs_downloads")
    (stored,) = bucket.find({})
    bucket.delete(stored._id)
    bucket.upload_from_stream_with_id(stored._id, "another", b"short")
    with pytest.raises(EOFError, match="5 bytes"):
        figures_of("gridfs.download", "motorlike", mongod_uri, tmp_path)


@BOTH
@pytest.mark.parametrize("name", ["change_streams.read", "change_streams.fan_out"])
def test_events_are_read(
    replica_set: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    peer: str,
) -> None:
    task = tasks.find_task(name)
    if name.endswith("fan_out"):
        monkeypatch.setattr(task, "streams", 3)
    with pymongo.MongoClient[Document](replica_set.uri) as client:
        task.prepare(client, tmp_path)
        assert figures_of(name, peer, replica_set.uri, tmp_path)["rate"] > 0
        client.drop_database(DATABASE)


# -- the others ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("db", "motorlike"),
        ("queries", "motorlike"),
        ("updates", "motorlike"),
        ("fortunes", "motorlike"),
        ("db", "pymongo-async"),
    ],
)
def test_handlers_answer_under_load(
    prepare_and_run: Measure, monkeypatch: pytest.MonkeyPatch, name: str, peer: str
) -> None:
    monkeypatch.setattr(module("tasks.tornado_handlers"), "_CONNECTIONS", 4)
    task = tasks.find_task(f"tornado_handlers.{name}")
    monkeypatch.setattr(task, "path", task.path.replace("20", "2"))
    figures = prepare_and_run(task.full_name, peer, seconds=0.3)
    assert figures["rate"] > 0
    assert figures["p50"] <= figures["p99"]


@pytest.mark.parametrize(
    ("name", "exchanges"), [("db", 1), ("queries", 20), ("updates", 21), ("fortunes", 1)]
)
def test_the_limit_of_a_page_is_the_server_and_its_operations(
    database: pymongo.database.Database[Document],
    mongod_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    exchanges: int,
) -> None:
    monkeypatch.setattr(module("tasks.tornado_handlers"), "_CONNECTIONS", 4)
    task = tasks.find_task(f"tornado_handlers.{name}")
    task.prepare(database.client, tmp_path)
    case = measure.Case(
        task.full_name, "limit", "asyncio", "plain", 1, 0.2, 0.0, mongod_uri, str(tmp_path)
    )
    with pymongo.MongoClient[Document](mongod_uri, event_listeners=[log := CommandLog()]) as client:
        task.exchange(client[database.name])()
        assert len(log.names) == exchanges
    figures = module("limit").measure(task, case)
    parts = [figures[f"limit_{part}"] for part in ("driver", "kernel", "frame")]
    assert all(part > 0 for part in parts)
    assert figures["cpu"] == pytest.approx(sum(parts))


@BOTH
def test_each_client_of_a_storm_makes_a_handshake(
    tls_mongod: Deployment, tmp_path: Path, peer: str
) -> None:
    figures = figures_of("tls.storm", peer, tls_mongod.uri, tmp_path, at_once=3)
    assert figures["handshakes"] >= figures["rate"] > 0


@BOTH
@pytest.mark.parametrize("task", ["in_flight", "cursors_in_flight"])
def test_memory_of_operations_in_flight_is_told(
    prepare_and_run: Measure, peer: str, task: str
) -> None:
    figures = prepare_and_run(f"memory.{task}", peer)
    assert figures["peak"] >= figures["left"] - 1


@BOTH
def test_a_timer_is_late_while_documents_are_read(prepare_and_run: Measure, peer: str) -> None:
    figures = prepare_and_run("lag.large_reads", peer, at_once=10, seconds=0.1)
    assert 0 < figures["lag_p99"] <= figures["lag_max"]
    assert figures["rate"] > 0


@BOTH
def test_start_up_is_import_and_first_operation(
    prepare_and_run: Measure, monkeypatch: pytest.MonkeyPatch, peer: str
) -> None:
    monkeypatch.setattr(module("tasks.startup"), "_FEWEST", 1)
    figures = prepare_and_run("startup.first_operation", peer)
    assert figures["imports"] > 0
    assert figures["first"] > 0


def test_start_up_knows_every_client() -> None:
    assert set(module("tasks.startup")._STEPS) == set(peers.PEERS)


# -- the load --------------------------------------------------------------


class Answer(RequestHandler):
    def get(self, status: str) -> None:
        self.set_status(int(status))
        self.write(b"x" * 100_000)


async def load_on(path: str) -> Any:
    server = HTTPServer(Application([(r"/(\d+)", Answer)], log_function=lambda handler: None))
    (socket,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(socket)
    try:
        url = f"http://127.0.0.1:{socket.getsockname()[1]}{path}"
        return await load.apply_load(url, 3, 0.2, 0.05)
    finally:
        server.stop()
        await server.close_all_connections()


def test_load_counts_whole_answers() -> None:
    result = run(load_on("/200?large=yes"))
    assert result.tool == "asyncio"
    assert result.requests_per_second > 0
    assert 0 < result.p50_milliseconds <= result.p99_milliseconds


def test_load_on_a_server_that_fails_is_an_error() -> None:
    with pytest.raises(load.LoadFailed, match="503"):
        run(load_on("/503"))


def test_load_on_a_server_that_closes_its_connections_is_an_error() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(close, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await load.apply_load(f"http://127.0.0.1:{port}/", 1, 0.2, 0.05)

    with pytest.raises(load.LoadFailed, match="closed a connection"):
        run(main())
