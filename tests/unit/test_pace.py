"""How many documents an iteration asks for, from what it has seen and waited."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument

from motorlike.pace import Pace

MB = 1024 * 1024


def document(size: int) -> dict[str, Any]:
    """A document of *size* bytes of BSON."""
    made = {"x": "y" * (size - len(bson.encode({"x": ""})))}
    assert len(bson.encode(made)) == size
    return made


def paced(size: int = 1024) -> Pace:
    pace = Pace()
    pace.weigh(document(size))
    return pace


def test_before_a_document_was_seen_the_server_chooses() -> None:
    assert Pace().size == 0


@pytest.mark.parametrize(("size", "count"), [(64, MB // 64), (1024, 1024), (4096, 256)])
def test_a_batch_is_a_megabyte(size: int, count: int) -> None:
    assert paced(size).size == count


@pytest.mark.parametrize("size", [100 * 1024, MB, 16 * MB])
def test_of_large_documents_no_fewer_than_sixteen_are_asked_for(size: int) -> None:
    assert paced(size).size == 16


def test_documents_of_different_sizes_count_by_their_mean() -> None:
    pace = paced(64)
    pace.weigh(document(1984))
    assert pace.size == 1024


@pytest.mark.parametrize(
    "value",
    [
        uuid.uuid4(),
        datetime.datetime.now(datetime.UTC),
        bson.ObjectId(),
        b"raw",
        None,
        1.5,
        {"a": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_all_kinds_are_weighed(value: object) -> None:
    pace = Pace()
    pace.weigh({"value": value})
    assert pace.size == MB // len(
        bson.encode({"value": value}, codec_options=bson.CodecOptions(uuid_representation=4))
    )


def test_a_document_that_was_not_decoded_is_weighed_too() -> None:
    pace = Pace()
    pace.weigh(RawBSONDocument(bson.encode(document(2048))))
    assert pace.size == 512


@pytest.mark.parametrize("value", [object(), 1 << 70, {1: 2}, "\ud800"], ids=repr)
def test_what_cannot_be_weighed_leaves_the_size_as_it_was(value: object) -> None:
    pace = Pace()
    pace.weigh({"value": value})
    assert pace.size == 0
    pace.weigh(document(1024))
    pace.weigh({"value": value})
    assert pace.size == 1024


def test_a_raw_batch_is_no_document() -> None:
    pace = Pace()
    pace.weigh(bson.encode(document(1024)))
    assert pace.size == 0


def test_while_larger_batches_come_faster_they_grow_until_the_server_chooses() -> None:
    pace = paced()
    sizes = []
    for _ in range(7):
        # No batch is larger than 16 MB.
        pace.note_wait(pace.size or 16 * 1024, 0.05, 0.05)
        sizes.append(pace.size)
    assert sizes == [2048, 4096, 8192, 0, 0, 0, 0]


def test_a_batch_that_comes_no_faster_settles_the_size_before_it() -> None:
    pace = paced()
    pace.note_wait(1024, 0.001, 0.001)
    assert pace.size == 2048
    pace.note_wait(2048, 0.0018, 0.0018)
    assert pace.size == 1024
    pace.note_wait(1024, 0.0001, 0.0001)
    assert pace.size == 1024


def test_a_settled_size_still_follows_the_documents() -> None:
    pace = paced()
    pace.note_wait(1024, 1, 1)
    pace.note_wait(2048, 2, 2)
    pace.weigh(document(3072))
    assert pace.size == 512


def test_a_wait_for_nothing_weighed_changes_nothing() -> None:
    pace = Pace()
    pace.note_wait(100, 1, 1)
    pace.weigh(document(1024))
    assert pace.size == 1024


def test_a_clock_that_stood_still_is_no_error() -> None:
    pace = paced()
    pace.note_wait(1024, 0, 0)
    assert pace.size == 2048


QUICK, BUSY, SLOW = (0.01, 0.01), (0.01, 0.001), (0.02, 0.02)


@pytest.mark.parametrize(
    ("waits", "sizes"),
    [
        # Who was at work meanwhile does not ask for more; later it may.
        ([(0.01, 0.004), (0.01, 0.009)], [1024, 2048]),
        # A trial during which one was at work is taken back, and may come again.
        ([QUICK, BUSY, BUSY, SLOW], [2048, 1024, 1024, 2048]),
        # What has been seen to help stays.
        ([QUICK, QUICK, BUSY, BUSY], [2048, 4096, 2048, 2048]),
    ],
)
def test_an_iteration_that_is_at_work_asks_for_no_more(
    waits: list[tuple[float, float]], sizes: list[int]
) -> None:
    pace = paced()
    found = []
    for seconds, waited in waits:
        pace.note_wait(pace.size, seconds, waited)
        found.append(pace.size)
    assert found == sizes


def test_a_batch_that_others_have_taken_teaches_nothing() -> None:
    pace = paced()
    pace.note_wait(0, 0.01, 0.01)
    assert pace.size == 1024
    pace.note_wait(1024, 0.01, 0.01)
    pace.note_wait(0, 0.01, 0.01)
    assert pace.size == 2048


def test_many_documents_count_by_their_mean_too() -> None:
    pace = paced(64)
    pace.add(3, 4032)
    assert pace.size == 1024
    assert pace.count(2048) == 2.0
    assert Pace().count(2048) == 0.0


# -- near the server ------------------------------------------------------------

KB = 1024


def near(size: int = 1024, count: int = 1) -> Pace:
    """A pace whose first batch came at once, with *count* documents of *size* bytes."""
    pace = Pace()
    pace.note_answer(0.0005)
    pace.weigh(document(size), count)
    return pace


def test_near_the_server_an_iteration_begins_with_little_and_asks_for_twice_as_much_each_time() -> (
    None
):
    pace = near()
    sizes = [pace.size]
    while pace.size < 1024:
        pace.grow(pace.size * KB)
        sizes.append(pace.size)
    assert sizes == [48, 96, 192, 384, 768, 1024]


@pytest.mark.parametrize(
    ("size", "count", "asked"),
    [(64, 101, 768), (1024, 40, 80), (1024, 101, 202), (4096, 101, 202), (16 * KB, 101, 64)],
)
def test_no_less_is_asked_for_than_twice_the_first_batch(size: int, count: int, asked: int) -> None:
    assert near(size, count).size == asked


def test_a_first_batch_that_took_long_is_followed_by_a_megabyte() -> None:
    pace = Pace()
    pace.note_answer(0.002)
    pace.weigh(document(1024), 10)
    assert pace.size == 1024


def test_only_the_first_answer_tells_how_near_the_server_is() -> None:
    pace = paced()
    pace.note_answer(0.0005)
    assert pace.size == 1024
    pace.weigh(document(1024))
    assert pace.size == 1024


def test_a_small_batch_among_larger_ones_does_not_lower_what_is_asked_for() -> None:
    pace = near()
    pace.grow(400 * KB)
    assert pace.size == 800
    pace.grow(KB)
    assert pace.size == 800


def test_as_long_as_batches_grow_waiting_for_them_teaches_nothing() -> None:
    pace = near()
    for _ in range(3):
        pace.note_wait(48, 0.001, 0.001)
        assert pace.size == 48
    pace.grow(MB)
    pace.note_wait(1024, 0.001, 0.001)
    assert pace.size == 2048


def test_what_was_not_weighed_grows_no_size() -> None:
    pace = Pace()
    pace.note_answer(0.0005)
    pace.grow(KB)
    assert pace.size == 0


@pytest.mark.parametrize("made", [near, paced])
def test_of_documents_that_are_far_larger_than_was_known_fewer_are_asked_for_at_once(
    made: Callable[[int], Pace],
) -> None:
    pace = made(32)
    asked = pace.size
    pace.grow(16 * MB)
    assert pace.size == asked // 16
