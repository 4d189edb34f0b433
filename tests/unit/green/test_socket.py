"""Connecting, accepting, datagrams and names: what only plain sockets do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket as stdlib_socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from motorlike.errors import NotInGreenlet
from motorlike.green import socket
from motorlike.green.hub import current_hub, sleep, spawn, wait


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except OSError as exc:
        return type(exc), exc.errno


@pytest.fixture
def listener() -> Iterator[stdlib_socket.socket]:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def closed_port() -> int:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def full_listener() -> Iterator[Any]:
    """An address where a connection is neither taken nor refused."""
    with stdlib_socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(8):
            filler = stdlib_socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        time.sleep(0.05)
        yield listener.getsockname()
        for filler in fillers:
            filler.close()


def open_files() -> set[str]:
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


# -- connecting -------------------------------------------------------------


def test_connect_waits_without_stopping_the_loop(run_on_each: Any, listener: Any) -> None:
    def connect() -> Any:
        with socket.socket() as sock:
            sock.connect(listener.getsockname())
            return sock.getpeername()

    async def main() -> Any:
        return await spawn(connect)

    assert run_on_each(main) == listener.getsockname()


def test_a_refused_connect_is_its_own_error(green: Any, closed_port: int) -> None:
    def connect(module: Any) -> Any:
        with module.socket() as sock:
            return outcome(sock.connect, ("127.0.0.1", closed_port))

    refused = (ConnectionRefusedError, errno.ECONNREFUSED)
    assert green(connect, socket) == connect(stdlib_socket) == refused


def test_a_refused_socket_stays_open_and_may_try_again(green: Any, closed_port: int) -> None:
    def connect(module: Any) -> list[int]:
        address = ("127.0.0.1", closed_port)
        with module.socket() as sock:
            sock.settimeout(5)
            results = [sock.connect_ex(address)]
            assert sock.fileno() >= 0
            # Linux tells of the failure once more before it tries again.
            with stdlib_socket.create_server(address):
                results += [sock.connect_ex(address), sock.connect_ex(address)]
            return results

    results = green(connect, socket)
    assert results == connect(stdlib_socket)
    assert (results[0], results[-1]) == (errno.ECONNREFUSED, 0)


def test_connect_times_out(green: Any, full_listener: Any) -> None:
    def connect() -> None:
        with socket.socket() as sock:
            sock.settimeout(0.05)
            began = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out") as caught:
                sock.connect(full_listener)
            assert caught.value.errno is None
            assert time.monotonic() - began < 5

    green(connect)


def test_connect_ex_returns_the_error_numbers_of_the_stdlib(
    green: Any, listener: Any, closed_port: int, full_listener: Any
) -> None:
    def connect(module: Any) -> list[int]:
        results = []
        for timeout, address in [
            (5, listener.getsockname()),
            (5, ("127.0.0.1", closed_port)),
            (0.02, full_listener),
            (0, full_listener),
        ]:
            with module.socket() as sock:
                sock.settimeout(timeout)
                results.append(sock.connect_ex(address))
        return results

    expected = [0, errno.ECONNREFUSED, errno.EAGAIN, errno.EINPROGRESS]
    assert green(connect, socket) == connect(stdlib_socket) == expected


def test_a_cancelled_connect_leaves_no_descriptor(green: Any, full_listener: Any) -> None:
    def check() -> None:
        before = open_files()
        connecting = spawn(socket.create_connection, full_listener)
        sleep(0)
        sleep(0)
        assert len(open_files()) == len(before) + 1
        connecting.cancel()
        sleep(0)
        assert open_files() <= before
        assert current_hub().streams == {}

    green(check)


def test_connect_to_a_unix_socket_with_a_full_backlog_waits_for_room(
    green: Any, tmp_path: Any, monkeypatch: Any, script: Any
) -> None:
    monkeypatch.chdir(tmp_path)  # its path must be short
    listener = stdlib_socket.socket(stdlib_socket.AF_UNIX)
    listener.bind("s")
    listener.listen(0)

    def connect() -> None:
        first, second = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        with first, second, listener:
            first.connect("s")
            second.settimeout(0.02)
            with pytest.raises(TimeoutError):
                second.connect("s")
            second.settimeout(20)
            connecting = spawn(second.connect, "s")
            sleep(0.01)
            assert not connecting.done()
            listener.accept()[0].close()
            wait(connecting)

    green(connect)


def test_ipv6(green: Any, script: Any) -> None:
    try:
        listener = stdlib_socket.create_server(("::1", 0), family=stdlib_socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")

    def connect() -> None:
        with socket.socket(socket.AF_INET6) as sock, listener:
            sock.connect(listener.getsockname()[:2])
            assert sock.getpeername() == listener.getsockname()

    green(connect)


def addresses(*ports: int) -> Callable[..., list[Any]]:
    def getaddrinfo(*args: Any, **kwargs: Any) -> list[Any]:
        return [
            (stdlib_socket.AF_INET, stdlib_socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
            for port in ports
        ]

    return getaddrinfo


def test_create_connection_falls_back_across_addresses(
    green: Any, listener: Any, closed_port: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses(closed_port, listener.getsockname()[1]))

    def connect() -> Any:
        before = open_files()
        with socket.create_connection(("name", 0), timeout=5) as sock:
            assert sock.gettimeout() == 5
            assert len(open_files()) == len(before) + 1
            return sock.getpeername()

    assert green(connect) == listener.getsockname()


def test_create_connection_raises_the_last_error_or_all(
    green: Any, closed_port: int, monkeypatch: Any
) -> None:
    def connect(module: Any) -> tuple[Any, Any]:
        monkeypatch.setattr(module, "getaddrinfo", addresses(closed_port, closed_port))
        with pytest.raises(ConnectionRefusedError):
            module.create_connection(("name", 0))
        with pytest.raises(ExceptionGroup) as all_errors:
            module.create_connection(("name", 0), all_errors=True)
        monkeypatch.setattr(module, "getaddrinfo", addresses())
        with pytest.raises(OSError, match="empty list"):
            module.create_connection(("name", 0))
        return str(all_errors.value), [type(exc) for exc in all_errors.value.exceptions]

    assert green(connect, socket) == connect(stdlib_socket)


def test_create_connection_takes_a_source_address_and_the_stdlibs_default_mark(
    green: Any, listener: Any
) -> None:
    def connect() -> None:
        mark = socket._GLOBAL_DEFAULT_TIMEOUT
        assert mark is vars(stdlib_socket)["_GLOBAL_DEFAULT_TIMEOUT"]
        with socket.create_connection(
            listener.getsockname(), mark, source_address=("127.0.0.1", 0)
        ) as sock:
            assert sock.gettimeout() is None

    green(connect)


# -- names ------------------------------------------------------------------


@pytest.fixture
def slow_names(monkeypatch: Any) -> list[Any]:
    """Name look-ups that block until the loop has run meanwhile."""
    looked_up: list[Any] = []
    real = stdlib_socket.getaddrinfo
    loop_ran = threading.Event()

    def getaddrinfo(host: Any, port: Any, *args: Any) -> Any:
        flags = args[3] if len(args) > 3 else 0
        if flags & stdlib_socket.AI_NUMERICHOST:
            return real(host, port, *args)
        loop.call_soon_threadsafe(loop_ran.set)
        assert loop_ran.wait(10), "the loop stood still during a look-up"
        looked_up.append(host)
        return real("127.0.0.1" if host == "db.example" else host, port, *args)

    loop: Any = None

    def remember(current: Any) -> None:
        nonlocal loop
        loop = current

    monkeypatch.setattr(stdlib_socket, "getaddrinfo", getaddrinfo)
    looked_up.append(remember)
    return looked_up


def test_looking_up_a_name_does_not_block_the_loop(
    green: Any, listener: Any, slow_names: list[Any]
) -> None:
    port = listener.getsockname()[1]

    def connect() -> None:
        slow_names.pop()(asyncio.get_running_loop())
        with socket.create_connection(("db.example", port)) as sock:
            assert sock.getpeername()[1] == port
        with socket.socket() as sock:
            sock.connect(("db.example", port))
        with socket.socket() as sock:
            sock.bind(("db.example", 0))
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("db.example", port))

    green(connect)
    assert slow_names == ["db.example"] * 4


def test_an_address_needs_no_thread(green: Any, listener: Any, monkeypatch: Any) -> None:
    def connect() -> None:
        monkeypatch.setattr(
            asyncio.get_running_loop(), "run_in_executor", lambda *args: pytest.fail("offloaded")
        )
        socket.create_connection(listener.getsockname()).close()
        assert socket.getaddrinfo("::1", 1)[0][4][0] == "::1"

    green(connect)


def test_an_unknown_name_is_a_gaierror(green: Any, monkeypatch: Any) -> None:
    def fails(host: str, *args: Any) -> Any:
        raise stdlib_socket.gaierror(stdlib_socket.EAI_NONAME, "not known")

    monkeypatch.setattr(stdlib_socket, "getaddrinfo", fails)

    def look_up() -> None:
        with pytest.raises(socket.gaierror) as caught:
            socket.create_connection(("nowhere.invalid", 1))
        assert caught.value.errno == socket.EAI_NONAME
        with socket.socket() as sock, pytest.raises(socket.gaierror):
            sock.connect_ex(("nowhere.invalid", 1))

    green(look_up)


def test_other_errors_of_getaddrinfo_are_not_asked_for_twice(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("127.0.0.1", "no-such-service")

    run(main)


def test_looking_up_a_name_on_the_loop_itself_is_refused(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(NotInGreenlet, match="getaddrinfo"):
            socket.getaddrinfo("localhost", 1)

    run(main)


def test_the_other_look_ups_answer_as_the_stdlibs(green: Any) -> None:
    def look_up(module: Any) -> list[Any]:
        return [
            module.gethostbyname("127.0.0.1"),
            module.gethostbyname_ex("127.0.0.1"),
            module.getnameinfo(("127.0.0.1", 80), module.NI_NUMERICHOST | module.NI_NUMERICSERV),
            module.getfqdn("127.0.0.1"),
            outcome(module.gethostbyaddr, "127.0.0.1"),
        ]

    assert green(look_up, socket) == look_up(stdlib_socket)


# -- accepting, datagrams, pairs --------------------------------------------


def test_accept_waits_for_a_connection(green: Any) -> None:
    def check() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            accepting = spawn(listener.accept)
            sleep(0)
            with socket.create_connection(listener.getsockname()) as client:
                server, address = wait(accepting)
                with server:
                    assert address == client.getsockname()
                    assert server.gettimeout() is None
                    client.sendall(b"hello")
                    assert server.recv(5) == b"hello"
            listener.settimeout(0.01)
            with pytest.raises(TimeoutError):
                listener.accept()
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()

    green(check)


def test_datagrams_keep_their_borders(green: Any) -> None:
    def check(module: Any) -> list[Any]:
        first, second = module.socket(type=module.SOCK_DGRAM), module.socket(type=module.SOCK_DGRAM)
        with first, second:
            for sock in (first, second):
                sock.settimeout(5)
                sock.bind(("127.0.0.1", 0))
            address = second.getsockname()
            for data in (b"one", b"two", b"", b"a long one", b"x" * 60_000, b"last"):
                first.sendto(data, address)
            results: list[Any] = [second.recvfrom(100)[0], second.recv(100), second.recv(100)]
            results.append(second.recv(6))
            results.append(len(second.recv(65_536)))
            buffer = bytearray(10)
            count, sender = second.recvfrom_into(buffer)
            results.append(bytes(buffer[:count]))
            assert sender == first.getsockname()
            first.connect(address)
            first.sendall(b"connected")
            first.send(b"twice")
            results += [second.recv(9), second.recv(9)]
            second.settimeout(0.01)
            results.append(outcome(second.recvfrom, 10))
            results.append(outcome(second.recv, 10))
            return results

    assert green(check, socket) == check(stdlib_socket)


def test_recvfrom_on_a_stream_returns_what_was_read_ahead(green: Any) -> None:
    def check() -> None:
        first, second = socket.socketpair()
        with first, second:
            first.sendall(b"abcdef")
            assert second.recv(1) == b"a"
            assert second.recvfrom(2)[0] == b"bc"
            buffer = bytearray(3)
            assert second.recvfrom_into(buffer)[0] == 3
            assert buffer == b"def"

    green(check)


def test_a_socket_may_be_made_where_no_loop_runs(green: Any) -> None:
    first, second = socket.socketpair()

    def check() -> bytes:
        first.sendall(b"x")
        return second.recv(1)

    assert green(check) == b"x"
    first.close()
    second.close()


def test_fromfd_dup_and_fileno_make_sockets_of_one_connection(green: Any) -> None:
    def check() -> None:
        first, second = socket.socketpair()
        copies = [
            socket.fromfd(first.fileno(), first.family, first.type),
            first.dup(),
            socket.socket(fileno=os.dup(first.fileno())),
        ]
        for number, copy in enumerate(copies):
            assert copy.family == first.family
            copy.sendall(b"%d" % number)
            copy.close()
        assert second.recv(3) == b"012"
        first.close()
        second.close()

    green(check)


def test_names_that_do_no_io_are_the_stdlibs() -> None:
    assert socket.AF_INET is stdlib_socket.AF_INET
    assert socket.timeout is TimeoutError
    assert socket.error is OSError
    assert socket.gaierror is stdlib_socket.gaierror
    assert socket.inet_aton is stdlib_socket.inet_aton
    assert set(socket.__all__) <= set(stdlib_socket.__all__)
    assert all(hasattr(socket, name) for name in socket.__all__)


def test_blocking_calls_without_a_green_form_are_missing() -> None:
    with pytest.raises(AttributeError, match="would block"):
        assert socket.create_server
    with pytest.raises(AttributeError):
        assert socket.no_such_name


def test_sending_with_flags_is_refused(green: Any) -> None:
    def check() -> None:
        first, second = socket.socketpair()
        with first, second, pytest.raises(OSError, match="without flags"):
            first.sendall(b"x", socket.MSG_OOB)

    green(check)


def test_the_representation_tells_the_state() -> None:
    sock = socket.socket()
    assert repr(sock) == f"<green socket fd={sock.fileno()} timeout=None>"
    sock.close()
    assert repr(sock) == "<green socket closed timeout=None>"
