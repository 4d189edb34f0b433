"""TLS handshakes: clients that come at once, as after a deployment.

Rule: what is counted as a handshake is what the server has accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..task import Figure, Task

if TYPE_CHECKING:
    from ..clients import Client
    from ..measure import Bench

__all__ = ["TASKS"]


async def _accepted(client: Client) -> int:
    """How many connections the server has accepted since it started."""
    status = await client.command("admin")({"serverStatus": 1})
    return int(status["connections"]["totalCreated"])


class _Storm(Task):
    name = "storm"
    # How many connections a client opens, monitors' included, is its own affair.
    summary = "a client is made, pings over TLS and is closed"
    figures = (
        Figure("rate", "clients/s", True),
        Figure("cpu", "CPU ms/client", False),
        Figure("p99", "p99 ms", False),
        Figure("handshakes", "handshakes/s", True),
    )
    transports = ("tls",)
    at_once = (1, 32)

    async def run(self, bench: Bench) -> dict[str, float]:
        observer = await bench.connect()
        before = await _accepted(observer)
        clients = 0

        async def come_and_go() -> None:
            nonlocal clients
            clients += 1
            client = await bench.peer.connect(bench.case.uri)
            try:
                await client.command("admin")({"ping": 1})
            finally:
                await client.close()

        measured = await bench.repeat(come_and_go)
        accepted = await _accepted(observer) - before
        figures = measured.figures()
        return {
            "rate": measured.rate,
            "cpu": measured.cpu / 1e3,
            "p99": figures["p99"],
            # The server counts those of the warm-up as well.
            "handshakes": measured.rate * accepted / clients,
        }


TASKS: tuple[Task, ...] = (_Storm(),)
