"""The checks that every stream passes: TCP, Unix and TLS sockets alike.

Checks that use `both` run on the standard library's sockets as well, and must
see the same there.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import itertools
import os
import socket as stdlib_socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from motorlike.errors import ConcurrentUse, LoopMismatch, NotInGreenlet
from motorlike.green import socket as green_socket
from motorlike.green.hub import current_hub, sleep, spawn, wait
from motorlike.green.readiness import EventStream

Socket = Any


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """What a call does, in a form that can be compared."""
    try:
        return call(*args)
    except OSError as exc:
        return type(exc), exc.errno


def receive(sock: Socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            break
        data += part
    return data


# -- receiving --------------------------------------------------------------


def test_recv_returns_what_was_sent(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> bytes:
        peer.sendall(b"hello")
        return receive(sock, 5)

    assert both(check) == b"hello"


def test_recv_in_exact_sizes_splits_what_came_together(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> list[bytes]:
        peer.sendall(b"0123456789")
        return [receive(sock, size) for size in (1, 4, 3, 2)]

    assert both(check) == [b"0", b"1234", b"567", b"89"]


def test_recv_into_fills_a_part_of_a_buffer(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> tuple[Any, ...]:
        peer.sendall(b"abcdef")
        buffer = bytearray(b"........")
        counts = [sock.recv_into(memoryview(buffer)[2:5])]
        counts.append(sock.recv_into(buffer, 2))
        counts.append(sock.recv_into(memoryview(buffer)[7:].cast("B").cast("b")))
        return counts, bytes(buffer)

    assert both(check) == ([3, 2, 1], b"deabc..f")


@pytest.mark.parametrize(
    ("size", "message"), [(3, "buffer too small for requested bytes"), (-1, "negative")]
)
def test_a_size_that_the_buffer_has_not_is_refused(linked: Any, size: int, message: str) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        peer.sendall(b"x")
        with pytest.raises(ValueError, match=message):
            sock.recv_into(bytearray(2), size)
        assert receive(sock, 1) == b"x"

    linked(check)


def test_header_and_body_are_read_ahead_in_one_call(linked: Any, monkeypatch: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        stream = sock._stream
        calls: list[int] = []
        receive_once = stream._receive

        def counted(buffer: Any) -> Any:
            count = receive_once(buffer)
            calls.append(count)
            return count

        stream._receive = counted
        peer.sendall(b"head" + b"b" * 100)
        assert receive(sock, 4) == b"head"
        assert receive(sock, 100) == b"b" * 100
        assert [count for count in calls if count] == [104]

    linked(check)


def test_a_large_body_arrives_whole(both: Any, script: Any) -> None:
    body = os.urandom(3_000_000)

    def check(sock: Socket, peer: Socket) -> str:
        sending = script(peer.sendall, body)
        header = receive(sock, 10)
        buffer = bytearray(len(body) - 10)
        view = memoryview(buffer)
        got = 0
        while got < len(buffer):
            count = sock.recv_into(view[got:])
            assert count
            got += count
        sending.end()
        return hashlib.sha256(header + buffer).hexdigest()

    assert both(check) == hashlib.sha256(body).hexdigest()


def test_the_loop_has_its_turn_while_a_fast_peer_sends(linked: Any, script: Any) -> None:
    size = 24_000_000

    def check(sock: Socket, peer: Socket) -> None:
        turns = Turns()
        sending = script(peer.sendall, bytes(size))
        buffer = memoryview(bytearray(1 << 20))
        got = 0
        while got < size:
            got += sock.recv_into(buffer)
        sending.end()
        # At the least one for each two megabytes.
        assert turns.end() >= size >> 21

    linked(check)


def test_the_end_is_empty_bytes_again_and_again(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> list[bytes]:
        peer.sendall(b"last")
        peer.close()
        return [receive(sock, 4), sock.recv(10), sock.recv(10)]

    assert both(check) == [b"last", b"", b""]


def test_bytes_that_arrived_before_the_end_are_not_lost(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> bytes:
        peer.sendall(b"x" * 50_000)
        peer.close()
        return receive(sock, 60_000)

    assert both(check) == b"x" * 50_000


def test_receiving_nothing_returns_at_once(both: Any) -> None:
    assert both(lambda sock, peer: sock.recv(0)) == b""


def test_peek_leaves_the_bytes(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        peer.sendall(b"abcdef")
        if link.kind == "tls":
            with pytest.raises(ValueError, match="flags"):
                sock.recv(2, stdlib_socket.MSG_PEEK)
            return
        assert sock.recv(2, stdlib_socket.MSG_PEEK) == b"ab"
        assert receive(sock, 1) == b"a"
        # Now from what was read ahead.
        assert sock.recv(2, stdlib_socket.MSG_PEEK) == b"bc"
        with pytest.raises(OSError, match="already received"):
            sock.recv(2, stdlib_socket.MSG_OOB)
        assert receive(sock, 5) == b"bcdef"

    linked(check)


# -- time-outs --------------------------------------------------------------


def test_pitfall_12_a_recv_that_times_out_raises_timeout_error(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        sock.settimeout(0.01)
        return outcome(sock.recv, 1)

    assert both(check) == (TimeoutError, None)


def test_pitfall_12_each_error_is_an_instance_of_its_own(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        sock.settimeout(0.001)
        errors = []
        for _ in range(3):
            with pytest.raises(TimeoutError) as caught:
                sock.recv(1)
            errors.append(caught.value)
        assert len({id(each) for each in errors}) == 3

    linked(check)


def test_second_recv_gets_bytes_that_arrived_after_the_first_timed_out(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        results = []
        for data in (b"a", b"bc"):
            sock.settimeout(0.01)
            results.append(outcome(sock.recv, 1))
            peer.sendall(data)
            sock.settimeout(10)
            results.append(receive(sock, len(data)))
        return results

    assert both(check) == [(TimeoutError, None), b"a", (TimeoutError, None), b"bc"]


def test_the_timer_of_an_earlier_read_does_not_end_a_later_one(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        sock.settimeout(0.02)
        peer.sendall(b"a")
        receive(sock, 1)
        began = time.monotonic()
        for timeout in (0.1, None):
            sock.settimeout(timeout)
            future = spawn(receive, sock, 1)
            sleep(0.04)
            assert not future.done()
            peer.sendall(b"b")
            assert wait(future) == b"b"
        sock.settimeout(0.02)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert time.monotonic() - began < 5

    linked(check)


def test_a_shorter_time_out_after_a_longer_one_counts(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        sock.settimeout(30)
        peer.sendall(b"a")
        sleep(0.01)
        assert receive(sock, 1) == b"a"
        future = spawn(sock.recv, 1)
        sleep(0)
        future.cancel()
        sleep(0)
        sock.settimeout(0.01)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert time.monotonic() - began < 5

    linked(check)


def test_bytes_that_came_while_the_loop_was_busy_are_no_time_out(
    link: Any, run_on_each: Any
) -> None:
    """On uvloop timers run before descriptors are looked at."""
    from motorlike.green import ssl as green_ssl

    def check() -> None:
        sock, peer = link.connect(green_socket, green_ssl)
        with sock, peer:
            sock.settimeout(0.02)
            reading = spawn(sock.recv, 5)
            sleep(0)
            peer.sendall(b"hello")
            time.sleep(0.05)  # a callback that takes too long
            assert wait(reading) == b"hello"

    async def main() -> None:
        await spawn(check)

    run_on_each(main)


def test_time_out_zero_never_waits(both: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        sock.settimeout(0)
        results = [outcome(sock.recv, 1)]
        sock.setblocking(True)
        peer.sendall(b"abc")
        results.append(receive(sock, 1))
        sock.setblocking(False)
        results.append(sock.recv(2))
        results.append(outcome(sock.recv, 1))
        assert not sock.getblocking()
        assert sock.gettimeout() == 0
        return results

    would_block = (BlockingIOError, errno.EAGAIN)
    if link.kind == "tls":
        would_block = (ssl.SSLWantReadError, ssl.SSL_ERROR_WANT_READ)
    assert both(check) == [would_block, b"a", b"bc", would_block]


def test_pitfall_14_a_jump_of_the_wall_clock_ends_no_read(linked: Any, monkeypatch: Any) -> None:
    clock = iter(range(0, 10**12, 10**6))

    def check(sock: Socket, peer: Socket) -> None:
        monkeypatch.setattr(time, "time", clock.__next__)
        sock.settimeout(20)
        future = spawn(receive, sock, 1)
        sleep(0.01)
        assert not future.done()
        peer.sendall(b"x")
        assert wait(future) == b"x"

    linked(check)


# -- sending ----------------------------------------------------------------


class Turns:
    """How often the loop came to run its callbacks.

    Counted and not timed: on a busy machine a single system call may take
    longer than any bound that a test could set.
    """

    def __init__(self) -> None:
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._count += 1
        self._handle = self._loop.call_soon(self._tick)

    def end(self) -> int:
        self._handle.cancel()
        return self._count


def test_a_small_sendall_arrives_without_a_switch(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        sock.sendall(b"first")
        receive(peer, 5)
        switches: list[int] = []
        asyncio.get_running_loop().call_soon(switches.append, 1)
        for data in (b"a", bytearray(b"b"), memoryview(b"c")):
            sock.sendall(data)
        assert sock.send(b"d") == 1
        sock.sendall(b"")
        assert switches == []
        assert receive(peer, 4) == b"abcd"

    linked(check)


def test_pitfall_11_48_mb_in_one_sendall_leave_the_loop_its_turns(linked: Any, script: Any) -> None:
    body = os.urandom(1 << 20) * 48

    def slow_reader(peer: Socket) -> str:
        digest = hashlib.sha256()
        got = 0
        while got < len(body):
            part = peer.recv(1 << 20)
            got += len(part)
            digest.update(part)
            if got % (1 << 22) < len(part):
                time.sleep(0.002)
        return digest.hexdigest()

    def check(sock: Socket, peer: Socket) -> None:
        reading = script(slow_reader, peer)
        turns = Turns()
        sock.sendall(body)
        taken = turns.end()
        assert reading.end() == hashlib.sha256(body).hexdigest()
        # At the least one for each half megabyte.
        assert taken >= len(body) >> 19

    linked(check)


def test_pitfall_11_a_sendall_that_nobody_reads_times_out(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        sock.settimeout(0.05)
        return outcome(sock.sendall, bytes(20_000_000))

    assert both(check) == (TimeoutError, None)


def test_the_time_out_is_for_the_whole_sendall(linked: Any, script: Any) -> None:
    """Each part goes out in time, all together do not."""
    stop = threading.Event()

    def trickle(peer: Socket) -> None:
        while not stop.is_set() and peer.recv(1000):
            stop.wait(0.005)

    def check(sock: Socket, peer: Socket) -> None:
        reading = script(trickle, peer)
        sock.settimeout(0.15)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(40_000_000))
        assert time.monotonic() - began < 5
        stop.set()
        sock.close()
        reading.end()

    linked(check)


def test_pitfall_11_a_reset_during_a_send_is_its_error(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        sending = spawn(outcome, sock.sendall, bytes(20_000_000))
        sleep(0.01)
        assert not sending.done()
        reset(peer)
        error, code = wait(sending)
        if link.kind == "tls" and error is ssl.SSLEOFError:
            return  # what OpenSSL calls it, depending on when it looks
        assert error in (ConnectionResetError, BrokenPipeError)
        assert code in (errno.ECONNRESET, errno.EPIPE)

    linked(check)


def reset(peer: Socket) -> None:
    peer.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(peer.detach())


def test_a_reset_during_a_recv_is_its_error(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        sock.sendall(b"unread")
        reading = spawn(outcome, sock.recv, 1)
        sleep(0.01)
        reset(peer)
        assert wait(reading) in ((ConnectionResetError, errno.ECONNRESET), b"")

    linked(check)


def test_a_non_blocking_sendall_that_does_not_fit_says_so(both: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        sock.setblocking(False)
        return outcome(sock.sendall, bytes(20_000_000))

    wanted = BlockingIOError if link.kind != "tls" else ssl.SSLWantWriteError
    assert both(check)[0] is wanted


def test_send_waits_for_room(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        sock.setblocking(False)
        with pytest.raises(OSError):
            while True:
                sock.send(bytes(100_000))
        if sock._stream._is_encrypted:
            return  # OpenSSL must be given the same bytes again
        sock.setblocking(True)
        sending = spawn(sock.send, b"more")
        sleep(0)
        assert not sending.done()
        while not sending.done():
            peer.recv(1 << 20)
            sleep(0)
        assert sending.result() == 4

    linked(check)


# -- closing, cancelling, two at once ---------------------------------------


def test_close_from_another_greenlet_wakes_the_reader_with_os_error(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        reading = spawn(outcome, sock.recv, 1)
        sleep(0)
        sock.close()
        assert wait(reading) == (OSError, errno.EBADF)

    linked(check)


def test_close_from_another_greenlet_wakes_the_writer_with_os_error(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        sending = spawn(outcome, sock.sendall, bytes(20_000_000))
        sleep(0.01)
        assert not sending.done()
        sock.close()
        assert wait(sending) == (OSError, errno.EBADF)

    linked(check)


def test_a_closed_socket_refuses_everything_and_has_no_descriptor(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        peer.sendall(b"unread")
        receive(sock, 1)
        sock.close()
        sock.close()
        calls = [
            lambda: sock.recv(1),
            lambda: sock.recv_into(bytearray(1)),
            lambda: sock.send(b"x"),
            lambda: sock.sendall(b"x"),
            lambda: sock.sendall(bytes(1_000_000)),
        ]
        return sock.fileno(), [outcome(call) for call in calls]

    assert both(check) == (-1, [(OSError, errno.EBADF)] * 5)


def test_close_takes_the_socket_from_the_loop(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        peer.sendall(b"x")
        receive(sock, 1)
        assert list(current_hub().streams) == [sock.fileno()]
        sock.close()
        assert current_hub().streams == {}
        assert peer.recv(1) == b""

    linked(check)


def test_two_readers_at_once_are_an_error_that_names_the_socket(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        first = spawn(receive, sock, 1)
        sleep(0)
        with pytest.raises(ConcurrentUse, match=f"file descriptor {sock.fileno()}"):
            sock.recv(1)
        peer.sendall(b"x")
        time.sleep(0.01)
        # Bytes are there; they are the first one's all the same.
        with pytest.raises(ConcurrentUse):
            sock.recv(1)
        assert wait(first) == b"x"

    linked(check)


def test_two_writers_at_once_are_an_error_and_mix_no_bytes(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        first = spawn(sock.sendall, b"1" * 20_000_000)
        sleep(0.01)
        for size in (1, 1_000_000):
            with pytest.raises(ConcurrentUse, match="write"):
                sock.sendall(b"2" * size)
        with pytest.raises(ConcurrentUse, match="write"):
            sock.send(b"2")
        first.cancel()

    linked(check)


def test_one_may_read_while_another_writes(linked: Any, script: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        reading = spawn(receive, sock, 1)
        sending = spawn(sock.sendall, bytes(2_000_000))
        sleep(0)
        assert not reading.done()
        drain = script(receive, peer, 2_000_000)
        wait(sending)
        drain.end()
        peer.sendall(b"x")
        assert wait(reading) == b"x"

    linked(check)


def test_a_cancelled_recv_leaves_the_bytes_for_the_next(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        reading = spawn(sock.recv, 5)
        sleep(0)
        reading.cancel()
        sleep(0)
        peer.sendall(b"hello")
        assert receive(sock, 5) == b"hello"

    linked(check)


def test_a_cancel_as_the_bytes_arrive_loses_none(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        for number in range(20):
            reading = spawn(sock.recv, 2)
            sleep(0)
            peer.sendall(b"%02d" % number)
            reading.cancel()
            wait(asyncio.wait([reading]))
            assert receive(sock, 2) == b"%02d" % number

    linked(check)


def test_pitfall_9_a_forgotten_socket_is_closed_by_the_loop_and_not_at_once(
    link: Any, green: Any
) -> None:
    from motorlike.green import ssl as green_ssl

    def check() -> None:
        sock, peer = link.connect(green_socket, green_ssl)
        sock.settimeout(0.001)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        fd = sock.fileno()
        stream = current_hub().streams[fd]
        del sock
        # It may have been inside a lock, or on another greenlet's stack.
        assert not stream._closed  # type: ignore[attr-defined]
        sleep(0)
        assert fd not in current_hub().streams
        assert peer.recv(1) == b""
        peer.close()

    green(check)


def test_an_idle_connection_keeps_no_operations_context_alive(linked: Any) -> None:
    """The loop keeps the context in which a handler or a timer was added."""
    variable: ContextVar[Any] = ContextVar("variable")

    class Thing:
        pass

    def operation(sock: Socket, peer: Socket) -> weakref.ref[Thing]:
        thing = Thing()
        variable.set(thing)
        sock.settimeout(20)
        reading_began = asyncio.get_running_loop().call_soon(peer.sendall, b"reply")
        assert reading_began
        assert receive(sock, 5) == b"reply"
        return weakref.ref(thing)

    def check(sock: Socket, peer: Socket) -> None:
        gone = wait(spawn(operation, sock, peer))
        sleep(0)
        gc.collect()
        assert gone() is None
        assert isinstance(current_hub().streams[sock.fileno()], EventStream)

    linked(check)


def test_unasked_for_bytes_do_not_keep_the_loop_busy(linked: Any, monkeypatch: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        peer.sendall(b"a")
        receive(sock, 1)
        events: list[int] = []
        stream = sock._stream
        monkeypatch.setattr(stream, "_on_unasked_read_event", lambda: events.append(1))
        sock.settimeout(0.001)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        peer.sendall(b"unasked for")
        for _ in range(20):
            sleep(0.001)
        assert len(events) == 1
        assert receive(sock, 3) == b"una"

    linked(check)


# -- the rest of a socket ---------------------------------------------------


def test_makefile_reads_lines_and_writes(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        peer.sendall(b"one\ntwo\nrest")
        with sock.makefile("rwb") as file:
            lines = [file.readline(), file.readline(), file.read(4)]
            file.write(b"answer")
            file.flush()
        return lines, receive(peer, 6)

    assert both(check) == ([b"one\n", b"two\n", b"rest"], b"answer")


def test_a_file_keeps_its_closed_socket_open(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        file = sock.makefile("rb")
        sock.close()
        peer.sendall(b"still")
        data = file.read(5)
        file.close()
        return data, sock.fileno()

    assert both(check) == (b"still", -1)


def test_shutdown_ends_what_the_peer_reads(both: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        sock.sendall(b"bye")
        sock.shutdown(stdlib_socket.SHUT_WR)
        return receive(peer, 3), outcome(peer.recv, 1)

    assert both(check)[0] == b"bye"


def test_detach_gives_up_the_descriptor_still_open(both: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        sock.settimeout(None)
        sock.sendall(b"x")
        fd = sock.detach()
        assert os.get_blocking(fd)
        assert os.fstat(fd)
        os.close(fd)
        return sock.fileno()

    assert both(check) == -1


def test_detach_refuses_to_lose_bytes(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        peer.sendall(b"abc")
        receive(sock, 1)
        with pytest.raises(OSError, match="2 received bytes"):
            sock.detach()
        assert receive(sock, 2) == b"bc"

    linked(check)


def test_detach_wakes_a_reader(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        reading = spawn(outcome, sock.recv, 1)
        sleep(0)
        fd = sock.detach()
        assert wait(reading) == (OSError, errno.EBADF)
        os.close(fd)

    linked(check)


def test_the_context_manager_closes(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        with sock as same:
            assert same is sock
        return sock.fileno(), peer.recv(1)

    assert both(check) == (-1, b"")


def test_addresses_and_options_are_the_descriptors(both: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        assert sock.getpeername() == peer.getsockname()
        sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_KEEPALIVE, 1)
        sock.settimeout(3)
        return (
            sock.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_KEEPALIVE),
            sock.gettimeout(),
            sock.timeout,
            sock.getblocking(),
            sock.family,
            sock.type,
            sock.proto,
            sock.get_inheritable(),
        )

    assert both(check)[:2] == (1, 3.0)


def test_time_outs_are_checked(both: Any) -> None:
    def check(sock: Socket, peer: Socket) -> Any:
        with pytest.raises(ValueError, match="out of range"):
            sock.settimeout(-1)
        with pytest.raises(TypeError):
            sock.settimeout("1")
        sock.settimeout(None)
        return sock.gettimeout()

    assert both(check) is None


def test_a_call_on_the_loop_itself_is_refused_with_the_remedy(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        errors: list[BaseException] = []
        done = asyncio.get_running_loop().create_future()

        def on_the_loop() -> None:
            try:
                sock.recv(1)
            except NotInGreenlet as exc:
                errors.append(exc)
            done.set_result(None)

        asyncio.get_running_loop().call_soon(on_the_loop)
        wait(done)
        assert "green.spawn()" in str(errors[0])

    linked(check)


def test_waiting_on_another_loop_is_an_error_that_says_so(run: Any) -> None:
    """The event would come to a loop that does not run."""
    kept: list[Any] = []

    async def here() -> None:
        kept.extend(green_socket.socketpair())
        kept[0].settimeout(0.001)
        with pytest.raises(TimeoutError):
            await spawn(kept[0].recv, 1)

    async def there() -> None:
        for call in (lambda: kept[0].recv(1), lambda: kept[0].sendall(bytes(20_000_000))):
            with pytest.raises(LoopMismatch, match="another event loop"):
                await spawn(call)

    async def close() -> None:
        kept[0].close()
        kept[1].close()

    run(here)
    asyncio.run(there())
    run(close)


def test_pitfall_10_descriptors_above_1023_work(linked: Any, raised_limit: None) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        if type(sock) is not green_socket.socket:
            return
        with many_descriptors():
            high = sock.dup()
        with high:
            assert high.fileno() > 1023
            reading = spawn(receive, high, 2)
            sleep(0)
            peer.sendall(b"hi")
            assert wait(reading) == b"hi"
            high.sendall(b"ho")
            assert receive(peer, 2) == b"ho"

    linked(check)


class many_descriptors:  # noqa: N801 - used as a context manager
    def __enter__(self) -> None:
        self._fds = [os.dup(0)]
        while self._fds[-1] < 1024:
            self._fds.append(os.dup(0))

    def __exit__(self, *exc_info: object) -> None:
        for fd in self._fds:
            os.close(fd)


def test_a_callback_in_the_hubs_own_context_may_start_what_waits() -> None:
    async def main() -> None:
        hub = current_hub()
        loop = asyncio.get_running_loop()
        started: asyncio.Future[asyncio.Future[bytes]] = loop.create_future()
        ours, theirs = green_socket.socketpair()

        def start() -> None:
            started.set_result(hub.spawn(ours.recv, (5,), {}))

        loop.call_soon(start, context=hub.context)
        received = await started
        await spawn(theirs.sendall, b"hello")
        assert await received == b"hello"
        ours.close()
        theirs.close()

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [None, 0.02], ids=["no time-out", "whose time is over"])
def test_greenlets_that_hold_the_loop_for_long_take_turns_with_its_other_work(
    run_on_each: Any, timeout: float | None
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        order: list[str] = []

        def work(sock: Any) -> None:
            sock.settimeout(timeout)
            sock.recv(5)
            order.append("reply")
            deadline = time.monotonic() + 0.03
            while time.monotonic() < deadline:
                pass

        def other() -> None:
            order.append("other")
            if order.count("reply") < 6:
                loop.call_soon(other)

        pairs = [green_socket.socketpair() for _ in range(6)]
        working = [spawn(work, ours) for ours, _ in pairs]
        await asyncio.sleep(0)
        for _, theirs in pairs:
            theirs._sock.send(b"reply")
        time.sleep(timeout or 0)  # a callback that takes too long
        loop.call_soon(other)
        await asyncio.gather(*working)
        replies = [i for i, what in enumerate(order) if what == "reply"]
        assert len(replies) == 6
        assert all(b - a > 1 for a, b in itertools.pairwise(replies)), order
        for each in itertools.chain(*pairs):
            each.close()

    run_on_each(main)


def test_a_read_whose_bytes_others_take_ends_at_its_time_out(run_on_each: Any) -> None:
    """As where several processes accept from one listening socket."""

    async def main() -> None:
        ours, theirs = green_socket.socketpair()
        ours.settimeout(0.02)
        reading = spawn(ours.recv, 5)
        await asyncio.sleep(0)
        theirs._sock.send(b"taken")
        time.sleep(0.05)  # a callback that takes too long
        # The events before had their time: this one is put off.
        hub = current_hub()
        hub.slice.is_over = True
        for _ in range(3):
            await asyncio.sleep(0)
        assert not reading.done()
        with stdlib_socket.socket(fileno=os.dup(ours.fileno())) as other:
            assert other.recv(5) == b"taken"
        hub.slice.is_over = False
        await asyncio.wait([reading], timeout=5)
        assert reading.done()
        assert isinstance(reading.exception(), TimeoutError)
        ours.close()
        theirs.close()

    run_on_each(main)
