"""The standard library's queues, on green locks."""

from __future__ import annotations

import queue as stdlib_queue
from typing import Any

import pytest

from motorlike.errors import NotInGreenlet
from motorlike.green import queue
from motorlike.green.hub import sleep, spawn, wait


@pytest.mark.parametrize("name", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
def test_get_waits_for_an_item(green: Any, name: str) -> None:
    def check() -> None:
        items = getattr(queue, name)()
        getting = spawn(items.get)
        sleep(0)
        assert not getting.done()
        items.put(3)
        assert wait(getting) == 3

    green(check)


def test_put_waits_for_room(green: Any) -> None:
    def check() -> None:
        items: queue.Queue[int] = queue.Queue(1)
        items.put(1)
        putting = spawn(items.put, 2)
        sleep(0)
        assert not putting.done()
        assert [items.get(), items.get()] == [1, 2]
        assert putting.done() or wait(putting) is None

    green(check)


def test_join_waits_for_the_work(green: Any) -> None:
    def check() -> None:
        items: queue.Queue[int] = queue.Queue()
        items.put(1)
        joining = spawn(items.join)
        sleep(0)
        assert not joining.done()
        items.get()
        items.task_done()
        wait(joining)

    green(check)


def test_empty_and_full_are_the_stdlibs_own(green: Any) -> None:
    assert queue.Empty is stdlib_queue.Empty
    assert queue.Full is stdlib_queue.Full

    def check() -> None:
        items: queue.Queue[int] = queue.Queue(1)
        for call in (items.get_nowait, lambda: items.get(timeout=0.001)):
            with pytest.raises(stdlib_queue.Empty):
                call()
        with pytest.raises(stdlib_queue.Empty):
            queue.SimpleQueue[int]().get(timeout=0.001)
        items.put(1)
        for put in (items.put_nowait, lambda item: items.put(item, timeout=0.001)):
            with pytest.raises(stdlib_queue.Full):
                put(2)

    green(check)


@pytest.mark.skipif(not hasattr(stdlib_queue, "ShutDown"), reason="new in Python 3.13")
def test_a_shut_down_queue_raises_the_stdlibs_own(green: Any) -> None:
    def check() -> None:
        items: Any = queue.Queue()
        getting = spawn(items.get)
        sleep(0)
        items.shutdown()
        with pytest.raises(stdlib_queue.ShutDown):
            wait(getting)

    green(check)


def test_the_stdlibs_queue_is_left_alone() -> None:
    import threading

    assert queue.Queue is not stdlib_queue.Queue
    assert vars(stdlib_queue)["threading"] is threading
    assert type(stdlib_queue.Queue().mutex) is type(threading.Lock())


def test_waiting_on_the_loop_itself_is_refused(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(NotInGreenlet):
            queue.Queue().get()

    run(main)
