"""Sends that wait for the end of the loop's turn, on real sockets.

Most checks hold every small send, with `hold_all`; the first ones show when
that is done by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import socket as stdlib_socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from motorlike.errors import ConcurrentUse
from motorlike.green import select as green_select
from motorlike.green import socket as green_socket
from motorlike.green import ssl as green_ssl
from motorlike.green.hub import current_hub, sleep, spawn, wait
from motorlike.green.outbox import COMPANY, Outbox

from .conftest import LIMIT_SECONDS

Socket = Any

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError)


def hold_all() -> Outbox:
    """Hold all small sends from now on, however few answers are under way."""
    outbox = current_hub().outbox
    outbox.company = 0
    return outbox


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let nothing go out for its age, however slow the machine, and set another age."""

    def set_patience(seconds: float) -> None:
        monkeypatch.setattr("motorlike.green.outbox._PATIENCE_SECONDS", seconds)

    set_patience(LIMIT_SECONDS)
    return set_patience


def arrived(peer: Socket) -> bytes:
    """What *peer* can read now."""
    peer.settimeout(0)
    try:
        return peer.recv(1 << 20)  # type: ignore[no-any-return]
    except WOULD_BLOCK:
        return b""
    finally:
        peer.settimeout(5)


def receive(sock: Socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(min(size - len(data), 1 << 16))
        if not part:
            break
        data += part
    return data


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except OSError as exc:
        return type(exc), exc.errno


def reset(peer: Socket) -> None:
    peer.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(peer.detach())


def pair() -> tuple[Socket, stdlib_socket.socket]:
    ours, theirs = stdlib_socket.socketpair()
    theirs.settimeout(5)
    green = green_socket.socket._wrap(ours)
    green.settimeout(LIMIT_SECONDS)
    return green, theirs


class Pairs:
    """Connected sockets, closed at the end."""

    def __init__(self, count: int) -> None:
        self._pairs = [pair() for _ in range(count)]

    def __enter__(self) -> list[tuple[Socket, stdlib_socket.socket]]:
        return self._pairs

    def __exit__(self, *exc_info: object) -> None:
        for ours, theirs in self._pairs:
            ours.close()
            theirs.close()


def ask(sock: Socket, question: bytes = b"ask") -> bytes:
    sock.sendall(question)
    return sock.recv(100)  # type: ignore[no-any-return]


# -- when sends are held ----------------------------------------------------


def test_a_send_goes_out_at_once_until_enough_others_wait_for_answers(run_on_each: Any) -> None:
    async def main() -> None:
        with Pairs(COMPANY + 3) as pairs:
            asking = []
            for number, (sock, peer) in enumerate(pairs):
                asking.append(spawn(ask, sock))
                assert current_hub().outbox.awaited == number + 1
                assert arrived(peer) == (b"ask" if number < COMPANY else b"")
            await asyncio.sleep(0)
            for _, peer in pairs[COMPANY:]:
                assert receive(peer, 3) == b"ask"
            for _, peer in pairs:
                peer.send(b"answer")
            assert await asyncio.gather(*asking) == [b"answer"] * len(pairs)
            assert current_hub().outbox.awaited == 0

    run_on_each(main)


def test_what_many_send_in_one_turn_goes_out_together_at_its_end(run_on_each: Any) -> None:
    async def main() -> None:
        hold_all()
        with Pairs(5) as pairs:
            asking = [spawn(ask, sock, b"%d" % i) for i, (sock, _) in enumerate(pairs)]
            assert [arrived(peer) for _, peer in pairs] == [b""] * 5
            await asyncio.sleep(0)
            for i, (_, peer) in enumerate(pairs):
                assert receive(peer, 1) == b"%d" % i
                peer.send(b"answer %d" % i)
            assert await asyncio.gather(*asking) == [b"answer %d" % i for i in range(5)]

    run_on_each(main)


def test_a_held_send_arrives_whole_and_in_order(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        for size in (0, 1, 100, 4096):
            data = os.urandom(size)
            sock.sendall(data)
            assert arrived(peer) == b""
            sleep(0)
            assert receive(peer, size) == data
            peer.sendall(b"answer")
            assert receive(sock, 6) == b"answer"

    linked(check)


def test_only_a_small_one_is_held(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(bytes(4097))
        assert receive(peer, 4097) == bytes(4097)

    linked(check)


def test_a_buffer_that_may_change_is_not_held(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        data = bytearray(b"before")
        for buffer in (data, memoryview(data)):
            sock.sendall(buffer)
            data[:] = b"after "
            assert receive(peer, 6) == b"before"
            data[:] = b"before"
            peer.sendall(b"a")
            receive(sock, 1)

    linked(check)


def test_a_non_blocking_socket_holds_nothing(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.setblocking(False)
        sock.sendall(b"now")
        assert receive(peer, 3) == b"now"

    linked(check)


def test_send_is_never_held_and_comes_after_what_is(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"first ")
        assert arrived(peer) == b""
        assert sock.send(b"second") == 6
        assert receive(peer, 12) == b"first second"

    linked(check)


def test_another_send_on_the_stream_sends_both(linked: Any) -> None:
    """The first had no answer: what it left in the kernel is not known."""

    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        for _ in range(3):
            sock.sendall(b"header ")
            assert arrived(peer) == b""
            sock.sendall(b"body")
            assert receive(peer, 11) == b"header body"
            sock.sendall(b"more")
            assert receive(peer, 4) == b"more"
            peer.sendall(b"a")
            receive(sock, 1)

    linked(check)


def test_a_send_on_a_second_stream_sends_what_nobody_waits_for(green: Any) -> None:
    def check() -> None:
        hold_all()
        with Pairs(2) as ((first, first_peer), (second, second_peer)):
            first.sendall(b"1")
            second.sendall(b"2")
            assert receive(first_peer, 1) == b"1"
            assert arrived(second_peer) == b""
            sleep(0)
            assert receive(second_peer, 1) == b"2"

    green(check)


def test_a_read_of_another_stream_that_is_refused_does_not_keep_what_is_held(green: Any) -> None:
    def check() -> None:
        hold_all()
        with Pairs(2) as ((first, first_peer), (second, second_peer)):
            reading = spawn(second.recv, 1)

            def operation() -> None:
                first.sendall(b"sent")
                second.recv(1)

            async def start() -> bytes:
                refused = spawn(operation)
                assert isinstance(refused.exception(), ConcurrentUse)
                return arrived(first_peer)

            sleep(0)
            assert wait(start()) == b"sent"
            second_peer.send(b"x")
            assert wait(reading) == b"x"

    green(check)


def test_who_waits_without_having_asked_is_no_company(green: Any) -> None:
    def check() -> None:
        outbox = current_hub().outbox
        with Pairs(COMPANY + 3) as pairs:
            idle = [spawn(sock.recv, 9) for sock, _ in pairs[:-1]]
            sleep(0)
            assert outbox.awaited == 0
            sock, peer = pairs[-1]
            sock.sendall(b"at once")
            assert arrived(peer) == b"at once"
            for _, peer in pairs:
                peer.send(b"x")
            for future in idle:
                wait(future)

    green(check)


def test_streamed_replies_are_no_company(linked: Any) -> None:
    """A monitor asks once, and then waits for one reply after the other."""

    def check(sock: Socket, peer: Socket) -> None:
        outbox = current_hub().outbox

        def monitor() -> list[int]:
            sock.sendall(b"hello")
            counts = []
            for _ in range(3):
                receive(sock, 5)
                counts.append(outbox.awaited)
            return counts

        monitoring = spawn(monitor)
        sleep(0)
        awaited = []
        for _ in range(3):
            awaited.append(outbox.awaited)
            peer.sendall(b"reply")
            sleep(0.01)
        assert wait(monitoring) == [0, 0, 0]
        assert awaited == [1, 0, 0]

    linked(check)


@pytest.mark.parametrize("ending", ["reply", "end", "time-out", "cancel", "close", "refusal"])
def test_nothing_is_awaited_after_the_end(linked: Any, ending: str) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        outbox = hold_all()
        if ending == "time-out":
            sock.settimeout(0.01)
        reader = spawn(outcome, sock.recv, 1) if ending == "refusal" else None
        sleep(0)
        asking = spawn(outcome, ask, sock)
        if reader is None:
            sleep(0)
            assert outbox.awaited == 1
            sleep(0)
        if ending == "reply":
            peer.sendall(b"x")
        elif ending == "end":
            receive(peer, 3)
            peer.close()
        elif ending == "cancel":
            asking.cancel()
        elif ending == "close":
            sock.close()
        if ending == "refusal":
            with pytest.raises(ConcurrentUse):
                wait(asking)
        else:
            wait(asyncio.wait([asking]))
        assert outbox.awaited == 0
        if reader is not None:
            reader.cancel()

    linked(check)


# -- who does not wait for the answer ---------------------------------------


def test_what_was_sent_is_out_before_the_result_is_seen(link: Any, run_on_each: Any) -> None:
    async def main() -> None:
        hold_all()
        sock, peer = await spawn(link.connect, green_socket, green_ssl)
        with sock, peer:
            future = spawn(sock.sendall, b"unacknowledged")
            assert future.done()
            assert current_hub().outbox.held is None
            assert receive(peer, 14) == b"unacknowledged"
            peer.sendall(b"a")
            await spawn(sock.recv, 1)

            def fail() -> None:
                sock.sendall(b"failed")
                raise KeyError

            future = spawn(fail)
            assert isinstance(future.exception(), KeyError)
            assert receive(peer, 6) == b"failed"

    run_on_each(main)


def test_what_was_sent_is_out_though_the_loop_stops_right_then(new_loop: Any) -> None:
    loop = new_loop()
    kept: list[Any] = []

    async def start() -> None:
        hold_all()
        kept.extend(pair())
        spawn(kept[0].sendall, b"sent").add_done_callback(lambda _: loop.stop())
        await asyncio.sleep(LIMIT_SECONDS)

    task = loop.create_task(start())
    loop.run_forever()
    assert receive(kept[1], 4) == b"sent"

    async def end() -> None:
        task.cancel()
        kept[0].close()
        kept[1].close()
        await loop.shutdown_asyncgens()

    loop.run_until_complete(end())
    loop.close()


def test_a_send_before_another_wait_goes_out_at_the_turns_end(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()

        def send_and_sleep() -> None:
            sock.sendall(b"sent")
            sleep(LIMIT_SECONDS)

        sleeping = spawn(send_and_sleep)
        sleep(0)
        sleep(0)
        assert receive(peer, 4) == b"sent"
        assert current_hub().outbox.held is None
        sleeping.cancel()

    linked(check)


def test_close_sends_first(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"last words")
        sock.close()
        assert receive(peer, 100) == b"last words"

    linked(check)


def test_a_close_that_cannot_send_is_none_the_less_silent(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"last words")
        reset(peer)
        sock.close()
        assert sock.fileno() == -1

    linked(check)


def test_shutdown_sends_first(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"last words")
        sock.shutdown(stdlib_socket.SHUT_WR)
        assert receive(peer, 10) == b"last words"
        if link.kind != "tls":
            assert peer.recv(1) == b""

    linked(check)


def test_detach_sends_first(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"first ")
        fd = sock.detach()
        if link.kind != "tls":
            os.write(fd, b"second")
            assert receive(peer, 12) == b"first second"
        else:
            assert receive(peer, 6) == b"first "
        os.close(fd)

    linked(check)


def test_fileno_sends_first(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"first ")
        fd = sock.fileno()
        assert receive(peer, 6) == b"first "
        assert os.fstat(fd)

    linked(check)


def test_a_duplicate_sends_after_its_original(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        if link.kind == "tls":
            return  # the standard library has no duplicates of them either
        hold_all()
        sock.sendall(b"first ")
        with sock.dup() as copy:
            copy.send(b"second")
        assert receive(peer, 12) == b"first second"

    linked(check)


def test_wrapping_a_socket_sends_first_what_is_plain(
    green: Any, script: Any, certificates: Any
) -> None:
    """As with STARTTLS where the client need not wait for an answer, MySQL's way."""
    listener = stdlib_socket.create_server(("127.0.0.1", 0))
    listener.settimeout(LIMIT_SECONDS)

    def serve() -> bytes:
        sock, _ = listener.accept()
        sock.settimeout(LIMIT_SECONDS)
        plain = receive(sock, 9)
        with certificates.server_context().wrap_socket(sock, server_side=True) as tls:
            data = receive(tls, 6)
            tls.sendall(b"answer")
            return plain + data

    def check() -> None:
        hold_all()
        with green_socket.create_connection(listener.getsockname(), LIMIT_SECONDS) as sock:
            sock.sendall(b"STARTTLS\n")
            context = certificates.client_context()
            with context.wrap_socket(sock, server_hostname="localhost") as tls:
                tls.sendall(b"secret")
                assert receive(tls, 6) == b"answer"

    serving = script(serve)
    with listener:
        green(check)
    assert serving.end() == b"STARTTLS\nsecret"


def test_the_end_of_tls_comes_after_what_is_held(
    green: Any, script: Any, certificates: Any
) -> None:
    listener = stdlib_socket.create_server(("127.0.0.1", 0))
    listener.settimeout(LIMIT_SECONDS)

    def serve() -> tuple[bytes, bytes]:
        sock, _ = listener.accept()
        sock.settimeout(LIMIT_SECONDS)
        tls = certificates.server_context().wrap_socket(sock, server_side=True)
        secret = receive(tls, 100)
        with tls.unwrap() as plain:
            return secret, receive(plain, 5)

    def check() -> None:
        hold_all()
        with green_socket.create_connection(listener.getsockname(), LIMIT_SECONDS) as sock:
            tls = certificates.client_context().wrap_socket(sock, server_hostname="localhost")
            tls.sendall(b"secret")
            with tls.unwrap() as plain:
                plain.sendall(b"plain")

    serving = script(serve)
    with listener:
        green(check)
    assert serving.end() == (b"secret", b"plain")


# -- who looks at the socket without waiting --------------------------------


def look_by_poll(sock: Socket, poller: Any) -> None:
    assert poller.poll(0) == []


def look_by_select(sock: Socket, poller: Any) -> None:
    assert green_select.select([sock], [], [], 0) == ([], [], [])


def look_by_recv(sock: Socket, poller: Any) -> None:
    sock.settimeout(0)
    with pytest.raises(WOULD_BLOCK):
        sock.recv(1)


def look_by_recvfrom(sock: Socket, poller: Any) -> None:
    sock.settimeout(0)
    with pytest.raises((*WOULD_BLOCK, ValueError)):
        sock.recvfrom(1)


def look_by_peeking(sock: Socket, poller: Any) -> None:
    sock.settimeout(0)
    with pytest.raises((*WOULD_BLOCK, ValueError)):
        sock.recv(1, stdlib_socket.MSG_PEEK)


@pytest.mark.parametrize(
    "look", [look_by_poll, look_by_select, look_by_recv, look_by_recvfrom, look_by_peeking]
)
def test_who_looks_for_the_answer_again_and_again_has_asked(linked: Any, look: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        poller = green_select.poll()
        poller.register(sock, green_select.POLLIN)
        sock.sendall(b"ask")
        look(sock, poller)
        assert receive(peer, 3) == b"ask"

    linked(check)


def test_a_time_out_ends_the_wait_for_an_answer_as_ever(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.settimeout(0.01)
        assert outcome(ask, sock) == (TimeoutError, None)
        assert receive(peer, 3) == b"ask"
        peer.sendall(b"late")
        sock.settimeout(5)
        assert receive(sock, 4) == b"late"

    linked(check)


def test_a_file_made_of_the_socket_asks_and_gets_answers(linked: Any, script: Any) -> None:
    def echo(peer: Socket) -> None:
        for _ in range(3):
            peer.sendall(receive(peer, 6))

    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        echoing = script(echo, peer)
        with sock.makefile("rwb") as file:
            for number in range(3):
                file.write(b"line %d\n"[:4] + b"%d\n" % number)
                file.flush()
                assert file.readline() == b"line%d\n" % number
        echoing.end()

    linked(check)


# -- errors -----------------------------------------------------------------


def is_reset(result: Any, kind: str) -> bool:
    if kind == "tls":
        # What OpenSSL calls it depends on when it looks.
        return isinstance(result, tuple) and issubclass(
            result[0], (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)
        )
    return result in {
        "tcp": [(ConnectionResetError, errno.ECONNRESET)],
        "unix": [(BrokenPipeError, errno.EPIPE)],
    }.get(kind, [])


def test_an_error_of_a_late_send_is_the_readers(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        outbox = hold_all()
        sock.sendall(b"ask")
        reset(peer)
        began = time.monotonic()
        assert is_reset(outcome(sock.recv, 1), link.kind)
        assert time.monotonic() - began < 5
        assert outbox.awaited == 0
        # Then the socket is what it would have been after a send that failed.
        if link.kind != "tls":
            assert outcome(sock.send, b"x") == (BrokenPipeError, errno.EPIPE)
            assert sock.recv(1) == b""
        sock.close()
        assert current_hub().streams == {}

    linked(check)


@pytest.mark.parametrize("how", ["recv", "send", "sendall", "shutdown", "unwrap", "detach"])
def test_an_error_of_a_late_send_is_seen_by_what_follows(linked: Any, link: Any, how: str) -> None:
    if how == "unwrap" and link.kind != "tls":
        pytest.skip("TLS alone is unwrapped")

    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"ask")
        reset(peer)
        call = {
            "recv": lambda: sock.recv(1),
            "send": lambda: sock.send(b"x"),
            "sendall": lambda: sock.sendall(b"x"),
            "shutdown": lambda: sock.shutdown(stdlib_socket.SHUT_WR),
            "unwrap": lambda: sock.unwrap(),
            "detach": lambda: sock.detach(),
        }[how]
        assert is_reset(outcome(call), link.kind)

    linked(check)


def test_a_late_error_is_kept_for_who_reads_later(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"ask")
        reset(peer)
        sock.fileno()  # flushes
        assert is_reset(outcome(sock.recv, 1), link.kind)

    linked(check)


def test_what_arrived_before_a_late_error_is_read_first(linked: Any, link: Any) -> None:
    """A peer that refuses a request says why, and hangs up before it has read it all."""
    if link.kind == "tls":
        pytest.skip("OpenSSL has an error of its own after a send that failed")

    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        sock.sendall(b"a body")
        peer.sendall(b"too large")
        if link.kind == "tcp":
            reset(peer)
        else:
            peer.close()
        assert sock.recv(100) == b"too large"
        end = outcome(sock.recv, 1)
        assert end == b"" or is_reset(end, link.kind)

    linked(check)


def test_an_error_does_not_keep_others_from_going_out(run_on_each: Any) -> None:
    async def main() -> None:
        with Pairs(5) as pairs:
            hold_all()
            asking = [spawn(outcome, ask, sock) for sock, _ in pairs]
            pairs[0][1].close()
            pairs[2][1].close()
            await asyncio.sleep(0)
            for i in (1, 3, 4):
                assert receive(pairs[i][1], 3) == b"ask"
                pairs[i][1].send(b"answer")
            results = await asyncio.gather(*asking)
            # On uvloop the end of the stream may be seen before the turn's.
            ends = [(BrokenPipeError, errno.EPIPE), b""]
            assert results.pop(0) in ends
            assert results.pop(1) in ends
            assert results == [b"answer"] * 3

    run_on_each(main)


def test_an_interrupt_between_two_sends_does_not_keep_the_rest(run_on_each: Any) -> None:
    class Sender:
        def __init__(self, number: int) -> None:
            self.number = number

        def flush(self) -> None:
            if self.number == 1 and not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt
            sent.append(self.number)

    interrupted: list[bool] = []
    sent: list[int] = []

    async def main() -> None:
        outbox = Outbox(asyncio.get_running_loop())
        for number in range(3):
            outbox.hold(Sender(number))
            # It waits for its answer.
            outbox.held = None
        with pytest.raises(KeyboardInterrupt):
            outbox.flush()
        assert sent == [0]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sent == [0, 1, 2]
        interrupted.clear()
        sent.clear()

    run_on_each(main)


def test_a_late_error_leaves_no_reference_cycle(green: Any) -> None:
    def fail() -> weakref.ref[Any]:
        sock, peer = pair()
        sock.sendall(b"ask")
        peer.close()
        with pytest.raises(BrokenPipeError):
            sock.recv(1)
        return weakref.ref(sock._opened)

    def check() -> None:
        hold_all()
        gc.collect()
        gc.disable()
        try:
            gone = wait(spawn(fail))
            sleep(0)
            sleep(0)
            assert gone() is None
        finally:
            gc.enable()

    green(check)


def test_a_late_error_whose_reader_is_gone_says_nothing(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        asking = spawn(ask, sock)
        reset(peer)
        asking.cancel()
        sleep(0)
        sleep(0)
        assert asking.cancelled()

    linked(check)


# -- a kernel whose buffer is full ------------------------------------------


def block(number: int) -> bytes:
    return b"%07d " % number * 512


def narrow(sock: Socket, peer: Socket) -> None:
    """Let the kernel keep little: more than is said here, but less than it would."""
    sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 16384)
    peer.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, 16384)


def fill(sock: Socket, peer: Socket) -> int:
    """Send blocks until one does not go out; return how many were sent, it included.

    Asking again and again without an answer: whoever sends the next before
    that would wait for it, and not be held.
    """
    narrow(sock, peer)
    sock.settimeout(0.001)
    for number in range(100_000):
        sock.sendall(block(number))
        with pytest.raises(TimeoutError):
            sock.recv(1)
        if sock._opened._unsent is not None:
            # The other end's kernel may make some room yet.
            sleep(0.1)
            if sock._opened._unsent is not None:
                sock.settimeout(LIMIT_SECONDS)
                return number + 1
    raise AssertionError("the kernel's buffer has no end")


def drain(peer: Socket, size: int) -> bytes:
    """Read *size* bytes while the loop has its turns."""
    data = b""
    deadline = time.monotonic() + LIMIT_SECONDS
    while len(data) < size and time.monotonic() < deadline:
        data += arrived(peer)
        sleep(0)
    return data


def blocks(count: int) -> bytes:
    return b"".join(map(block, range(count)))


def test_what_the_kernel_does_not_take_goes_out_later_in_order(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        count = fill(sock, peer)
        assert drain(peer, count * 4096) == blocks(count)
        assert sock._opened._unsent is None
        peer.sendall(b"answer")
        assert receive(sock, 6) == b"answer"

    linked(check)


def test_the_next_send_waits_for_what_the_kernel_did_not_take(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        count = fill(sock, peer)
        sending = [spawn(sock.sendall, block(count))]
        for _ in range(10):
            sleep(0.001)
        assert not sending[0].done()
        with pytest.raises(ConcurrentUse):
            sock.sendall(b"another")
        assert drain(peer, (count + 1) * 4096) == blocks(count + 1)
        wait(sending[0])
        sock.sendall(b"end")
        sleep(0)
        assert receive(peer, 3) == b"end"

    linked(check)


@pytest.mark.parametrize("ending", ["time-out", "cancel", "non-blocking"])
def test_a_send_that_waits_in_vain_takes_nothing_from_the_earlier(linked: Any, ending: str) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        count = fill(sock, peer)
        if ending == "cancel":
            sending = spawn(sock.sendall, b"in vain")
            sleep(0)
            sleep(0)
            sending.cancel()
            wait(asyncio.wait([sending]))
        elif ending == "time-out":
            sock.settimeout(0.01)
            with pytest.raises(TimeoutError):
                sock.sendall(b"in vain")
        else:
            sock.settimeout(0)
            with pytest.raises((BlockingIOError, ssl.SSLWantWriteError)):
                sock.sendall(b"in vain")
        assert drain(peer, count * 4096) == blocks(count)
        sock.settimeout(5)
        sock.send(b"end")
        assert receive(peer, 3) == b"end"

    linked(check)


def test_a_full_buffer_does_not_keep_the_loop_busy(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        count = fill(sock, peer)
        stream = sock._opened
        events: list[int] = []
        handle = stream._on_unasked_write_event
        stream._on_unasked_write_event = lambda: (events.append(1), handle())
        for _ in range(20):
            sleep(0.001)
        assert len(events) < 5
        drain(peer, count * 4096)
        sleep(0.001)
        del events[:]
        for _ in range(20):
            sleep(0.001)
        # And once it is out, nobody looks for room any more.
        assert events == []

    linked(check)


def test_shutdown_waits_until_all_is_out(linked: Any, link: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        count = fill(sock, peer)
        ending = spawn(sock.shutdown, stdlib_socket.SHUT_WR)
        sleep(0.005)
        assert not ending.done()
        assert drain(peer, count * 4096) == blocks(count)
        wait(ending)
        if link.kind != "tls":
            assert peer.recv(1) == b""

    linked(check)


def test_who_sends_without_reading_waits_for_room_and_loses_nothing_by_closing(
    linked: Any, script: Any
) -> None:
    """Unacknowledged writes, to a server that is slow."""

    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        narrow(sock, peer)
        number = 0
        while True:
            sending = spawn(sock.sendall, block(number))
            number += 1
            sleep(0)
            sleep(0)
            if not sending.done():
                break
        assert sock._opened._unsent is None
        reading = script(receive, peer, 1 << 30)
        wait(sending)
        sock.close()
        assert reading.end() == blocks(number)

    linked(check)


# -- datagrams --------------------------------------------------------------


def test_datagrams_are_not_held(green: Any) -> None:
    def check() -> None:
        hold_all()
        peer = stdlib_socket.socket(stdlib_socket.AF_INET, stdlib_socket.SOCK_DGRAM)
        peer.settimeout(5)
        peer.bind(("127.0.0.1", 0))
        with green_socket.socket(stdlib_socket.AF_INET, stdlib_socket.SOCK_DGRAM) as sock:
            sock.connect(peer.getsockname())
            sock.sendall(b"first")
            sock.sendto(b"second", peer.getsockname())
            assert [peer.recv(9), peer.recv(9)] == [b"first", b"second"]
            peer.sendto(b"answer", sock.getsockname())
            assert sock.recv(9) == b"answer"
            peer.close()
            # The refusal of one is reported at the next, which is no reason to close.
            sock.send(b"third")
            sleep(0.01)
            assert outcome(sock.sendall, b"fourth") == (ConnectionRefusedError, errno.ECONNREFUSED)
            assert sock.fileno() >= 0

    green(check)


# -- cancels, forks, loops --------------------------------------------------


def test_a_cancel_before_the_turns_end_leaves_the_stream_in_order(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        hold_all()
        asking = spawn(ask, sock, b"first ")
        asking.cancel()
        wait(asyncio.wait([asking]))
        asking = spawn(ask, sock, b"second ")
        sleep(0)
        asking.cancel()
        sock.sendall(b"third")
        sleep(0)
        # The first was cancelled before it began.
        assert receive(peer, 12) == b"second third"

    linked(check)


def test_cancelled_and_closed_what_was_sent_is_out(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        outbox = hold_all()

        def operation() -> None:
            try:
                ask(sock)
            except BaseException:
                sock.close()
                raise

        async def start_and_cancel() -> bytes:
            future = spawn(operation)
            assert outbox.awaited == 1
            assert arrived(peer) == b""
            future.cancel()
            assert outbox.awaited == 0
            return receive(peer, 100)

        assert wait(start_and_cancel()) == b"ask"

    linked(check)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_sends_nothing_of_it(linked: Any) -> None:
    def check(sock: Socket, peer: Socket) -> None:
        outbox = hold_all()
        sock.sendall(b"once")
        child = os.fork()
        if not child:
            try:
                outbox.flush_held()
                outbox.flush()
                sock.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert arrived(peer) == b""
        sleep(0)
        assert receive(peer, 4) == b"once"
        sock.sendall(b"end")
        sock.close()
        assert receive(peer, 100) == b"end"

    linked(check)


@pytest.mark.parametrize("turns", [0, 1])
def test_a_loop_that_was_closed_by_hand_loses_nothing(new_loop: Any, turns: int) -> None:
    """The next use of green code ends what it left."""
    kept: list[Any] = []

    def operation() -> None:
        sock, peer = pair()
        kept.append(peer)
        try:
            sock.sendall(b"ask ")
            sock.recv(1)
        finally:
            # Of the loop that is closed: it has no turns to end any more.
            sock.sendall(b"good-bye")
            kept.append("and no error")

    async def start() -> None:
        hold_all()
        kept.append(spawn(operation))
        for _ in range(turns):
            await asyncio.sleep(0)
        asyncio.get_running_loop().stop()

    loop = new_loop()
    task = loop.create_task(start())
    loop.run_forever()
    assert task.done()
    loop.close()

    async def later() -> bytes:
        await spawn(lambda: None)
        return receive(kept[0], 100)

    assert asyncio.run(later()) == b"ask good-bye"
    assert kept[2:] == ["and no error"]
    kept[0].close()


def test_one_loop_after_another_has_an_outbox_of_its_own(new_loop: Any) -> None:
    outboxes = []

    async def main() -> None:
        outboxes.append(hold_all())
        with Pairs(3) as pairs:
            asking = [spawn(outcome, ask, sock) for sock, _ in pairs]
            await asyncio.sleep(0)
            assert [receive(peer, 3) for _, peer in pairs] == [b"ask"] * 3
            pairs[0][1].send(b"answer")
            assert await asking[0] == b"answer"
        # The others end with the loop.

    for _ in range(2):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    assert outboxes[0] is not outboxes[1]
    assert [each.awaited for each in outboxes] == [0, 0]


def test_a_program_that_ends_with_something_held_warns_of_nothing(program: Any) -> None:
    output = program(
        """
        import asyncio, socket
        from motorlike.green import socket as green_socket
        from motorlike.green.hub import current_hub, spawn

        async def main():
            current_hub().outbox.company = 0
            ours, theirs = socket.socketpair()
            sock = green_socket.socket._wrap(ours)

            def ask():
                sock.sendall(b"held")
                sock.recv(1)

            spawn(ask)
            return theirs

        theirs = asyncio.run(main())
        print(theirs.recv(9), theirs.recv(9))
        theirs.close()
        """
    )
    assert output == "b'held' b''\n"


# -- time -------------------------------------------------------------------


def test_a_turn_of_many_slow_events_does_not_keep_what_is_held(
    run_on_each: Any, patience: Any
) -> None:
    """What is old goes out with the next that is sent."""

    async def main() -> None:
        hold_all()
        patience(0.02)
        with Pairs(4) as pairs:
            loop = asyncio.get_running_loop()
            out: list[list[bytes]] = []
            asking = []

            def slow_event(number: int) -> None:
                asking.append(spawn(ask, pairs[number][0]))
                out.append([arrived(peer) for _, peer in pairs[: number + 1]])
                time.sleep(0.03)

            for number in range(4):
                loop.call_soon(slow_event, number)
            await asyncio.sleep(0)
            # One that is old takes with it those that are younger, itself included.
            assert out[0] == [b""]
            assert out[1] == [b"ask", b"ask"]
            assert out[2] == [b"", b"", b""]
            assert out[3] == [b"", b"", b"ask", b"ask"]
            for _, peer in pairs:
                peer.send(b"answer")
            assert await asyncio.gather(*asking) == [b"answer"] * 4

    run_on_each(main)


def test_events_that_send_nothing_delay_it_by_no_more_than_their_slice(run: Any) -> None:
    async def main() -> None:
        hold_all()
        with Pairs(10) as pairs:
            loop = asyncio.get_running_loop()
            peers = [peer for _, peer in pairs]
            delayed: list[int] = []

            def slow(sock: Socket) -> None:
                sock.recv(1)
                delayed.append(len(arrived(peers[0])))
                time.sleep(0.015)

            working = [spawn(slow, sock) for sock, _ in pairs[1:]]
            await asyncio.sleep(0)
            for peer in peers[1:]:
                peer.send(b"x")
            loop.call_soon(spawn, outcome, ask, pairs[0][0])
            await asyncio.gather(*working)
            assert delayed.count(3) == 1
            # Three events take more than the slice.
            assert delayed.index(3) <= 3, delayed

    run(main)


# -- two at once on one stream ----------------------------------------------


def test_one_may_read_while_another_sends(linked: Any, script: Any) -> None:
    rounds = 200

    def echo(peer: Socket) -> None:
        while data := peer.recv(1 << 16):
            peer.sendall(data)

    def check(sock: Socket, peer: Socket) -> None:
        outbox = hold_all()
        echoing = script(echo, peer)
        chooser = random.Random(7)
        reading = spawn(receive, sock, rounds * 8)

        def send() -> None:
            for number in range(rounds):
                sock.sendall(b"%07d " % number)
                if chooser.random() < 0.5:
                    sleep(chooser.choice([0, 0, 0.001]))

        wait(spawn(send))
        assert wait(reading) == b"".join(b"%07d " % number for number in range(rounds))
        assert outbox.awaited == 0
        sock.close()
        echoing.end()

    linked(check)


# -- a storm ----------------------------------------------------------------

HEADER = struct.Struct("!III")  # size, serial number, whether an answer is wanted
SIZES = [0, 1, 30, 300, 4084, 4085, 6000, 100_000]


class EchoServer:
    """Sends back what it gets, and checks that nothing is missing or out of order."""

    def __init__(self, link: Any, certificates: Any) -> None:
        self._listener = link.listen()
        self._context = certificates.server_context() if link.kind == "tls" else None
        self.address = self._listener.getsockname()
        self.family = self._listener.family
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(LIMIT_SECONDS)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: Socket) -> None:
        with sock:
            try:
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                self._echo(sock)
            except OSError:
                pass  # the client has gone
            finally:
                sock.close()

    def _echo(self, sock: Socket) -> None:
        expected = 0
        while header := receive(sock, HEADER.size):
            if len(header) < HEADER.size:
                return
            size, serial, wants_answer = HEADER.unpack(header)
            body = receive(sock, size)
            if len(body) < size:
                return
            if serial != expected or body != content(serial, size):
                self.errors.append(f"{serial} of size {size} instead of {expected}")
            expected += 1
            if wants_answer:
                sock.sendall(header + body)

    def end(self) -> None:
        self._listener.shutdown(stdlib_socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(LIMIT_SECONDS)
            assert not thread.is_alive()
        assert self.errors == []


def content(serial: int, size: int) -> bytes:
    return (b"%08d" % serial * (size // 8 + 1))[:size]


class Client:
    """Operations on one connection after another: one that fails is closed, as drivers do."""

    def __init__(self, connect: Callable[[], Socket], chooser: random.Random) -> None:
        self._connect = connect
        self._chooser = chooser
        self._sock: Socket | None = None
        self._serial = 0
        self.answers = 0

    def operation(self) -> None:
        choose = self._chooser
        if self._sock is None:
            self._sock = self._connect()
            self._serial = 0
        try:
            self._sock.settimeout(choose.choice([LIMIT_SECONDS, LIMIT_SECONDS, None, 0.001]))
            self._exchange(self._sock, choose)
        except BaseException:
            self.close()
            raise

    def _exchange(self, sock: Socket, choose: random.Random) -> None:
        size = choose.choice(SIZES)
        wants_answer = choose.random() < 0.8
        header = HEADER.pack(size, self._serial, wants_answer)
        body = content(self._serial, size)
        self._serial += 1
        if choose.random() < 0.5:
            sock.sendall(header + body)
        else:
            sock.sendall(header)
            if choose.random() < 0.3:
                sleep(0)
            sock.sendall(body)
        if not wants_answer:
            if choose.random() < 0.2:
                self.close()
            return
        if choose.random() < 0.2:
            green_select.select([sock], [], [], choose.choice([0, 0.001]))
        assert receive(sock, HEADER.size + size) == header + body
        self.answers += 1

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


@pytest.mark.parametrize("company", [0, COMPANY])
def test_a_storm_leaves_nothing_held_and_nothing_awaited(
    link: Any, run_on_each: Any, certificates: Any, company: int
) -> None:
    chooser = random.Random(f"{link.kind} {company}")
    server = EchoServer(link, certificates)

    def connect() -> Socket:
        sock = green_socket.socket(server.family)
        sock.settimeout(LIMIT_SECONDS)
        try:
            sock.connect(server.address)
            if link.kind == "tls":
                context = certificates.client_context()
                return context.wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise
        return sock

    async def use(client: Client) -> None:
        for _ in range(25):
            future = spawn(client.operation)
            if chooser.random() < 0.15:
                await asyncio.sleep(chooser.choice([0, 0, 0.001]))
                future.cancel()
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await future

    async def main() -> None:
        outbox = current_hub().outbox
        outbox.company = company
        clients = [Client(connect, chooser) for _ in range(8)]
        await asyncio.gather(*map(use, clients))
        assert sum(client.answers for client in clients) > 50
        assert outbox.awaited == 0
        for client in clients:
            client.close()
        await asyncio.sleep(0)
        assert outbox.held is None
        assert outbox._streams == []
        assert current_hub().streams == {}

    run_on_each(main)
    server.end()
