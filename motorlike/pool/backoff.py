"""How long to wait before the next attempt: ever longer, up to a cap, never in step.

The pool's background work asks here after a failure.

Rule: no wait is longer than the cap, and no two clients wait equally long.
"""

from __future__ import annotations

from random import Random

__all__ = ["Backoff"]


class Backoff:
    """The delays between attempts that fail.

    Args:
        first_seconds: The longest that the first delay may be. Each next one
            may be twice as long.
        cap_seconds: The longest that any may be.
        random: Where the jitter comes from; seed it to know the delays.
    """

    def __init__(self, first_seconds: float, cap_seconds: float, random: Random) -> None:
        if not 0 < first_seconds <= cap_seconds:
            raise ValueError(
                f"backoff_seconds must be positive and the first delay not above the cap, "
                f"not ({first_seconds!r}, {cap_seconds!r})"
            )
        self._first = first_seconds
        self._cap = cap_seconds
        self._random = random
        self._next = first_seconds

    def next_seconds(self) -> float:
        """Return how long to wait now: between a half and all of what it may be."""
        delay, self._next = self._next, min(self._next * 2, self._cap)
        return delay * self._random.uniform(0.5, 1)

    def reset(self) -> None:
        """Begin anew: an attempt succeeded."""
        self._next = self._first
