"""The accounts alone: which slot is next."""

from __future__ import annotations

import itertools

import pytest

from motorlike.pool.shelf import Order, Shelf, Slot


def filled(order: Order, size: int = 3) -> tuple[Shelf[str], list[Slot[str]]]:
    shelf: Shelf[str] = Shelf(size, order)
    for number in range(size):
        slot = shelf.add()
        slot.connection, slot.used_at = f"connection {number}", number
        shelf.put(slot)
    return shelf, list(shelf.idle)


@pytest.mark.parametrize("order", ["lifo", "fifo"])
@pytest.mark.parametrize("finished", list(itertools.permutations(range(3))))
def test_slots_that_were_probed_keep_their_places(order: Order, finished: tuple[int, ...]) -> None:
    shelf, slots = filled(order)
    for slot in slots:
        shelf.take_idle(slot)
    for number in finished:
        shelf.put_back(slots[number])
    taken = [shelf.take() for _ in slots]
    assert taken == (slots if order == "fifo" else slots[::-1])


@pytest.mark.parametrize("order", ["lifo", "fifo", "least_loaded"])
def test_next_idle_is_the_one_that_is_taken(order: Order) -> None:
    shelf, _ = filled(order)
    while shelf.idle:
        expected = shelf.next_idle
        assert shelf.take() is expected
    assert shelf.next_idle is None


def test_the_fewest_users_get_one_more() -> None:
    shelf, slots = filled("least_loaded")
    for _ in range(10):
        shelf.take()
    slots[1].users -= 2
    assert [shelf.take() for _ in range(2)] == [slots[1], slots[1]]
    slots[1].users = 1
    slots[1].is_retired = True
    assert shelf.take() is not slots[1]


def test_a_full_shelf_has_nothing_to_take() -> None:
    shelf, _ = filled("lifo")
    assert not shelf.has_room
    taken = [shelf.take() for _ in range(4)]
    assert taken[3] is None
    assert taken[0] is not None
    shelf.remove(taken[0])
    assert shelf.has_room
