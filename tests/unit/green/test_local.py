"""Attributes that differ from greenlet to greenlet."""

from __future__ import annotations

import gc
import threading as stdlib_threading
import weakref
from typing import Any

import pytest

from motorlike.green.hub import sleep, spawn, wait
from motorlike.green.local import local


class Thing:
    pass


def test_each_greenlet_sees_its_own_attributes(green: Any) -> None:
    mine = local()
    mine.name = "hub"

    def use(name: str) -> str:
        assert not hasattr(mine, "name")
        mine.name = name
        sleep(0)
        return str(mine.name)

    def check() -> None:
        futures = [spawn(use, name) for name in "abc"]
        assert [wait(future) for future in futures] == ["a", "b", "c"]

    green(check)
    assert mine.name == "hub"
    assert mine.__dict__ == {"name": "hub"}


def test_the_next_callable_of_a_worker_starts_with_none(run: Any) -> None:
    mine = local()

    def use() -> bool:
        known = hasattr(mine, "name")
        mine.name = "set"
        return known

    async def main() -> None:
        assert [await spawn(use) for _ in range(3)] == [False] * 3

    run(main)


def test_values_go_with_the_callable_and_with_the_local(run: Any) -> None:
    mine = local()

    def use() -> Any:
        mine.thing = Thing()  # noqa: F821 - deleted after the call
        return weakref.ref(mine.thing)  # noqa: F821 - deleted after the call

    async def main() -> None:
        assert (await spawn(use))() is None

    run(main)
    mine.thing = Thing()
    gone = weakref.ref(mine.thing)
    del mine
    gc.collect()
    assert gone() is None


class Counted(local):
    made = 0

    def __init__(self, start: int) -> None:
        type(self).made += 1
        self.number = start

    @property
    def doubled(self) -> int:
        return self.number * 2

    @doubled.setter
    def doubled(self, value: int) -> None:
        self.number = value // 2


def test_a_subclass_is_initialised_in_each_greenlet(green: Any) -> None:
    Counted.made = 0
    mine = Counted(5)
    mine.number = 6

    def use() -> tuple[int, int]:
        mine.doubled = mine.doubled + 2
        return mine.number, mine.doubled

    assert green(use) == (6, 12)
    assert mine.number == 6
    assert Counted.made == 2


@pytest.mark.parametrize("make", [local, stdlib_threading.local])
def test_misuse_is_told_as_the_stdlib_does(make: Any) -> None:
    with pytest.raises(TypeError, match="not supported"):
        make(1)
    mine = make()
    for call in (lambda: mine.missing, lambda: delattr(mine, "missing")):
        with pytest.raises(AttributeError):
            call()
    with pytest.raises(AttributeError):
        mine.__dict__ = {}
    mine.name = 1
    del mine.name
    assert not hasattr(mine, "name")
    assert isinstance(mine, make)
