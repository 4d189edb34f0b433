"""The launcher against a real mongod: what it starts, and that nothing stays."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest
from pymongo import MongoClient, WriteConcern
from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError

from motorlike.testing import (
    Deployment,
    MongodFailed,
    PortTaken,
    _deployment,
    replica_set,
    standalone,
)
from motorlike.testing.certificates import write_certificates

PYTHON = [sys.executable, "-X", "dev", "-W", "error"]
SERVER = [*PYTHON, "-c", "import sys; from motorlike.testing.mongod import main; sys.exit(main())"]


def connect(server: Deployment) -> MongoClient:
    return MongoClient(server.uri, serverSelectionTimeoutMS=10_000, **server.client_options)


def hello(address: tuple[str, int]) -> dict[str, Any]:
    with MongoClient(*address, directConnection=True) as client:
        return client.admin.command("hello")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def assert_gone(pids: list[int], folder: Path) -> None:
    wait_until(lambda: not any(map(is_alive, pids)) and not folder.exists())


def line_of(output: IO[str] | None) -> str:
    assert output is not None
    return output.readline().rstrip("\n")


def process_and_folder(uri: str) -> tuple[int, Path]:
    """Ask a server for its process id and its data folder's parent."""
    with MongoClient(uri) as client:
        pid = client.admin.command("serverStatus")["pid"]
        options = client.admin.command("getCmdLineOpts")["parsed"]
    return int(pid), Path(options["storage"]["dbPath"]).parent


def test_a_standalone_is_up_inside_the_block_and_gone_after_it() -> None:
    with standalone() as server:
        pids = [member.pid for member in server.members]
        assert server.address == (server.host, server.port) == ("127.0.0.1", server.port)
        assert server.addresses == [server.address]
        assert server.ca_file is None
        assert server.client_options == {}
        assert server.primary() is server.members[0]
        with connect(server) as client:
            client.test.items.insert_one({"_id": 1})
            assert client.admin.command("serverStatus")["pid"] == pids[0]
    assert not any(map(is_alive, pids))
    assert not server.folder.exists()


def test_an_exception_in_the_block_passes_and_leaves_nothing() -> None:
    with pytest.raises(KeyboardInterrupt), standalone() as server:
        raise KeyboardInterrupt
    assert not server.folder.exists()


def test_the_unix_socket_answers_with_and_without_tls_and_login() -> None:
    for secured in (False, True):
        with standalone(tls=secured, auth=secured) as server:
            assert Path(server.unix_socket).is_socket()
            with MongoClient(server.unix_socket_uri) as client:
                client.test.items.insert_one({})


def test_data_outlives_a_crash_a_clean_shutdown_and_a_pause() -> None:
    with standalone() as server, connect(server) as client:
        member = server.members[0]
        journaled = client.test.get_collection("items", write_concern=WriteConcern(j=True))
        journaled.insert_one({"_id": 1})
        for stop in (member.kill, member.terminate):
            port, pid = member.port, member.pid
            stop()
            assert not member.is_running
            assert not is_alive(pid)
            member.restart()
            assert member.is_running
            assert member.port == port
            assert member.pid != pid
            with suppress(AutoReconnect):  # The pooled connection has died.
                client.admin.command("ping")
            assert client.test.items.find_one() == {"_id": 1}


def test_a_paused_server_is_silent_until_it_is_resumed() -> None:
    with standalone() as server:
        member = server.members[0]
        member.pause()
        with pytest.raises(MongodFailed, match="is primary now"):
            server.primary(timeout_seconds=0.3)
        assert member.is_running
        member.resume()
        assert server.wait_for_primary() is member
        member.pause()
        member.terminate()
        assert not member.is_running


def test_tls_is_required_and_the_certificate_names_the_host() -> None:
    with standalone(tls=True) as server:
        with connect(server) as client:
            client.admin.command("ping")
        with MongoClient(server.uri) as client:  # The URI alone is enough.
            client.admin.command("ping")
        context = ssl.create_default_context(cafile=server.ca_file)
        for name in ("127.0.0.1", "localhost", "::1"):
            with (
                socket.create_connection(server.address) as plain,
                context.wrap_socket(plain, server_hostname=name) as secure,
            ):
                assert secure.version() is not None
        with (
            pytest.raises(ServerSelectionTimeoutError),
            MongoClient(*server.address, serverSelectionTimeoutMS=300) as client,
        ):
            client.admin.command("ping")


def test_another_authority_is_not_trusted(tmp_path: Path) -> None:
    other = write_certificates(tmp_path)
    context = ssl.create_default_context(cafile=other.ca_file)
    with (
        standalone(tls=True) as server,
        socket.create_connection(server.address) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_client_certificates_can_be_required() -> None:
    with standalone(tls=True, tls_require_client_certificate=True) as server:
        assert server.client_options["tlsCertificateKeyFile"] == server.client_pem
        with connect(server) as client:
            client.admin.command("ping")
        with (
            pytest.raises(ServerSelectionTimeoutError),
            MongoClient(
                *server.address, tls=True, tlsCAFile=server.ca_file, serverSelectionTimeoutMS=300
            ) as client,
        ):
            client.admin.command("ping")


@pytest.mark.parametrize("tls", [False, True])
def test_a_login_is_required_and_comes_with_uri_and_options(tls: bool) -> None:
    with standalone(auth=True, tls=tls) as server:
        with MongoClient(server.uri) as client:
            client.test.items.insert_one({})
        with MongoClient(*server.address, **server.client_options) as client:
            client.test.items.insert_one({})
        anonymous = {**server.client_options}
        del anonymous["username"], anonymous["password"]
        with (
            MongoClient(*server.address, **anonymous) as client,
            pytest.raises(OperationFailure, match="requires authentication"),
        ):
            client.test.items.insert_one({})


def test_fail_points_work_only_when_they_are_asked_for() -> None:
    fail_point = {
        "configureFailPoint": "failCommand",
        "mode": {"times": 1},
        "data": {"failCommands": ["find"], "errorCode": 8000},
    }
    with standalone(fail_points=True) as server, connect(server) as client:
        client.admin.command(fail_point)
        with pytest.raises(OperationFailure) as caught:
            client.test.items.find_one()
        assert caught.value.code == 8000
    with (
        standalone() as server,
        connect(server) as client,
        pytest.raises(OperationFailure, match="no such command"),
    ):
        client.admin.command(fail_point)


def test_a_replica_set_elects_a_new_primary_and_takes_the_old_one_back() -> None:
    with replica_set(3) as server, connect(server) as client:
        hellos = [hello(address) for address in server.addresses]
        assert sum(answer["isWritablePrimary"] for answer in hellos) == 1
        assert sum(answer["secondary"] for answer in hellos) == 2
        client.test.items.insert_one({"_id": 1})
        first = server.primary()
        first.kill()
        began = time.monotonic()
        second = server.wait_for_primary(timeout_seconds=15.0)
        assert time.monotonic() - began < 15
        assert second is not first
        first.restart()
        began = time.monotonic()
        second.terminate()
        assert time.monotonic() - began < 10  # Not the server's usual 15 s.
        third = server.wait_for_primary(timeout_seconds=15.0)
        assert third is not second
        assert client.test.items.find_one() == {"_id": 1}
        pids = [member.pid for member in server.members]
    assert_gone(pids, server.folder)


def test_a_paused_primary_is_replaced() -> None:
    with replica_set(3) as server:
        first = server.primary()
        first.pause()
        assert server.wait_for_primary(timeout_seconds=15.0) is not first


def test_a_replica_set_with_tls_and_login_lets_the_user_in_on_every_member() -> None:
    with replica_set(2, tls=True, auth=True) as server:
        with connect(server) as client:
            client.test.items.insert_one({})
        for address in server.addresses:
            with MongoClient(*address, directConnection=True, **server.client_options) as client:
                client.admin.command("listDatabases")


def test_a_kept_data_folder_opens_again(tmp_path: Path) -> None:
    for member_count in (None, 1):
        dbpath = tmp_path / str(member_count)
        port = None
        for run in range(2):
            options = {"auth": True, "dbpath": dbpath, "port": port}
            kind = standalone(**options) if member_count is None else replica_set(1, **options)
            with kind as server, connect(server) as client:
                port = server.port
                client.test.items.insert_one({"_id": run})
                assert client.test.items.count_documents({}) == run + 1
            assert not server.folder.exists()


def test_a_given_port_that_is_taken_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            pytest.raises(PortTaken, match=f"Port {port} is already in use"),
            standalone(port=port),
        ):
            pass


def test_a_picked_port_that_gets_taken_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        pick = _deployment.free_ports
        picks = iter([lambda _: [taken], lambda _: [taken], pick])
        monkeypatch.setattr(_deployment, "free_ports", lambda count: next(picks)(count))
        with standalone() as server:
            assert server.port != taken
            with connect(server) as client:
                client.admin.command("ping")


def test_a_mongod_that_does_not_start_shows_its_arguments_and_log() -> None:
    with pytest.raises(MongodFailed) as caught, standalone(extra_args=["--no-such-flag"]):
        pass
    assert "ended with code" in str(caught.value)
    assert "unrecognised option '--no-such-flag'" in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_with_0_and_leaves_nothing(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*SERVER, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as command:
        pid, folder = process_and_folder(line_of(command.stdout))
        assert folder.exists()
        assert line_of(command.stdout) == "Press Ctrl-C to stop. That deletes its data."
        os.killpg(command.pid, number)  # As a terminal does: the whole group.
        _, err = command.communicate(timeout=20)
    assert command.returncode == 0
    assert err == ""
    assert not is_alive(pid)
    assert not folder.exists()


def test_the_command_shuts_down_cleanly_where_it_keeps_the_data(tmp_path: Path) -> None:
    arguments = ["--port", "0", "--dbpath", str(tmp_path / "data")]
    with subprocess.Popen([*SERVER, *arguments], stdout=subprocess.PIPE, text=True) as command:
        line_of(command.stdout)
        line_of(command.stdout)
        command.send_signal(signal.SIGINT)
        assert command.wait(20) == 0
    # mongod empties its lock file when it shuts down, and only then.
    assert (tmp_path / "data" / "mongod.lock").read_bytes() == b""


def test_the_command_on_a_taken_port_exits_1_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ran = subprocess.run([*SERVER, "--port", str(port)], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"motorlike server: Port {port} is already in use")
    assert ran.stderr.count("\n") == 1


def test_the_command_tells_when_its_server_dies() -> None:
    with subprocess.Popen(
        [*SERVER, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        pid, folder = process_and_folder(line_of(command.stdout))
        os.kill(pid, signal.SIGKILL)
        _, err = command.communicate(timeout=20)
    assert command.returncode == 1
    assert "ended by itself" in err
    assert not folder.exists()


def run_script(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PYTHON, "-c", "import os, sys, time\nfrom motorlike.testing import *\n" + script],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_parent_killed_with_sigkill_leaves_nothing() -> None:
    script = (
        "with replica_set(2) as server:\n"
        "    server.members[1].pause()\n"
        "    print(*[member.pid for member in server.members], server.folder, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with run_script(script) as parent:
        *pids, folder = line_of(parent.stdout).split()
        assert all(is_alive(int(pid)) for pid in pids)
        parent.kill()
    assert_gone([int(pid) for pid in pids], Path(folder))


def test_a_program_that_never_leaves_the_block_leaves_nothing_at_exit() -> None:
    script = (
        "block = standalone()\n"
        "server = block.__enter__()\n"
        "print(server.members[0].pid, server.folder, flush=True)\n"
    )
    with run_script(script) as program:
        pid, folder = line_of(program.stdout).split()
        assert program.wait(20) == 0
    assert not is_alive(int(pid))
    assert not Path(folder).exists()


def test_a_forked_child_neither_stops_the_server_nor_keeps_it() -> None:
    script = (
        "with standalone() as server:\n"
        "    if os.fork() == 0:\n"
        "        try:\n"
        "            server.members[0].kill()\n"
        "        except MongodFailed as exc:\n"
        "            print(exc, flush=True)\n"
        "        sys.exit()\n"
        "    os.wait()\n"
        "    print(server.members[0].is_running, flush=True)\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(3)\n"
        "        os._exit(0)\n"
        "print(server.folder.exists(), flush=True)\n"
    )
    with run_script(script) as program:
        assert "Only the process that started a deployment can steer it" in line_of(program.stdout)
        assert line_of(program.stdout) == "True"
        assert line_of(program.stdout) == "False"
