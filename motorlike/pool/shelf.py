"""Who has which place of a pool: the accounting, without any I/O.

A *slot* is one of the pool's places. It is taken before its connection is
opened and kept until that is closed, so that there are never more connections
than slots. The pool asks here for slots and puts them back.

Rule: while somebody waits in line, no slot is idle and none is unused.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Literal, TypeVar

from motorlike.green.locks import RLock
from motorlike.pool.waiters import Line

__all__ = ["Order", "Shelf", "Slot"]

ConnT = TypeVar("ConnT")

Order = Literal["lifo", "fifo", "least_loaded"]


class Slot(Generic[ConnT]):
    """One place of a pool, and the connection in it. Times are monotonic seconds.

    Attributes:
        connection: ``None`` until it is open, and again when it is being closed.
        users: How many have it reserved.
        expires_at: When it has lived for long enough.
        used_at: When it was last checked in.
        checked_at: When it was last known to work.
        is_retired: Whether nobody else may have it.
        turn: Held by whom `MappedPool` lets use a connection that several have.
    """

    __slots__ = (
        "checked_at",
        "connection",
        "expires_at",
        "is_retired",
        "turn",
        "used_at",
        "users",
    )

    def __init__(self) -> None:
        self.connection: ConnT | None = None
        self.users = 0
        self.expires_at = float("inf")
        self.used_at = self.checked_at = 0.0
        self.is_retired = False
        self.turn = RLock()


class Shelf(Generic[ConnT]):
    """The slots of one pool, those that are idle, and the line before them."""

    def __init__(self, max_size: int, order: Order) -> None:
        self.max_size = max_size
        self.order: Order = order
        self.slots: set[Slot[ConnT]] = set()
        # Cold ones to the left. Those used last are to the right.
        self.idle: deque[Slot[ConnT]] = deque()
        self.line: Line[Slot[ConnT]] = Line()

    @property
    def has_room(self) -> bool:
        """Whether one more connection may be opened."""
        return len(self.slots) < self.max_size

    @property
    def next_idle(self) -> Slot[ConnT] | None:
        """The idle slot that would be taken next."""
        if not self.idle:
            return None
        return self.idle[0] if self.order == "fifo" else self.idle[-1]

    def take(self) -> Slot[ConnT] | None:
        """Take a slot for one user: an idle one, else a new one, else a shared one.

        Returns:
            ``None`` if the user must wait. A slot without a connection is for
            the user to open one in, or to `remove`.
        """
        slot: Slot[ConnT] | None = None
        if self.idle:
            slot = self.idle.popleft() if self.order == "fifo" else self.idle.pop()
        elif self.has_room:
            slot = self.add()
        elif self.order == "least_loaded":
            slot = self._least_loaded()
        if slot is not None:
            slot.users += 1
        return slot

    def _least_loaded(self) -> Slot[ConnT] | None:
        shareable = (
            each
            for each in self.slots
            if each.users and each.connection is not None and not each.is_retired
        )
        return min(shareable, key=lambda each: each.users, default=None)

    def add(self) -> Slot[ConnT]:
        """Take a new slot, to open a connection in. The caller knows that there is room."""
        slot: Slot[ConnT] = Slot()
        self.slots.add(slot)
        return slot

    def take_idle(self, slot: Slot[ConnT]) -> None:
        """Take one idle slot out, for other than using it."""
        self.idle.remove(slot)

    def put(self, slot: Slot[ConnT]) -> None:
        """Let others have *slot*, which was just used and works, if it has no more users."""
        if not slot.users:
            self.idle.append(slot)
        self.serve()

    def put_back(self, slot: Slot[ConnT]) -> None:
        """Let others have *slot* as before `take_idle`: nobody has used it."""
        later = (i for i, each in enumerate(self.idle) if each.used_at > slot.used_at)
        self.idle.insert(next(later, len(self.idle)), slot)
        self.serve()

    def remove(self, slot: Slot[ConnT]) -> None:
        """Free the place of a connection that is closed, or was never opened."""
        self.slots.discard(slot)
        self.serve()

    def serve(self) -> None:
        """Hand out what is to be had, to those who wait."""
        while self.line and (slot := self.take()) is not None:
            if not self.line.hand(slot):
                slot.users -= 1
                if slot.connection is None:
                    self.slots.discard(slot)
                elif not slot.users:
                    self.idle.append(slot)
