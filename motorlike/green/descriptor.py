"""What a green socket says of its descriptor and of its time-out: no I/O.

`green.socket.socket` builds on it.

Rule: nothing here can wait, so all of it may be called anywhere.
"""

from __future__ import annotations

import socket as _stdlib
from typing import Any

__all__ = ["Descriptor"]


class Descriptor:
    """The part of `socket.socket` that asks, and sets options."""

    _sock: _stdlib.socket
    _timeout: float | None

    # -- time-outs --------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        """Set the seconds a call may wait: ``None`` without limit, 0 not at all."""
        # Drivers set it several times an operation, to a float.
        if type(value) is float and value >= 0.0:
            self._timeout = value
            return
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = None if value is None else float(value)

    def gettimeout(self) -> float | None:
        """Return the seconds that a call may wait."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """The seconds that a call may wait."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Wait without limit, or not at all."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Return whether calls may wait."""
        return self._timeout != 0

    # -- options and addresses ---------------------------------------------

    @property
    def family(self) -> int:
        """The address family."""
        return self._sock.family

    @property
    def type(self) -> int:
        """The socket type."""
        return self._sock.type

    @property
    def proto(self) -> int:
        """The protocol number."""
        return self._sock.proto

    def listen(self, *backlog: int) -> None:
        """Take connections."""
        self._sock.listen(*backlog)

    def getpeername(self) -> Any:
        """Return the peer's address."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """Return the socket's own address."""
        return self._sock.getsockname()

    def getsockopt(self, *args: Any) -> Any:
        """Return a socket option."""
        return self._sock.getsockopt(*args)

    def setsockopt(self, *args: Any) -> None:
        """Set a socket option."""
        self._sock.setsockopt(*args)

    def get_inheritable(self) -> bool:
        """Return whether child processes inherit the descriptor."""
        return self._sock.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        """Set whether child processes inherit the descriptor."""
        self._sock.set_inheritable(inheritable)
