"""How many documents an iteration asks for at a time, where its user leaves that open.

By itself a server fills a batch up to 16 MB. So much is decoded in one go while
everything else on the loop waits, and in memory that is faulted in for it, page by
page, until the process has grown enough to keep it. With a server far away more at
a time is faster all the same, and then that is what is asked for. With one that is
near it is the other way about: the sooner a batch is there, the sooner the server can
make one while another is decoded. So an iteration begins with little there.

Rule: this chooses batch sizes and nothing else; what is found does not depend on it.
"""

from __future__ import annotations

from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.errors import BSONError

__all__ = ["Pace"]

_GOAL_BYTES = 1024 * 1024

# A server that answers so soon is near, and a trip to it costs less than it saves.
_NEAR_SECONDS = 0.001

# What a near one is asked for at first, and how many times as much the next time: it
# makes documents about twice as fast as Python decodes and uses them.
_FIRST_BYTES = 48 * 1024
_GROWTH = 2

# The server's own limit. From there on it has its way.
_MOST_BYTES = 16 * _GOAL_BYTES

# However large they are: a batch of one or two would be all waiting.
_LEAST_DOCUMENTS = 16

# A batch twice as large has to bring so many times the documents a second.
_GAIN = 1.25

_OPTIONS: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)


class Pace:
    """The batch size of one iteration.

    Attributes:
        size: Documents to ask for; 0 lets the server choose.
    """

    __slots__ = (
        "_bytes",
        "_documents",
        "_goal_bytes",
        "_is_settled",
        "_is_trying",
        "_rate",
        "size",
    )

    def __init__(self) -> None:
        self.size = 0
        self._goal_bytes = _GOAL_BYTES
        # Of the documents that were weighed.
        self._bytes = 0
        self._documents = 0
        # Documents a second, when the goal was last raised.
        self._rate = 0.0
        # Whether the goal has just been raised, and not been seen to help.
        self._is_trying = False
        self._is_settled = False

    def note_answer(self, seconds: float) -> None:
        """Learn that a server with nothing else to do took *seconds* for a batch."""
        if not self._documents and seconds < _NEAR_SECONDS:
            self._goal_bytes = _FIRST_BYTES

    def weigh(self, document: Any, of: int = 1) -> None:  # `Any`: what the cursor decodes to
        """Take *document*, one *of* so many in a batch, for a typical one of those that follow."""
        try:
            size = len(bson.encode(document, codec_options=_OPTIONS))
        except (BSONError, OverflowError, TypeError, ValueError):
            # It has values that the application's own codec options made, or is
            # a raw batch, of which nobody knows how many documents are in it.
            return
        self.grow(size * of)
        self.add(1, size)

    def grow(self, size: int) -> None:
        """Ask for more than the *size* bytes that have come, until it is enough."""
        asked = self.size
        if self._goal_bytes < _GOAL_BYTES:
            self._goal_bytes = min(max(self._goal_bytes, _GROWTH * size), _GOAL_BYTES)
            self._set_size()
        if asked and size > self._goal_bytes:
            # No more than was asked for has come: the documents are larger than was known.
            self.size = max(min(self.size, asked * self._goal_bytes // size), _LEAST_DOCUMENTS)

    def add(self, count: int, size: int) -> None:
        """Take *count* documents of *size* bytes altogether for typical ones."""
        self._documents += count
        self._bytes += size
        self._set_size()

    def count(self, size: int) -> float:
        """Return about how many documents are in *size* bytes."""
        return size * self._documents / self._bytes if self._bytes else 0.0

    def note_wait(self, count: float, seconds: float, waited: float) -> None:
        """Learn that a batch had to be waited for.

        As long as larger ones bring more a second, it is the way that takes the time,
        and not the work at its ends.

        Args:
            count: How many documents have come.
            seconds: How long after the request.
            waited: How much of that time the iteration had nothing else to do.
        """
        # Another task that shares the cursor may have taken what came.
        is_growing = self._goal_bytes < _GOAL_BYTES
        if self._is_settled or is_growing or not self._documents or not count:
            return
        rate = count / max(seconds, 1e-9)
        if waited < seconds / 2:
            # At work for most of the time, it would not be faster with more.
            if self._is_trying:
                self._go_back()
        elif rate >= _GAIN * self._rate:
            self._rate = rate
            self._goal_bytes *= 2
            self._is_trying = True
        else:
            self._go_back()
            self._is_settled = True
        self._set_size()

    def _go_back(self) -> None:
        self._rate = 0.0
        self._goal_bytes //= 2
        self._is_trying = False

    def _set_size(self) -> None:
        if self._goal_bytes >= _MOST_BYTES:
            self.size = 0
        elif self._documents:
            self.size = max(self._goal_bytes * self._documents // self._bytes, _LEAST_DOCUMENTS)
