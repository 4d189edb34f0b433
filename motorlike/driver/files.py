"""Users' file objects, as GridFS in a child greenlet reads and writes them.

GridFS takes what it stores from a file object, and gives what it fetches to
one. `wrappers.gridfs` puts these in the place of the user's.

Rule: no file object stops the event loop. One that is asynchronous is awaited
there; any other is called in the loop's executor.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any

from motorlike.driver.loader import load
from motorlike.green import offload, wait

__all__ = ["destination", "source"]

_grid_file: Any = load("gridfs.synchronous.grid_file")  # Any: a module, changed below
# GridIn collects chunks up to this size and sends them at once. With PyMongo's
# 48 MB, encoding them would stop the event loop for a tenth of a second.
_grid_file._UPLOAD_BUFFER_SIZE = 4 << 20

# What is called in the greenlet itself: memory, and GridFS's own files.
_GREEN = (io.BytesIO, _grid_file.GridOut)

# Any: a file object may be of any class that has the method.
_Method = Callable[..., Any]


def source(data: Any) -> Any:
    """Return what PyMongo reads in place of *data*, if that is a file object."""
    if isinstance(data, (str, bytes, *_GREEN)) or not hasattr(data, "read"):
        return data
    return _Source(data)


def destination(file: Any) -> Any:
    """Return what PyMongo writes to in place of *file*."""
    return file if isinstance(file, _GREEN) else _Destination(file)


class _Source:
    def __init__(self, file: Any) -> None:
        self._read = _in_greenlet(file.read)

    def read(self, size: int) -> Any:
        # PyMongo takes a short read for the end of the file. A pipe or an
        # asyncio.StreamReader gives what has arrived.
        data = self._read(size)
        if not isinstance(data, bytes) or not data or len(data) >= size:
            return data
        parts, missing = [data], size - len(data)
        while missing > 0 and (data := self._read(missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)


class _Destination:
    def __init__(self, file: Any) -> None:
        self.write = _in_greenlet(file.write)


def _in_greenlet(method: _Method) -> _Method:
    if inspect.iscoroutinefunction(method):

        def call(*args: Any) -> Any:
            return wait(method(*args))
    else:

        def call(*args: Any) -> Any:
            result = offload(method, *args)
            # A plain function, such as a partial one, that returns a coroutine.
            return wait(result) if inspect.isawaitable(result) else result

    return call
