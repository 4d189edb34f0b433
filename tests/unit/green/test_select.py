"""Waiting for descriptors as a driver does that looks at them itself."""

from __future__ import annotations

import errno
import os
import select as stdlib_select
import time
from collections.abc import Callable
from typing import Any

import pytest

from motorlike.errors import NotInGreenlet
from motorlike.green import select, socket
from motorlike.green.hub import sleep, spawn, wait


@pytest.fixture
def pair(green: Any) -> Callable[..., Any]:
    def run(check: Callable[..., Any]) -> Any:
        def connected() -> Any:
            first, second = socket.socketpair()
            with first, second:
                return check(first, second)

        return green(connected)

    return run


def readable(sock: Any, timeout: float | None = None) -> list[tuple[int, int]]:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return poller.poll(timeout)


def test_poll_waits_until_a_socket_is_readable(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        polling = spawn(readable, first)
        sleep(0)
        assert not polling.done()
        second.sendall(b"x")
        assert wait(polling) == [(first.fileno(), select.POLLIN)]

    pair(check)


def test_poll_times_out_after_milliseconds_with_nothing(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        began = time.monotonic()
        assert readable(first, 20) == []
        assert 0.015 < time.monotonic() - began < 5
        assert readable(first, 0) == []

    pair(check)


def test_poll_sees_the_end_of_a_connection(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        polling = spawn(readable, first)
        sleep(0)
        second.close()
        assert wait(polling)[0][1] & select.POLLIN

    pair(check)


def test_poll_sees_bytes_that_a_socket_has_read_ahead(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        second.sendall(b"headbody")
        assert first.recv(4) == b"head"
        assert readable(first, 0) == [(first.fileno(), select.POLLIN)]
        assert readable(first) == [(first.fileno(), select.POLLIN)]
        assert select.select([first], [], [], 1) == ([first], [], [])
        assert first.recv(4) == b"body"
        assert readable(first, 0) == []

    pair(check)


def test_a_reader_that_waits_is_served_after_another_greenlet_polled(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        reading = spawn(first.recv, 1)
        sleep(0)
        assert readable(first, 5) == []
        polling = spawn(readable, first)
        sleep(0)
        second.sendall(b"x")
        assert wait(reading) == b"x"
        second.sendall(b"y")
        assert wait(polling) == [(first.fileno(), select.POLLIN)]

    pair(check)


def test_two_greenlets_may_poll_one_socket(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        polls = [spawn(readable, first) for _ in range(2)]
        sleep(0)
        second.sendall(b"x")
        for polling in polls:
            assert wait(polling) == [(first.fileno(), select.POLLIN)]

    pair(check)


def test_a_cancelled_poll_leaves_nothing_with_the_loop(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        before = set(os.listdir("/proc/self/fd"))
        polling = spawn(readable, first)
        sleep(0)
        polling.cancel()
        sleep(0)
        assert set(os.listdir("/proc/self/fd")) <= before
        second.sendall(b"x")
        assert first.recv(1) == b"x"

    pair(check)


def test_poll_forgets_what_was_unregistered_and_changes_what_was_modified(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        poller = select.poll()
        poller.register(first, select.POLLIN)
        poller.register(second.fileno())
        poller.modify(second, select.POLLIN)
        assert poller.poll(0) == []
        poller.modify(first, select.POLLOUT)
        assert poller.poll() == [(first.fileno(), select.POLLOUT)]
        poller.unregister(first)
        assert poller.poll(1) == []
        with pytest.raises(KeyError):
            poller.unregister(first)

    pair(check)


def test_urgent_bytes_alone_are_not_confused_with_others(pair: Any) -> None:
    """Otherwise the loop would spin: it cannot tell them apart."""

    def check(first: Any, second: Any) -> None:
        second.sendall(b"x")
        poller = select.poll()
        poller.register(first, select.POLLPRI)
        cpu = time.process_time()
        assert poller.poll(50) == []
        assert time.process_time() - cpu < 0.04

    pair(check)


def test_select_answers_with_the_objects_it_was_given(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        assert select.select([first], [first], [first]) == ([], [first], [])
        second.sendall(b"x")
        selecting = spawn(select.select, [first, second.fileno()], [], [], 5)
        assert wait(selecting) == ([first], [], [])
        assert select.select([], [], [], 0.001) == ([], [], [])

    pair(check)


def test_select_refuses_a_closed_descriptor_as_the_stdlib_does(pair: Any) -> None:
    def check(first: Any, second: Any) -> None:
        fd = os.dup(0)
        os.close(fd)
        for module in (select, stdlib_select):
            with pytest.raises(OSError, match="Bad file") as caught:
                module.select([fd], [], [], 1)
            assert caught.value.errno == errno.EBADF
            first.close()
            with pytest.raises(ValueError, match="negative"):
                module.select([first], [], [], 0)

    pair(check)


def test_pitfall_10_poll_works_above_descriptor_1023(pair: Any, raised_limit: None) -> None:
    def check(first: Any, second: Any) -> None:
        fds = [os.dup(0)]
        while fds[-1] < 1024:
            fds.append(os.dup(0))
        high = first.dup()
        for fd in fds:
            os.close(fd)
        with high:
            polling = spawn(readable, high)
            selecting = spawn(select.select, [high], [], [], 5)
            sleep(0)
            second.sendall(b"x")
            assert wait(polling) == [(high.fileno(), select.POLLIN)]
            assert high.fileno() > 1023
            assert wait(selecting) == ([high], [], [])

    pair(check)


def test_poll_on_the_loop_itself_looks_but_does_not_wait(run: Any) -> None:
    async def main() -> None:
        first, second = socket.socketpair()
        with first, second:
            assert readable(first, 0) == []
            with pytest.raises(NotInGreenlet, match="poll"):
                readable(first, 1)

    run(main)


def test_poll_looks_where_no_loop_runs() -> None:
    first, second = socket.socketpair()
    with first, second:
        assert readable(first, 0) == []
