"""How the launcher finds mongod, picks ports and guards processes; no server."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from motorlike.testing import MongodFailed, MongodNotFound, find_mongod, replica_set, standalone
from motorlike.testing._binary import version_of
from motorlike.testing._member import Options, mongod_arguments
from motorlike.testing._process import Guard, free_ports, tail_of
from motorlike.testing.mongod import main


def program(path: Path, script: str = "exit 0", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any mongod: no variable, empty PATH and sys.path."""
    monkeypatch.delenv("MONGOD", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    return tmp_path


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard()
    yield guard
    guard.close()


def test_the_variable_comes_before_path(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(nowhere / "own" / "mongod-8")
    program(nowhere / "bin" / "mongod")
    monkeypatch.setenv("MONGOD", str(named))
    assert find_mongod() == named


def test_the_variable_may_name_a_program_on_path(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = program(nowhere / "bin" / "mongod-8")
    monkeypatch.setenv("MONGOD", "mongod-8")
    assert find_mongod() == named


def test_a_relative_path_becomes_absolute(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(nowhere / "own" / "mongod")
    monkeypatch.chdir(nowhere)
    monkeypatch.setenv("MONGOD", "own/mongod")
    assert find_mongod() == named


def test_an_empty_variable_counts_as_unset(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = program(nowhere / "bin" / "mongod")
    monkeypatch.setenv("MONGOD", "")
    assert find_mongod() == on_path


@pytest.mark.parametrize("kind", ["absent", "not executable", "a folder"])
def test_a_variable_that_cannot_be_run_is_an_error_though_path_has_one(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    program(nowhere / "bin" / "mongod")
    named = nowhere / "own" / "mongod"
    if kind == "not executable":
        program(named, mode=0o644)
    elif kind == "a folder":
        named.mkdir(parents=True)
    monkeypatch.setenv("MONGOD", str(named))
    with pytest.raises(MongodNotFound) as caught:
        find_mongod()
    assert str(named) in str(caught.value)
    assert "unset it" in str(caught.value)


def test_path_comes_before_the_wheel(nowhere: Path) -> None:
    on_path = program(nowhere / "bin" / "mongod")
    program(nowhere / "site" / "fiftyone" / "db" / "bin" / "mongod")
    assert find_mongod() == on_path


def test_the_wheel_is_found_without_importing_its_package(nowhere: Path) -> None:
    package = nowhere / "site" / "fiftyone"
    in_wheel = program(package / "db" / "bin" / "mongod")
    for folder in (package, package / "db"):
        (folder / "__init__.py").write_text("raise AssertionError('imported')")
    assert find_mongod() == in_wheel
    assert "fiftyone" not in sys.modules


def test_the_wheels_program_gets_its_run_bit(nowhere: Path) -> None:
    in_wheel = program(nowhere / "site" / "fiftyone" / "db" / "bin" / "mongod", mode=0o644)
    assert find_mongod().stat().st_mode & 0o111 == 0o111
    subprocess.run([in_wheel], check=True)


def test_a_wheel_without_the_program_is_passed_over(nowhere: Path) -> None:
    (nowhere / "site" / "fiftyone").mkdir(parents=True)
    with pytest.raises(MongodNotFound):
        find_mongod()


def test_nothing_found_says_what_was_looked_for_and_how_to_get_one(nowhere: Path) -> None:
    with pytest.raises(MongodNotFound) as caught:
        find_mongod()
    for word in ("$MONGOD", "PATH", "wheel", "pip install 'motorlike[server]'"):
        assert word in str(caught.value)


@pytest.mark.usefixtures("nowhere")
def test_a_deployment_without_mongod_fails_on_entering() -> None:
    for deployment in (standalone(), replica_set()):
        with pytest.raises(MongodNotFound), deployment:
            pass


@pytest.mark.usefixtures("nowhere")
def test_the_command_without_mongod_exits_2_with_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--port", "0"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("motorlike server: No mongod found")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--port", "65536"], ["--replica-set", "0"]])
def test_the_command_refuses_numbers_out_of_range(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_the_version_is_read_from_the_program(tmp_path: Path) -> None:
    assert version_of(program(tmp_path / "mongod", "echo 'db version v4.4.29'")) == (4, 4)


def test_a_program_that_tells_no_version_is_quoted(tmp_path: Path) -> None:
    broken = program(tmp_path / "mongod", "echo 'libcrypto.so.3: not found' >&2; exit 127")
    with pytest.raises(MongodNotFound, match=r"code 127.*libcrypto\.so\.3"):
        version_of(broken)


def test_a_program_for_another_machine_is_named(tmp_path: Path) -> None:
    foreign = tmp_path / "mongod"
    foreign.write_bytes(b"\x7fELF nonsense")
    foreign.chmod(0o755)
    with pytest.raises(MongodNotFound, match="could not be run: Exec format error"):
        version_of(foreign)


def test_free_ports_are_different_and_can_be_bound() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_extra_arguments_replace_the_defaults_they_name(tmp_path: Path) -> None:
    options = Options(extra_args=("--bind_ip=::1", "--ipv6"))
    arguments = mongod_arguments(options, tmp_path, None)
    assert "127.0.0.1" not in arguments
    assert arguments[-2:] == ["--bind_ip=::1", "--ipv6"]
    assert "--wiredTigerCacheSizeGB" in arguments


def test_client_certificates_without_tls_are_refused() -> None:
    with pytest.raises(ValueError, match="Pass tls=True as well"):
        standalone(tls_require_client_certificate=True)


def test_a_replica_set_without_members_is_refused() -> None:
    with pytest.raises(ValueError, match="members is 0"):
        replica_set(0)


def test_tls_without_the_cryptography_package_says_what_to_install() -> None:
    code = "import sys; sys.modules['cryptography'] = None; import motorlike.testing.certificates"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1].endswith("Run pip install 'motorlike[test]'.")


def test_the_tail_of_a_log_is_its_last_lines_after_the_offset(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{number}\n" for number in range(100)))
    assert tail_of(log).splitlines() == [str(number) for number in range(85, 100)]
    assert tail_of(log, log.stat().st_size - 3) == "99"
    assert tail_of(tmp_path / "absent") == ""


def test_closing_a_guard_kills_its_processes_and_deletes_its_folder(tmp_path: Path) -> None:
    guard = Guard()
    alive = tmp_path / "alive"
    script = f"while :; do touch {alive}; sleep 0.01; done"
    guard.start(["/bin/sh", "-c", script], guard.folder / "log")
    guard.close()
    alive.unlink(missing_ok=True)
    time.sleep(0.05)
    assert not alive.exists()
    assert not guard.folder.exists()


def test_closing_a_guard_twice_is_harmless() -> None:
    guard = Guard()
    guard.close()
    guard.close()


def test_a_closed_guard_says_that_the_deployment_has_ended() -> None:
    guard = Guard()
    guard.close()
    with pytest.raises(MongodFailed, match=r"has ended.*inside its with block"):
        guard.poll(1)


def test_a_guard_tells_output_and_exit_code(guard: Guard) -> None:
    log = guard.folder / "log"
    pid = guard.start(["/bin/sh", "-c", "echo said; echo complained >&2; exit 7"], log)
    while (code := guard.poll(pid)) is None:
        time.sleep(0.005)
    assert code == 7
    assert log.read_text() == "said\ncomplained\n"


def test_a_signal_to_a_process_that_has_ended_goes_nowhere(guard: Guard) -> None:
    pid = guard.start(["/bin/sleep", "60"], guard.folder / "log")
    guard.signal(pid, signal.SIGKILL)
    while (code := guard.poll(pid)) is None:
        time.sleep(0.005)
    guard.signal(pid, signal.SIGKILL)
    assert code == -signal.SIGKILL


def test_a_program_that_cannot_be_run_is_an_error_and_the_guard_goes_on(guard: Guard) -> None:
    with pytest.raises(MongodFailed, match="No such file or directory: '/absent'"):
        guard.start(["/absent"], guard.folder / "log")
    guard.start(["/bin/true"], guard.folder / "log")


def test_a_reply_that_an_interrupted_request_left_is_not_taken_for_the_next(guard: Guard) -> None:
    first = guard.start(["/bin/sh", "-c", "exit 1"], guard.folder / "log")
    second = guard.start(["/bin/sleep", "60"], guard.folder / "log")
    guard._send(0, "poll", first)
    assert guard.poll(second) is None


def test_a_guard_stopped_by_a_signal_cleans_up_and_is_missed() -> None:
    guard = Guard()
    guard._process.terminate()
    guard._process.wait()
    assert not guard.folder.exists()
    with pytest.raises(MongodFailed, match="ended too early"):
        guard.start(["/bin/true"], guard.folder / "log")
    guard.close()
