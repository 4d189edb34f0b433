"""The green layer: synchronous code on sockets, run on Tornado's IOLoop.

It knows greenlets and Tornado, and nothing of MongoDB. `spawn` starts a
synchronous callable in a child greenlet and returns a Future; `load` loads an
unmodified driver so that its sockets, locks and sleeps switch greenlets
instead of blocking.
"""

from __future__ import annotations

from motorlike.green.hub import GreenFuture, offload, sleep, spawn, wait
from motorlike.green.importer import load
from motorlike.green.local import local
from motorlike.green.trace import trace
from motorlike.green.worker import in_greenlet

__all__ = [
    "GreenFuture",
    "in_greenlet",
    "load",
    "local",
    "offload",
    "sleep",
    "spawn",
    "trace",
    "wait",
]
