"""The other end of the limit's sockets: ``python -m benchmarks.answer FD SIZE...``.

Sizes come in pairs: as many bytes are awaited, and as many sent in answer,
pair after pair and from the start again, on each connection to the listening
socket FD. `limit` starts it.

Rule: it ends when the last connection has been closed.
"""

from __future__ import annotations

import itertools
import socket
import sys
import threading

__all__ = ["main"]


def _serve(connection: socket.socket, exchanges: list[tuple[int, bytes]]) -> None:
    with connection:
        for size, answer in itertools.cycle(exchanges):
            if not _received(connection, size):
                return
            connection.sendall(answer)


def _received(connection: socket.socket, size: int) -> bool:
    """Receive *size* bytes; tell whether they came before the end."""
    while size:
        data = connection.recv(min(size, 1 << 20))
        if not data:
            return False
        size -= len(data)
    return True


def main() -> None:
    """Serve until all is over."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    sizes = [int(size) for size in sys.argv[2:]]
    exchanges = [(sizes[i], bytes(sizes[i + 1])) for i in range(0, len(sizes), 2)]
    threads: list[threading.Thread] = []
    # The first may be slow to come; the others are there by then.
    listener.settimeout(30)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            break
        connection.settimeout(None)
        thread = threading.Thread(target=_serve, args=(connection, exchanges))
        thread.start()
        threads.append(thread)
        listener.settimeout(0.5)
    listener.close()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
