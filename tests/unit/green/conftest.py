"""Fresh loops, threads that run scripts, certificates and programs of their own."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from motorlike.green.hub import spawn

# Far more than any test needs: a hang fails instead of holding up the run.
LIMIT_SECONDS = 30

LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])


def _new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@contextmanager
def _runner(loop_name: str) -> Iterator[Run]:
    with asyncio.Runner(loop_factory=lambda: _new_loop(loop_name)) as runner:

        def run(main: Callable[[], Awaitable[Any]]) -> Any:
            async def limited() -> Any:
                return await asyncio.wait_for(main(), LIMIT_SECONDS)

            return runner.run(limited())

        yield run


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a coroutine function on asyncio's own loop."""
    with _runner("asyncio") as run:
        yield run


@pytest.fixture(params=LOOPS)
def run_on_each(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a coroutine function, once on each kind of loop."""
    with _runner(request.param) as run:
        yield run


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Make a loop, once of each kind."""
    return lambda: _new_loop(request.param)


@pytest.fixture
def green() -> Iterator[Callable[..., Any]]:
    """Run a function in a greenlet of a fresh loop, and return its result."""
    with _runner("asyncio") as run:
        yield lambda function, *args: run(lambda: spawn(function, *args))


class Script:
    """A function that runs in an operating-system thread: the peer of a test."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._error: BaseException | None = None
        self.result: Any = None
        self._thread = threading.Thread(target=self._run, args=(function, *args), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self.result = function(*args)
        except BaseException as exc:  # noqa: BLE001 - raised again by end()
            self._error = exc

    def end(self) -> Any:
        self._thread.join(LIMIT_SECONDS)
        assert not self._thread.is_alive(), "the script hangs"
        if self._error is not None:
            raise self._error
        return self.result


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Start peers in threads; the test fails if one of them did."""
    scripts: list[Script] = []

    def start(function: Callable[..., Any], *args: Any) -> Script:
        scripts.append(Script(function, *args))
        return scripts[-1]

    yield start
    for each in scripts:
        each.end()


# What asyncio's debug mode says of slow callbacks is the machine's affair.
_QUIET = "import logging; logging.getLogger('asyncio').setLevel(logging.ERROR)\n"


@pytest.fixture
def program() -> Callable[..., str]:
    """Run a Python program with all warnings as errors, and return its output.

    It must end by itself, with status 0 and nothing on its error stream.
    """

    def run_program(source: str) -> str:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", _QUIET + textwrap.dedent(source)],
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout

    return run_program


@dataclass(frozen=True)
class Certificates:
    """An authority, a server's certificate for *localhost*, and a client's."""

    authority: Path
    server: Path
    client: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        return context

    def client_context(self) -> Any:
        from motorlike.green import ssl as green_ssl

        return green_ssl.create_default_context(cafile=str(self.authority))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    trustme = pytest.importorskip("trustme")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        folder / "server.pem"
    )
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(
        folder / "client.pem"
    )
    return Certificates(folder / "authority.pem", folder / "server.pem", folder / "client.pem")


@dataclass
class Link:
    """A way to connect a client to a peer over one kind of socket.

    The peer is the standard library's blocking socket.
    """

    kind: str
    certificates: Certificates
    folder: str

    def listen(self) -> socket.socket:
        if self.kind == "unix":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{tempfile.mkdtemp(dir=self.folder)}/s")
            listener.listen()
        else:
            listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(LIMIT_SECONDS)
        return listener

    def connect(self, library: Any, tls_library: Any) -> tuple[Any, Any]:
        """Return a client made by *library* (green or not) and its peer."""
        listener = self.listen()
        accepting = Script(self._accept, listener)
        client = library.socket(listener.family)
        client.settimeout(LIMIT_SECONDS)
        client.connect(listener.getsockname())
        if self.kind == "tls":
            context = tls_library.create_default_context(cafile=str(self.certificates.authority))
            client = context.wrap_socket(client, server_hostname="localhost")
        peer = accepting.end()
        listener.close()
        return client, peer

    def _accept(self, listener: socket.socket) -> socket.socket:
        peer, _ = listener.accept()
        peer.settimeout(LIMIT_SECONDS)
        if self.kind != "unix":
            # Or small answers would wait for an acknowledgement, 40 ms.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.kind == "tls":
            # TLS 1.3 sends session tickets when it likes, which look like data.
            context = self.certificates.server_context()
            context.num_tickets = 0
            return context.wrap_socket(peer, server_side=True)
        return peer


@pytest.fixture(params=["tcp", "unix", "tls"])
def link(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Link]:
    # Not tmp_path: the path of a Unix socket must be short.
    with tempfile.TemporaryDirectory() as folder:
        yield Link(request.param, certificates, folder)


@pytest.fixture
def linked(link: Link, green: Any) -> Callable[..., Any]:
    """Run ``check(sock, peer)`` in a greenlet with a green socket and its peer."""
    from motorlike.green import socket as green_socket
    from motorlike.green import ssl as green_ssl

    def run_check(check: Callable[..., Any]) -> Any:
        def connected() -> Any:
            sock, peer = link.connect(green_socket, green_ssl)
            with peer, sock:
                return check(sock, peer)

        return green(connected)

    return run_check


@pytest.fixture
def both(link: Link, linked: Any) -> Callable[..., Any]:
    """Run a check on a green socket and on the standard library's: equal results."""

    def run_both(check: Callable[..., Any]) -> Any:
        result = linked(check)
        sock, peer = link.connect(socket, ssl)
        with peer, sock:
            assert check(sock, peer) == result
        return result

    return run_both


@pytest.fixture
def raised_limit() -> Iterator[None]:
    """Permit 2,000 open files."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip(f"no more than {hard} files may be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
