"""What a connection pool refuses with.

Raised by `motorlike.pool`; what a driver itself raises passes through.

Rule: an error is made for each waiter anew; a shared one would grow tracebacks.
"""

from __future__ import annotations

from motorlike.errors import MotorlikeError, NotInGreenlet

__all__ = ["PoolClosed", "PoolError", "PoolTimeout", "TooManyWaiters", "outside_greenlet"]


class PoolError(MotorlikeError):
    """The base of what a pool refuses with. The connections are not to blame."""


class PoolTimeout(PoolError, TimeoutError):
    """No connection was checked in within the time that the caller would wait."""


class PoolClosed(PoolError):
    """The pool has been closed. Make a new one; this one never opens again."""


class TooManyWaiters(PoolError):
    """As many wait in line as *max_waiters* admits, so the caller was refused at once."""


def outside_greenlet(operation: str) -> NotInGreenlet:
    """Make the error for a ``with`` block where an ``async with`` belongs."""
    error = NotInGreenlet(operation)
    error.args = (
        f"{operation} would block the IOLoop: it was called outside a motorlike greenlet. "
        "In a coroutine write `async with pool.reserve()`, or `await pool.run(function)`; "
        "or run the code with green.spawn().",
    )
    return error
