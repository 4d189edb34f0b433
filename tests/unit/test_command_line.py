"""``python -m motorlike``: its commands, and the demo's figures without a server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest

from motorlike import __main__ as command_line
from motorlike.demo import command
from motorlike.demo.connections import ConnectionCount
from motorlike.demo.interrupt import Interrupt
from motorlike.demo.load import Load, plan, send
from motorlike.demo.report import Findings, brief, differences, percentile, report
from motorlike.version import __version__


def findings(
    sent: dict[str, int], counted: dict[str, int], logged: dict[str, int], **failures: int
) -> Findings:
    load = Load(sent=Counter(sent), latencies=[0.002, 0.004], seconds=0.5)
    load.failures.update(failures)
    return Findings(load, ConnectionCount(), counted, logged)


# -- the commands ----------------------------------------------------------


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "python -m motorlike" in told
    assert "\n    demo " in told
    assert "\n    server " in told


@pytest.mark.parametrize("name", ["demo", "server"])
def test_each_command_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m motorlike {name} " in capsys.readouterr().out


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"motorlike {__version__}\n"


def test_arguments_after_the_command_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def run(arguments: list[str]) -> int:
        given.append(arguments)
        return 3

    monkeypatch.setitem(command_line._COMMANDS, "demo", (run, ""))
    assert command_line.main(["demo", "--keep", "--port", "80", "more"]) == 3
    assert given == [["--keep", "--port", "80", "more"]]


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["demo", "--dance"], "unrecognized arguments: --dance"),
        (["demo", "--requests", "0"], "'0' is not a number from 1 on"),
        (["demo", "--concurrency", "many"], "'many' is not a number from 1 on"),
        (["demo", "--port", "65536"], "'65536' is not a port"),
    ],
)
def test_a_wrong_argument_is_explained(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_demo_without_a_mongod_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MONGOD", str(tmp_path / "absent"))
    assert command.main([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("motorlike demo: $MONGOD is ")
    assert told.err.count("\n") == 1


def test_demo_with_a_malformed_uri_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--uri", "mongodb://127.0.0.1:port/"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("motorlike demo: --uri cannot be used: Port ")
    assert told.count("\n") == 1


def test_demo_on_a_taken_port_says_so_before_it_starts_a_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command.main(["--port", str(port)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"motorlike demo: cannot listen on port {port} of 127.0.0.1: ")
    assert told.err.count("\n") == 1


# -- signals ---------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_the_loop_raises(number: signal.Signals) -> None:
    interrupt = Interrupt()
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interrupt.handling_signals():
        os.kill(os.getpid(), number)
    assert interrupt.exit_code == 128 + number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_loop_cancels_the_task(number: signal.Signals) -> None:
    interrupt = Interrupt()

    async def wait() -> None:
        with interrupt.cancelling_current_task():
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()

    with interrupt.handling_signals(), pytest.raises(asyncio.CancelledError):
        asyncio.run(wait())
    assert interrupt.exit_code == 128 + number


# -- the figures -----------------------------------------------------------


def test_equal_counts_add_up() -> None:
    assert differences(findings({"a": 2, "b": 1}, {"a": 2, "b": 1}, {"b": 1, "a": 2})) == []


@pytest.mark.parametrize(
    "sent, counted, logged",
    [
        ({"a": 2}, {"a": 1}, {"a": 2}),
        ({"a": 2}, {"a": 2}, {"a": 3}),
        ({"a": 2}, {}, {}),
        ({}, {"a": 1}, {"a": 1}),
    ],
)
def test_a_page_whose_counts_differ_is_named(
    sent: dict[str, int], counted: dict[str, int], logged: dict[str, int]
) -> None:
    (difference,) = differences(findings(sent, counted, logged))
    numbers = [page.get("a", 0) for page in (sent, counted, logged)]
    assert difference == "a: {} visits sent, {} counted, {} logged".format(*numbers)


def test_counts_that_are_wrong_in_two_pages_do_not_cancel_out() -> None:
    wrong = {"a": 1, "b": 2}
    assert len(differences(findings({"a": 2, "b": 1}, wrong, wrong))) == 2


def test_a_failed_request_does_not_add_up_even_if_all_counts_do() -> None:
    counts = {"a": 2}
    assert differences(findings(counts, counts, counts, Oops=3)) == ["failed requests: 3 with Oops"]


def test_a_stale_read_is_a_failure_with_affinity_only() -> None:
    load = Load(reads=5, stale=2)
    kept = Findings(load, ConnectionCount(), {}, {})
    loose = Findings(load, ConnectionCount(), {}, {}, affinity=False)
    assert differences(kept) == ["stale reads: 2, in spite of affinity"]
    assert differences(loose) == []
    for found in (kept, loose):
        assert "\nstale reads  2 of 5: " in report(found)


def test_only_the_most_frequent_failures_are_told() -> None:
    many = {f"Oops{number}": number for number in range(1, 8)}
    told = differences(findings({}, {}, {}, **many))
    assert told[0] == "failed requests: 7 with Oops7"
    assert told[-1] == "and 2 other kinds of failure"


def test_an_error_is_told_without_the_drivers_state() -> None:
    error = (
        "host:1: refused (configured timeouts: connectTimeoutMS: 20000.0ms), Timeout: 5.0s, "
        "Topology Description: <id: 1>\nmore"
    )
    assert brief(error) == "host:1: refused"
    assert brief("not allowed, full error: {'ok': 0.0}") == "not allowed"


def test_report_has_all_figures() -> None:
    told = report(findings({"a": 2, "b": 1}, {"a": 2}, {"b": 1}, Oops=1))
    assert "requests     3 in 0.50 s: 6 per second\n" in told
    assert "errors       1\n" in told
    assert "latency      p50 2.0 ms, p95 4.0 ms, p99 4.0 ms\n" in told
    rows = [line.split() for line in told.splitlines()[-3:]]
    assert rows == [["a", "2", "2", "0"], ["b", "1", "0", "1"], ["all", "pages", "3", "2", "1"]]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, part) for part in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0


# -- the load --------------------------------------------------------------


def test_the_plan_visits_several_pages_and_looks_at_all_urls() -> None:
    requests = plan(600)
    visited = Counter(request.visited for request in requests if request.visited)
    assert len(requests) == 600
    assert visited.total() == 420
    assert len(visited) == 5
    looks = {request.path.partition("/")[0] for request in requests if not request.visited}
    assert looks == {"page", "recent", ""}


def test_the_plan_is_the_same_each_time() -> None:
    assert plan(50) == plan(50)


def test_the_shortest_plan_is_a_visit() -> None:
    (request,) = plan(1)
    assert request.path == f"visit/{request.visited}"


def test_a_site_that_is_gone_fails_the_load_which_then_gives_up() -> None:
    with socket.socket() as held:  # Bound, but not listening: it refuses.
        held.bind(("127.0.0.1", 0))
        load = asyncio.run(send(held.getsockname(), plan(600), 1))
    ((failure, number),) = load.failures.items()
    assert failure.startswith("ConnectionRefusedError: ")
    assert number == 50
    assert load.unsent == 550
    assert load.latencies == []
    assert "requests not sent after that: 550" in differences(
        Findings(load, ConnectionCount(), {}, {})
    )


@pytest.mark.parametrize(
    "answer, failure",
    [
        (b"", "IncompleteReadError: "),
        (b"HTTP/1.1 200 OK\r\n", "IncompleteReadError: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "IncompleteReadError: "),
        (b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nbusy\n", "HTTP 503, busy"),
        (b"Ahem\r\n\r\n", "HTTPInputError: "),
    ],
)
def test_a_bad_answer_is_a_failure(answer: bytes, failure: str) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def load_it() -> Load:
        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        async with server:
            return await send(server.sockets[0].getsockname(), plan(1), 1)

    load = asyncio.run(load_it())
    (told,) = load.failures
    assert told.startswith(failure)
    assert load.sent.total() == 1
