"""What `wrk` prints, read."""

from __future__ import annotations

import pytest

from tests.unit.benchmarks.suite import module

load = module("load")

PRINTED = """\
Running 2s test @ http://127.0.0.1:8888/db
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    24.54ms   13.10ms 110.39ms   85.69%
    Req/Sec     2.74k   405.11     3.21k    80.00%
  Latency Distribution
     50%  812.00us
     75%   26.03ms
     90%   39.35ms
     99%    1.25s
  5463 requests in 2.01s, 1.22MB read
Requests/sec:   2717.73
Transfer/sec:    621.01KB
"""


def test_rate_and_latencies_are_read_in_their_units() -> None:
    expected = load.Load("wrk", 2717.73, 0.812, 1250.0)
    assert load.read_wrk(PRINTED) == expected
    # Seconds are padded with a blank.
    assert load.read_wrk(PRINTED.replace("1.25s", "1.25s ")) == expected


@pytest.mark.parametrize(
    "line",
    [
        "  Non-2xx or 3xx responses: 10542",
        "  Socket errors: connect 0, read 3, write 0, timeout 0",
    ],
)
def test_a_load_with_failures_is_an_error(line: str) -> None:
    with pytest.raises(load.LoadFailed, match=line.strip()):
        load.read_wrk(PRINTED.replace("Requests/sec", f"{line}\nRequests/sec"))


def test_what_cannot_be_read_is_shown() -> None:
    with pytest.raises(load.LoadFailed, match="unable to connect"):
        load.read_wrk("unable to connect to 127.0.0.1:8888 Connection refused")
