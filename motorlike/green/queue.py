"""The standard library's own `queue`, executed against green threading.

Rule: nothing is written here that the standard library has written already.
"""

from __future__ import annotations

import queue as _stdlib
from types import ModuleType
from typing import TYPE_CHECKING

from motorlike.green import importer

if TYPE_CHECKING:
    from queue import LifoQueue, PriorityQueue, Queue, SimpleQueue
else:
    # Without its compiled half, whose SimpleQueue would stop the thread.
    _compiled = ModuleType("_queue")
    _compiled.Empty = _stdlib.Empty
    _green = importer.Loader({"queue"}, stand_ins={"_queue": _compiled}).load("queue")
    Queue = _green.Queue
    LifoQueue = _green.LifoQueue
    PriorityQueue = _green.PriorityQueue
    SimpleQueue = _green.SimpleQueue

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]

# What callers catch is the class that everybody else raises: the green module,
# which is our own copy, raises these as well.
Empty = _stdlib.Empty
Full = _stdlib.Full
if not TYPE_CHECKING:
    _green.Full = Full
    if hasattr(_stdlib, "ShutDown"):
        ShutDown = _green.ShutDown = _stdlib.ShutDown
        __all__ += ["ShutDown"]
