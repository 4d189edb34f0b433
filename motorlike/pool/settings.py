"""The numbers that a pool is made with, checked.

Rule: an impossible value is refused where the pool is made, with the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import get_args

from motorlike.pool.shelf import Order

__all__ = ["PoolStats", "Settings", "check_size"]


@dataclass(frozen=True)
class Settings:
    """What `ConnectionPool` was told; its docstring explains each."""

    max_size: int
    min_size: int
    order: Order
    wait_timeout: float | None
    max_waiters: int | None
    max_idle_seconds: float | None
    max_lifetime_seconds: float | None
    keepalive_seconds: float | None
    hook_timeout: float
    backoff_seconds: tuple[float, float]
    discard_on: tuple[type[BaseException], ...]
    random: Random

    def __post_init__(self) -> None:
        check_size(self.max_size, self.min_size)
        if self.order not in get_args(Order):
            names = ", ".join(map(repr, get_args(Order)))
            raise ValueError(f"order must be one of {names}, not {self.order!r}")
        if self.max_waiters is not None and self.max_waiters < 0:
            raise ValueError(f"max_waiters must not be negative: {self.max_waiters!r}")
        if self.wait_timeout is not None and self.wait_timeout < 0:
            raise ValueError(f"wait_timeout must not be negative: {self.wait_timeout!r}")
        for name in (
            "max_idle_seconds",
            "max_lifetime_seconds",
            "keepalive_seconds",
            "hook_timeout",
        ):
            seconds = getattr(self, name)
            if seconds is not None and seconds <= 0:
                raise ValueError(f"{name} must be positive, not {seconds!r}")


def check_size(max_size: int, min_size: int) -> None:
    """Refuse sizes that no pool can have."""
    if max_size < 1:
        raise ValueError(f"a pool holds at least one connection: max_size is {max_size!r}")
    if not 0 <= min_size <= max_size:
        raise ValueError(
            f"min_size must lie between 0 and max_size ({max_size}), and is {min_size!r}"
        )


@dataclass(frozen=True)
class PoolStats:
    """A pool at one moment, and what has happened since it was made.

    Attributes:
        max_size: How many connections there may be.
        size: How many places are taken: ``idle`` and ``in_use`` ones, and those
            whose connection is being opened, probed or closed.
        idle: Connections that can be had at once.
        in_use: Connections that are checked out.
        waiting: How many greenlets and tasks wait in line.
        check_outs: How often a connection was checked out.
        opened: How many connections were opened.
        closed: How many were closed, for whatever reason.
        broken: How many of those because they broke.
        failed_connects: How many attempts to open one failed.
        timeouts: How many waits ended by `PoolTimeout`.
    """

    max_size: int
    size: int
    idle: int
    in_use: int
    waiting: int
    check_outs: int
    opened: int
    closed: int
    broken: int
    failed_connects: int
    timeouts: int
