"""The exceptions that motorlike itself raises.

PyMongo's and the standard library's errors pass through untouched; these are
for what only motorlike can get wrong.

Rule: every message says what happened and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "BlockingExtension",
    "ConcurrentUse",
    "LoopClosed",
    "LoopMismatch",
    "MotorlikeError",
    "NotInGreenlet",
    "UntestedVersionWarning",
]


class MotorlikeError(RuntimeError):
    """The base of motorlike's own errors."""


class NotInGreenlet(MotorlikeError):
    """A green call would have blocked the IOLoop: it ran outside a child greenlet.

    Await the wrapper's method instead, or run the code with `green.spawn`.
    """

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"{operation} would block the IOLoop: it was called outside a motorlike "
            "greenlet. Await the wrapper's method, or run the code with green.spawn()."
        )


class BlockingExtension(MotorlikeError, ImportError):
    """A package to be run green uses compiled code that makes socket calls itself.

    Attributes:
        name: The extension module.
        calls: The socket calls, with the library that makes them if it is another.
    """

    def __init__(self, name: str, calls: tuple[str, ...]) -> None:
        super().__init__(
            f"{name} is an extension module that makes socket calls of its own "
            f"({', '.join(calls)}). They would block the IOLoop: no stand-in can reach them. "
            "Use a driver in pure Python, or call this one, not loaded green, in a thread: by "
            "green.offload() or loop.run_in_executor(). If its calls never wait, pass "
            f"extensions=[{name!r}]."
        )
        self.name = name
        self.calls = calls


class LoopClosed(MotorlikeError):
    """The event loop that a green call was waiting on has been closed.

    Nothing can complete on it any more. Run the operation on a running loop:
    a client opens itself again there.
    """

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"{operation} cannot go on: its event loop has been closed. Await operations "
            "before the loop ends; on a new loop the client opens itself again."
        )


class LoopMismatch(MotorlikeError):
    """One client was used from two event loops that are both alive."""


class ConcurrentUse(MotorlikeError):
    """Two greenlets waited for the same direction of one socket at once."""


class UntestedVersionWarning(UserWarning):
    """The installed PyMongo is outside the range that motorlike was tried with."""
