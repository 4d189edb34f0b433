"""The sockets by which the limit is measured."""

from __future__ import annotations

import socket

from tests.unit.benchmarks.suite import module

limit = module("limit")


def message(request_id: int, response_to: int, body: bytes) -> bytes:
    numbers = (16 + len(body), request_id, response_to, 2013)
    return b"".join(number.to_bytes(4, "little") for number in numbers) + body


def receive(replay: object, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    count = replay.recv_into(buffer)  # type: ignore[attr-defined]  # found at run time
    return bytes(buffer[:count])


def test_the_recorder_keeps_what_was_sent_and_all_that_came_back() -> None:
    near, far = socket.socketpair()
    with near, far:
        recorder = limit.Recorder(near)
        recorder.sendall(b"question")
        assert far.recv(100) == b"question"
        far.sendall(b"long answer")
        buffer = memoryview(bytearray(5))
        received = b""
        while len(received) < 11:
            received += bytes(buffer[: recorder.recv_into(buffer)])
        assert received == b"long answer"
        assert recorder.exchanges == [(b"question", b"long answer")]
        assert recorder.fileno() == near.fileno()


def test_a_replay_names_the_request_that_it_answers() -> None:
    recorded = message(900, 77, b"body")
    replay = limit.Replay(None, [(b"", recorded)])
    for request_id in (5, 6):
        replay.sendall(message(request_id, 0, b"anything"))
        assert receive(replay, 100) == message(900, request_id, b"body")


def test_a_replay_is_received_in_parts() -> None:
    replay = limit.Replay(None, [(b"", message(900, 77, b"body"))])
    replay.sendall(message(5, 0, b""))
    assert receive(replay, 16) == message(900, 5, b"body")[:16]
    assert receive(replay, 100) == b"body"


def test_replies_come_in_turn_and_begin_again() -> None:
    replay = limit.Replay(None, [(b"", message(1, 0, b"first")), (b"", message(2, 0, b"next"))])
    bodies = []
    for _ in range(4):
        replay.sendall(message(5, 0, b""))
        bodies.append(receive(replay, 100)[16:])
    assert bodies == [b"first", b"next", b"first", b"next"]
