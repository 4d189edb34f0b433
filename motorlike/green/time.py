"""The `time` module with a `sleep` that lets other greenlets run.

Rule: everything but `sleep` is the standard library's own.
"""

from __future__ import annotations

import time as _stdlib
from typing import Any

from motorlike.green import hub

__all__ = ["sleep"]


def __getattr__(name: str) -> Any:
    return getattr(_stdlib, name)


# Read on every operation: bound here, they skip the look-up above.
monotonic = _stdlib.monotonic
perf_counter = _stdlib.perf_counter
time = _stdlib.time


def sleep(seconds: float) -> None:
    """Suspend the child greenlet for *seconds*.

    Raises:
        NotInGreenlet: Called outside a child greenlet.
    """
    hub.sleep(seconds)
