"""Async generators that the event loop is not told of.

Rule: only for those that have nothing to await at their end.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

__all__ = ["start_unseen"]

_Item = TypeVar("_Item")


def start_unseen(items: AsyncGenerator[_Item]) -> AsyncIterator[_Item]:
    """Start a generator, up to its first ``yield``, without the event loop's hooks.

    With them, a loop that is left by ``break`` would cost a task, and a loop
    that is then closed would find that task pending. There is nothing to
    await at this generator's end.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        items.asend(None).send(None)
    except StopIteration:
        pass
    finally:
        sys.set_asyncgen_hooks(*hooks)
    return items
