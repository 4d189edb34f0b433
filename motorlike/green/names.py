"""Host names, looked up without blocking the loop.

`green.socket` offers these under the standard library's names. What needs no
look-up costs no thread; the rest runs in the loop's executor.

Rule: results and errors are the standard library's own.
"""

from __future__ import annotations

import socket as _stdlib
from typing import Any

from motorlike.green.hub import offload

__all__ = [
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "resolve",
]


# `Any` here and below: as the standard library's stubs have it, or wider.
def getaddrinfo(
    host: Any,
    port: Any,
    family: int = 0,
    type: int = 0,  # noqa: A002 - the stdlib's name
    proto: int = 0,
    flags: int = 0,
) -> list[Any]:
    """As `socket.getaddrinfo`; a name goes through the loop's executor."""
    try:
        # An address needs no look-up, and so no thread.
        return _stdlib.getaddrinfo(host, port, family, type, proto, flags | _stdlib.AI_NUMERICHOST)
    except _stdlib.gaierror as exc:
        if exc.errno != _stdlib.EAI_NONAME or flags & _stdlib.AI_NUMERICHOST:
            raise
    return offload(_stdlib.getaddrinfo, host, port, family, type, proto, flags)


def resolve(sock: _stdlib.socket, address: Any) -> Any:
    """Return *address* as *sock* takes it, with its host's name looked up."""
    if sock.family not in (_stdlib.AF_INET, _stdlib.AF_INET6):
        return address
    host, port, *rest = address
    # Two names that stand for addresses; only connect() and bind() know them.
    if host in ("", b"", "<broadcast>", b"<broadcast>"):
        return address
    found = getaddrinfo(host, port, sock.family, sock.type, sock.proto)[0][4]
    return (*found[:2], *rest) if rest else found


def gethostbyname(hostname: str) -> str:
    """As `socket.gethostbyname`, in the loop's executor."""
    return offload(_stdlib.gethostbyname, hostname)


def gethostbyname_ex(hostname: str) -> Any:
    """As `socket.gethostbyname_ex`, in the loop's executor."""
    return offload(_stdlib.gethostbyname_ex, hostname)


def gethostbyaddr(ip_address: str) -> Any:
    """As `socket.gethostbyaddr`, in the loop's executor."""
    return offload(_stdlib.gethostbyaddr, ip_address)


def getnameinfo(sockaddr: Any, flags: int) -> tuple[str, str]:
    """As `socket.getnameinfo`, in the loop's executor."""
    return offload(_stdlib.getnameinfo, sockaddr, flags)


def getfqdn(name: str = "") -> str:
    """As `socket.getfqdn`, in the loop's executor."""
    return offload(_stdlib.getfqdn, name)
