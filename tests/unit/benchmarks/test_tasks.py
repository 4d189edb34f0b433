"""The tasks of the benchmarks, as their tables and the command line see them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.unit.benchmarks.suite import IS_INSTALLED, PACKAGE, module, peers

tasks = module("tasks")
ALL = tasks.all_tasks()

# So that start-up is measured in the child and not before.
PROGRAM = f"""
import sys
import {PACKAGE}.child
from {PACKAGE}.tasks import all_tasks
all_tasks()
print(*sorted({{"motor", "mongojet", "motorlike", "pymongo", "uvloop"}} & set(sys.modules)))
"""


def test_names_are_unique_and_found() -> None:
    names = [each.full_name for each in ALL]
    assert len(set(names)) == len(names)
    assert [tasks.find_task(name).full_name for name in names] == names


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(LookupError, match=r"operations\.dance"):
        tasks.find_task("operations.dance")


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("ping", {"operations.ping"}),
        ("operations.ping", {"operations.ping"}),
        ("operations.p*", {"operations.ping"}),
        ("*_one", {"operations.find_one", "operations.insert_one", "operations.update_one"}),
    ],
)
def test_patterns_fit_names_with_and_without_the_group(pattern: str, expected: set[str]) -> None:
    found = {each.full_name for each in tasks.matching([pattern], ALL)}
    assert {name for name in found if name.startswith("operations.")} == expected


def test_chosen_tasks_keep_the_order_of_the_report() -> None:
    chosen = tasks.matching(["ping", "find_one", "operations"], ALL)
    operations = [each.name for each in chosen if each.group == "operations"]
    assert operations == ["find_one", "insert_one", "update_one", "update_same", "ping"]


@pytest.mark.parametrize("each", ALL, ids=lambda each: str(each.full_name))
def test_a_task_is_described(each: Any) -> None:
    assert each.summary
    assert "\n" not in each.summary
    assert each.figures
    names = [figure.name for figure in each.figures]
    assert len(set(names)) == len(names)
    assert set(each.transports) <= {"plain", "tls", "unix"}
    assert each.at_once is None or each.at_once


@pytest.mark.parametrize("each", ALL, ids=lambda each: str(each.full_name))
def test_motorlike_lacks_nothing(each: Any) -> None:
    assert each.lacks(peers.PEERS["motorlike"]) is None


@pytest.mark.skipif(IS_INSTALLED, reason="inside the package, importing it comes first")
def test_no_client_is_imported_before_it_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
