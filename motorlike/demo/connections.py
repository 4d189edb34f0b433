"""How many connections the demo's client uses, as its pool tells.

`command` gives it to the client as an event listener.

Rule: it only counts. PyMongo calls it in the middle of its pool's work.
"""

from __future__ import annotations

from pymongo import monitoring

__all__ = ["ConnectionCount"]


class ConnectionCount(monitoring.ConnectionPoolListener):
    """A running count of a pool's events.

    Attributes:
        opened: Connections opened so far.
        operations: How often one was taken for an operation.
        in_use: How many are taken now.
        most_in_use: How many were at most.
    """

    def __init__(self) -> None:
        self.opened = self.operations = self.in_use = self.most_in_use = 0

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        self.opened += 1

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        self.operations += 1
        self.in_use += 1
        self.most_in_use = max(self.most_in_use, self.in_use)

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        self.in_use -= 1

    # The other events change none of the figures.

    def pool_created(self, event: monitoring.PoolCreatedEvent) -> None:
        pass

    def pool_ready(self, event: monitoring.PoolReadyEvent) -> None:
        pass

    def pool_cleared(self, event: monitoring.PoolClearedEvent) -> None:
        pass

    def pool_closed(self, event: monitoring.PoolClosedEvent) -> None:
        pass

    def connection_ready(self, event: monitoring.ConnectionReadyEvent) -> None:
        pass

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        pass

    def connection_check_out_started(
        self, event: monitoring.ConnectionCheckOutStartedEvent
    ) -> None:
        pass

    def connection_check_out_failed(self, event: monitoring.ConnectionCheckOutFailedEvent) -> None:
        pass
