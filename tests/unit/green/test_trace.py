"""`green.trace`: what it logs, when it warns, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from greenlet import getcurrent, gettrace, settrace

from motorlike import green
from motorlike.green import socket as green_socket
from motorlike.green import threading as green_threading
from motorlike.green.trace import Trace

LIMIT_SECONDS = 30
# Long enough that a busy machine does not pass for a held loop.
PATIENT_SECONDS = 0.5


class Log(logging.Handler):
    """A logger's records, and a way to wait for a warning in another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.has_warned = threading.Event()
        self.logger = logging.getLogger(f"test.{id(self)}")
        self.logger.setLevel(logging.DEBUG)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if record.levelno >= logging.WARNING:
            self.has_warned.set()

    @property
    def lines(self) -> list[str]:
        return [r.getMessage() for r in self.records if r.levelno == logging.DEBUG]

    @property
    def warnings(self) -> list[str]:
        return [r.getMessage() for r in self.records if r.levelno == logging.WARNING]

    def steps_of(self, name: str) -> list[str]:
        """What the log says of the operations called *name*, without durations."""
        pattern = rf"(.*<locals>\.)?{re.escape(name)} #\d+ "
        own = [line for line in self.lines if re.match(pattern, line)]
        return [re.sub(r"[\d.]+ ms", "- ms", line.partition("#")[2][2:]) for line in own]

    def trace(self, slow_seconds: float | None = None) -> Trace:
        return green.trace(slow_seconds, self.logger)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert gettrace() is None
    assert watchdogs() == []


def watchdogs() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "motorlike-trace"]


def naps() -> str:
    green.sleep(0.01)
    return "rested"


def here(offset: int = 0) -> str:
    """Where *naps* sleeps."""
    return f"green/test_trace.py:{naps.__code__.co_firstlineno + 1 + offset}"


# -- off ----------------------------------------------------------------------


def test_without_a_trace_no_function_is_set_and_no_thread_runs(run: Any) -> None:
    async def main() -> None:
        await green.spawn(naps)
        assert gettrace() is None
        assert watchdogs() == []

    run(main)


# -- the log of switches --------------------------------------------------------


def test_a_switch_says_which_operation_and_what_it_waits_in(run_on_each: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            assert await green.spawn(naps) == "rested"
        assert log.steps_of("naps") == [
            f"waits in sleep(0.01) at {here()}; it held the loop for - ms",
            f"goes on, after - ms in sleep(0.01) at {here()}",
            "ended; it held the loop for - ms",
        ]

    run_on_each(main)


def test_the_time_of_a_wait_is_that_of_the_sleep(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            await green.spawn(green.sleep, 0.05)
        (line,) = [line for line in log.lines if "goes on" in line]
        (milliseconds,) = re.findall(r"([\d.]+) ms", line)
        assert 40 < float(milliseconds) < 10_000

    run(main)


def test_the_time_that_the_loop_was_held_is_told(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            await green.spawn(time.sleep, 0.05)
        (milliseconds,) = re.findall(r"ended; it held the loop for ([\d.]+) ms", log.lines[0])
        assert 40 < float(milliseconds) < 10_000

    run(main)


def test_an_operation_that_never_waits_is_logged_once(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            await green.spawn(str.upper, "a")
        assert log.steps_of("str.upper") == ["ended; it held the loop for - ms"]
        assert len(log.lines) == 1

    run(main)


def test_operations_of_one_name_are_told_apart_by_number(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            await asyncio.gather(green.spawn(naps), green.spawn(naps))
        assert {line.split()[1] for line in log.lines} == {"#1", "#2"}
        assert len(log.steps_of("naps")) == 6

    run(main)


def test_a_lock_entered_by_with_is_named_as_a_lock(run: Any, log: Log) -> None:
    async def main() -> None:
        lock = green_threading.Lock()

        def holds() -> None:
            with lock:
                naps()

        with log.trace():
            await asyncio.gather(green.spawn(holds), green.spawn(holds))

    run(main)
    second = [line for line in log.lines if "#2 waits" in line]
    # By its stand-in where that is Python, by the caller's text where it is not.
    assert re.search(r"#2 waits in (Lock\.acquire|lock|with lock:) at", second[0])


def test_an_event_is_named(run: Any, log: Log) -> None:
    async def main() -> None:
        event = green_threading.Event()
        with log.trace():
            waiting = green.spawn(event.wait)
            await green.spawn(event.set)
            await waiting

    run(main)
    assert log.steps_of("Event.wait")[0] == "waits in Event.wait; it held the loop for - ms"


def test_a_socket_is_named_with_its_peer(run: Any, log: Log) -> None:
    server = green_socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    host, port = server.getsockname()
    client = green_socket.socket()

    def receives() -> bytes:
        client.connect((host, port))
        return client.recv(1)

    def answers() -> None:
        peer, _ = server.accept()
        naps()
        peer.sendall(b"x")
        peer.close()

    async def main() -> None:
        with log.trace():
            answering = green.spawn(answers)
            assert await green.spawn(receives) == b"x"
            await answering
        client.close()
        server.close()

    run(main)
    steps = "\n".join(log.steps_of("receives"))
    assert re.search(rf"waits in (socket\.recv on {host}:{port}|client\.recv\(1\)) at", steps)


def test_a_look_up_is_named_with_its_host(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            await green.spawn(green_socket.getaddrinfo, "localhost", 1)

    run(main)
    assert "waits in getaddrinfo('localhost')" in log.steps_of("getaddrinfo")[0]


def test_a_call_without_a_frame_is_named_by_the_callers_text(run: Any, log: Log) -> None:
    # As a compiled stand-in looks: no frame lies between the caller and the hub.
    def waits() -> None:
        hub = green.hub.current_hub().greenlet
        asyncio.get_running_loop().call_soon(getcurrent().switch)
        hub.switch()

    async def main() -> None:
        with log.trace():
            await green.spawn(waits)

    run(main)
    (step, *_) = [line for line in log.lines if "waits in" in line]
    line = waits.__code__.co_firstlineno + 3
    assert f"waits in hub.switch() at green/test_trace.py:{line};" in step


def test_a_decorated_function_is_named_itself(run: Any, log: Log) -> None:
    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return inner

    async def main() -> None:
        with log.trace():
            await green.spawn(decorated(decorated(naps)))

    run(main)
    assert len(log.steps_of("naps")) == 3


def test_a_green_thread_is_named_by_its_target(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            thread = green_threading.Thread(target=naps)
            thread.start()
            await green.spawn(thread.join)

    run(main)
    assert f"waits in sleep(0.01) at {here()}" in log.steps_of("naps")[0]


def test_a_cancelled_wait_is_interrupted(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            future = green.spawn(green.sleep, 100)
            future.cancel()
            await asyncio.wait([future])

    run(main)
    assert log.steps_of("sleep") == [
        "waits in sleep(100); it held the loop for - ms",
        "was interrupted, after - ms in sleep(100)",
        "ended; it held the loop for - ms",
    ]


def test_what_waited_before_the_trace_is_named_at_its_next_wait(run: Any, log: Log) -> None:
    def rests_twice() -> None:
        naps()
        naps()

    async def main() -> None:
        future = green.spawn(rests_twice)
        with log.trace():
            await future

    run(main)
    steps = [line.partition("#")[2][2:] for line in log.lines]
    assert [step.split()[0] for step in steps] == ["waits", "goes", "ended;"]
    assert all("rests_twice" in line for line in log.lines)


def test_a_trace_may_start_and_stop_inside_a_greenlet(run: Any, log: Log) -> None:
    def traces_itself() -> None:
        with log.trace():
            naps()

    async def main() -> None:
        await green.spawn(traces_itself)

    run(main)
    assert [line.partition("#")[2].split()[1] for line in log.lines] == ["waits", "goes"]


def test_workers_are_never_named(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            await asyncio.gather(*(green.spawn(naps) for _ in range(3)))
            await green.spawn(naps)

    run(main)
    assert log.lines
    assert not [line for line in log.lines if "Worker" in line or "Waiter" in line]


def test_a_logger_without_debug_gets_no_switches(run: Any, log: Log) -> None:
    async def main() -> None:
        log.logger.setLevel(logging.WARNING)
        with log.trace():
            await green.spawn(naps)

    run(main)
    assert log.records == []


def test_records_go_to_the_logger_of_the_module_by_default(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "motorlike.trace")

    async def main() -> None:
        with green.trace():
            await green.spawn(naps)

    run(main)
    assert {record.name for record in caplog.records if "naps" in record.message} == {
        "motorlike.trace"
    }


# -- the watchdog ---------------------------------------------------------------


def test_a_green_function_that_holds_the_loop_is_shown_while_it_does(
    run_on_each: Any, log: Log
) -> None:
    def holds_the_loop() -> bool:
        log.has_warned.clear()
        return log.has_warned.wait(LIMIT_SECONDS)

    async def main() -> None:
        with log.trace(0.05):
            assert await green.spawn(holds_the_loop)

    run_on_each(main)
    assert "holds_the_loop has held the loop for 0." in log.warnings[0]
    assert "return log.has_warned.wait(LIMIT_SECONDS)" in log.warnings[0]
    assert "Worker" not in log.warnings[0]


def test_a_coroutine_that_holds_the_loop_is_shown_while_it_does(run_on_each: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace(0.05):
            assert log.has_warned.wait(LIMIT_SECONDS)
            await asyncio.sleep(0)

    run_on_each(main)
    assert log.warnings[0].startswith("the event loop, in a callback or a coroutine,")
    assert "assert log.has_warned.wait(LIMIT_SECONDS)" in log.warnings[0]


def test_a_long_turn_is_shown_once(run: Any, log: Log) -> None:
    def holds_the_loop() -> None:
        log.has_warned.clear()
        assert log.has_warned.wait(LIMIT_SECONDS)
        # Five looks of the watchdog's more.
        time.sleep(0.05)

    async def main() -> None:
        with log.trace(0.04):
            for _ in range(2):
                await green.spawn(holds_the_loop)

    run(main)
    assert len([w for w in log.warnings if "holds_the_loop has held" in w]) == 2


def test_an_idle_loop_is_not_held(run_on_each: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace(PATIENT_SECONDS):
            await green.spawn(green.sleep, 2 * PATIENT_SECONDS)
            await asyncio.sleep(PATIENT_SECONDS)

    run_on_each(main)
    assert log.warnings == []


def test_many_short_turns_are_not_a_long_one(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace(PATIENT_SECONDS):
            for _ in range(12):
                green.spawn(time.sleep, PATIENT_SECONDS / 8)

    run(main)
    assert log.warnings == []


def test_a_loop_that_stands_still_between_two_runs_is_not_held(log: Log) -> None:
    loop = asyncio.new_event_loop()

    async def start() -> Trace:
        return log.trace(0.02)

    async def stop() -> None:
        trace.stop()

    trace = loop.run_until_complete(start())
    log.records.clear()
    time.sleep(0.2)
    assert not [w for w in log.warnings if "time.sleep(0.2)" in w]
    loop.run_until_complete(stop())
    loop.close()


# -- other trace functions ------------------------------------------------------


def test_a_trace_function_that_was_there_is_called_and_put_back(run: Any, log: Log) -> None:
    events: list[str] = []

    def earlier(event: str, between: object) -> None:
        events.append(event)

    async def main() -> None:
        settrace(earlier)
        try:
            with log.trace():
                await green.spawn(naps)
            assert gettrace() is earlier
        finally:
            settrace(None)
        assert events[:4] == ["switch"] * 4

    run(main)
    assert len(log.steps_of("naps")) == 3


def test_the_trace_function_is_put_back_after_an_exception(run: Any, log: Log) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError), log.trace(0.1):
            await green.spawn(lambda: 1 / 0)
        assert gettrace() is None
        assert watchdogs() == []

    run(main)


def test_a_trace_function_that_was_set_later_is_left_and_ours_is_silent(run: Any, log: Log) -> None:
    async def main() -> None:
        trace = log.trace()
        ours = gettrace()
        assert ours is not None

        def later(event: Any, between: Any) -> None:
            ours(event, between)

        settrace(later)
        try:
            trace.stop()
            assert gettrace() is later
            await green.spawn(naps)
            assert log.lines == []
        finally:
            settrace(None)

    run(main)


# -- one at a time, and the end ---------------------------------------------------


def test_a_second_trace_in_a_thread_is_an_error(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace():
            with pytest.raises(RuntimeError, match=r"is traced already.*stop that one first"):
                green.trace()
            await green.spawn(naps)
        with log.trace():
            await green.spawn(naps)

    run(main)
    assert len(log.steps_of("naps")) == 6


def test_two_threads_have_a_trace_each(run: Any, script: Any) -> None:
    async def traced(log: Log) -> None:
        with log.trace(PATIENT_SECONDS):
            await green.spawn(naps)

    mine, theirs = Log(), Log()
    together = threading.Barrier(2)

    def other() -> None:
        together.wait(LIMIT_SECONDS)
        asyncio.run(traced(theirs))

    peer = script(other)
    together.wait(LIMIT_SECONDS)
    run(lambda: traced(mine))
    peer.end()
    assert len(mine.lines) == len(theirs.lines) == 3


def test_a_trace_ends_with_its_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], log: Log
) -> None:
    async def main() -> Trace:
        trace = log.trace(0.1)
        await green.spawn(naps)
        return trace

    with asyncio.Runner(loop_factory=new_loop) as runner:
        trace = runner.run(main())
        assert trace.is_running
    assert not trace.is_running
    assert gettrace() is None
    assert watchdogs() == []
    trace.stop()


def test_a_loop_that_was_closed_by_hand_does_not_keep_its_thread_traced(run: Any, log: Log) -> None:
    async def main() -> Trace:
        trace = log.trace(0.01)
        await green.spawn(naps)
        return trace

    loop = asyncio.new_event_loop()
    forgotten = loop.run_until_complete(main())
    loop.close()
    for thread in watchdogs():
        thread.join(LIMIT_SECONDS)
    run(main)
    assert not forgotten.is_running


def test_a_trace_is_stopped_in_its_own_thread(run: Any, log: Log) -> None:
    async def main() -> None:
        with log.trace() as trace:
            with pytest.raises(RuntimeError, match=r"call_soon_threadsafe\(trace.stop\)"):
                await asyncio.to_thread(trace.stop)
            assert trace.is_running
        await asyncio.to_thread(trace.stop)

    run(main)


def test_a_trace_without_a_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        green.trace()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_threshold_that_is_no_duration_is_an_error(seconds: float) -> None:
    with pytest.raises(ValueError, match="slow_seconds must be positive or None"):
        green.trace(seconds)


# -- logging that goes wrong ------------------------------------------------------


def test_a_log_that_raises_ends_the_trace_and_not_the_operation(
    run: Any, log: Log, no_error_goes_unseen: list[logging.LogRecord]
) -> None:
    def fails(record: logging.LogRecord) -> None:
        raise ZeroDivisionError("the handler's own")

    log.emit = fails  # type: ignore[method-assign]  # a broken handler

    async def main() -> None:
        trace = log.trace(0.1)
        assert await green.spawn(naps) == "rested"
        assert not trace.is_running
        assert gettrace() is None
        trace.stop()

    run(main)
    assert "green.trace() ended by an exception" in no_error_goes_unseen[0].getMessage()
    no_error_goes_unseen.clear()


def test_a_log_handler_may_wait_in_a_greenlet(run: Any, log: Log) -> None:
    keep = log.emit

    def rests(record: logging.LogRecord) -> None:
        if green.in_greenlet():
            green.sleep(0)
        keep(record)

    log.emit = rests  # type: ignore[method-assign]  # a handler that sends records, say

    async def main() -> None:
        with log.trace():
            await green.spawn(naps)

    run(main)
    assert log.steps_of("naps")[0].startswith("waits in sleep(0.01)")


def test_a_forked_child_is_not_traced(program: Any) -> None:
    printed = program(
        """
        import asyncio, os, warnings
        from greenlet import gettrace
        from motorlike import green

        # Of the watchdog's thread, in Python 3.12 and later.
        warnings.simplefilter("ignore", DeprecationWarning)

        async def main():
            with green.trace() as trace:
                child = os.fork()
                if not child:
                    os._exit(0 if gettrace() is None and not trace.is_running else 1)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                assert trace.is_running and gettrace() is not None

        asyncio.run(main())
        """
    )
    assert printed == "0\n"
