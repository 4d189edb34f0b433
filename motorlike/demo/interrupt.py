"""Ctrl-C and SIGTERM for a program that is partly synchronous, partly a task.

Rule: while the event loop runs, a signal cancels the program's task and
raises nothing: an exception could come up in the middle of any callback.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupt"]


class Interrupt:
    """Ends the program in order at a signal.

    Attributes:
        exit_code: What a shell expects of a program that a signal ended:
            128 plus the number of the signal.
    """

    def __init__(self) -> None:
        self.exit_code = 128 + signal.SIGINT
        self._task: asyncio.Task[object] | None = None

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM.

        Outside `cancelling_current_task` they raise `KeyboardInterrupt`.
        """
        # SIGINT too: a shell starts background jobs with it ignored.
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def cancelling_current_task(self) -> Iterator[None]:
        """Let a signal cancel the task that runs now."""
        self._task = asyncio.current_task()
        try:
            yield
        finally:
            self._task = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.exit_code = 128 + number
        if self._task is None:
            raise KeyboardInterrupt
        # Thread-safe, for that also wakes the loop up.
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)
