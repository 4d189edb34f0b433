"""The published benchmark's rules: how often, and what makes the score."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.benchmarks.suite import module

published_data = module("published_data")
published_task = module("published_task")
task = module("task")


class Scripted(published_task.Published):  # type: ignore[misc, name-defined]  # found at run time
    """A task of 12 MB whose iterations take the seconds that it is given."""

    name = "scripted"
    summary = "take some time"
    megabytes = 12.0

    def __init__(self, times: Iterable[float]) -> None:
        self.times = iter(times)
        self.iterations = 0

    async def _iteration(self, work: Any) -> tuple[float, float]:
        self.iterations += 1
        return next(self.times), 0.6


class Client:
    def collection(self, database: str, name: str) -> str:
        return f"{database}.{name}"


def run(scripted: Scripted, seconds: float, warm_up: float = 0.0) -> dict[str, float]:
    async def connect() -> Client:
        return Client()

    bench = SimpleNamespace(
        connect=connect,
        folder=Path(),
        peer=SimpleNamespace(is_concurrent=True),
        case=SimpleNamespace(seconds=seconds, warm_up=warm_up),
    )
    figures: dict[str, float] = asyncio.run(scripted.run(bench))
    return figures


def test_score_is_the_size_by_the_median_time() -> None:
    assert run(Scripted([3, 9, 1]), seconds=13)["score"] == 12 / 3


def test_cpu_is_the_mean_by_the_size() -> None:
    assert run(Scripted([3, 9, 1]), seconds=13)["cpu"] == pytest.approx(600 / 12)


def test_a_part_of_the_work_is_scored_by_its_part_of_the_size() -> None:
    scripted = Scripted([2])
    scripted.count = scripted.published_count // 4
    assert run(scripted, seconds=1)["score"] == 3 / 2


def test_iterations_end_when_they_have_taken_the_seconds() -> None:
    scripted = Scripted([2, 2, 2])
    run(scripted, seconds=4)
    assert scripted.iterations == 2


def test_there_is_one_iteration_at_least() -> None:
    scripted = Scripted([2])
    run(scripted, seconds=0)
    assert scripted.iterations == 1


def test_there_are_a_hundred_iterations_at_most() -> None:
    scripted = Scripted([0.001] * 101)
    run(scripted, seconds=60)
    assert scripted.iterations == 100


def test_warm_up_is_not_scored() -> None:
    assert run(Scripted([100, 2]), seconds=1, warm_up=0.5)["score"] == 6


def test_tasks_that_take_long_are_not_warmed_up() -> None:
    scripted = Scripted([2])
    scripted.warms_up = False
    assert run(scripted, seconds=1, warm_up=0.5)["score"] == 6


# -- the data --------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data" / "benchmarking"
    folder.mkdir(parents=True)
    monkeypatch.setenv("MOTORLIKE_DATA", str(tmp_path / "data"))
    with tarfile.open(folder / "some.tgz", "w:gz") as tar:
        for name in ("some/one.txt", "some/many/a.txt", "some/many/b.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return folder


def test_only_the_file_that_is_wanted_is_unpacked(data: Path, tmp_path: Path) -> None:
    published_data.unpack("some/one.txt", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/some").iterdir()] == ["one.txt"]


def test_all_files_of_a_folder_are_unpacked(data: Path, tmp_path: Path) -> None:
    published_data.unpack("some/many", tmp_path / "out")
    found = sorted((tmp_path / "out/some/many").iterdir())
    assert [path.read_text() for path in found] == ["some/many/a.txt", "some/many/b.txt"]


@pytest.mark.parametrize("path", ["none/one.txt", "some/none.txt"])
def test_data_that_are_missing_make_the_task_unavailable(data: Path, path: str) -> None:
    with pytest.raises(task.Unavailable, match=r"no (published data|some/none.txt)"):
        published_data.unpack(path, data)


def test_a_file_of_a_task_that_reads_one_is_that_file(tmp_path: Path) -> None:
    scripted = Scripted([])
    scripted.data = "some/one.json"
    assert scripted.files(tmp_path) == [tmp_path / "some/one.json"]
