"""What the allocator does with large blocks, seen by the pages that the system has to provide."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is about glibc's allocator"
)

SCRIPT = """
import resource
from motorlike.heap import keep_large_blocks

def faults():
    # Of 20 times four blocks of 10 MB, written to and freed.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [b"x" * size for size in [10_000_000] * 4]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    keep_large_blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
if {keep}:
    keep_large_blocks.__wrapped__()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, faults())
"""
PAGES = 40_000_000 // os.sysconf("SC_PAGE_SIZE")


def run(keep: bool, **settings: str) -> tuple[int, int]:
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(keep=keep)],
        env={**environment, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    own, faults = done.stdout.split()
    return int(own), int(faults)


def test_the_memory_of_large_blocks_is_used_again_by_the_next_ones() -> None:
    _, faults = run(keep=True)
    assert faults < 2 * PAGES


def test_by_itself_the_allocator_gives_so_many_back() -> None:
    # Or else the test above says nothing.
    _, faults = run(keep=False)
    assert faults > 15 * PAGES


def test_it_takes_no_memory_itself() -> None:
    own, _ = run(keep=True)
    assert own < 100


def test_who_has_made_settings_for_the_allocator_keeps_them() -> None:
    _, faults = run(keep=True, MALLOC_TRIM_THRESHOLD_="131072")
    assert faults > 15 * PAGES


@pytest.mark.parametrize(
    "make",
    [
        "MotorGridFSBucket(client.db)",
        "MotorGridOut(client.db.fs, 1)",
        "MotorGridIn(client.db.fs)",
    ],
)
def test_making_anything_of_gridfs_asks_for_it(make: str) -> None:
    script = (
        "from motorlike import *\n"
        "from motorlike.heap import keep_large_blocks as keep\n"
        "client = MotorClient(connect=False)\n"
        "assert not keep.cache_info().misses\n"
        f"{make}\n"
        "assert keep.cache_info().misses == 1\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
