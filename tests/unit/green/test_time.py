"""`time`, with a `sleep` that lets others run."""

from __future__ import annotations

import time as stdlib_time
from typing import Any

import pytest

from motorlike.errors import NotInGreenlet
from motorlike.green import time
from motorlike.green.hub import spawn, wait


def test_sleep_lets_other_greenlets_run(green: Any) -> None:
    def check() -> None:
        other = spawn(lambda: "ran")
        time.sleep(0)
        assert other.done()
        assert wait(other) == "ran"

    green(check)


def test_everything_but_sleep_is_the_stdlibs() -> None:
    assert time.monotonic is stdlib_time.monotonic
    assert time.gmtime is stdlib_time.gmtime
    with pytest.raises(AttributeError):
        assert time.no_such_name


def test_sleep_on_the_loop_itself_is_refused(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(NotInGreenlet, match="sleep"):
            time.sleep(1)

    run(main)
