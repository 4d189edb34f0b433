"""The one server that can take a write, as long as the deployment does not change.

PyMongo selects a server anew for each operation. For writes, and for reads
from the primary, it then has no choice: the outcome is the same until a monitor
tells of something new, and finding it again is a twelfth of a small operation.

Rule: what is remembered belongs to one description of the topology, which
PyMongo replaces whenever anything changes; where there is a choice, or a word
to be had in it, nothing is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.errors import ConfigurationError
from pymongo.server_selectors import any_server_selector, writable_server_selector
from pymongo.topology_description import TOPOLOGY_TYPE

if TYPE_CHECKING:
    from pymongo.topology_description import TopologyDescription

__all__ = ["OnlyServer"]


class OnlyServer:
    """Remembers which server that is.

    Attributes:
        server: PyMongo's `Server`, ``None`` if there are several or none: as
            of the last `look_up`.
        takes_all_reads: Whether reads go there whatever they prefer.
    """

    __slots__ = ("_description", "server", "takes_all_reads")

    def __init__(self) -> None:
        self._description: TopologyDescription | None = None
        self.server: Any = None  # `Any`: the green copy of `Server` has no type
        self.takes_all_reads = False

    # `Any`: PyMongo's Topology, of which the green copy has no type either.
    def look_up(self, topology: Any) -> Any:
        """Return the one server of *topology* for writes, or ``None``."""
        if topology._description is not self._description:
            self._note(topology)
        return self.server

    def _note(self, topology: Any) -> None:
        description = self._description = topology._description
        self.server = None
        if topology._settings.server_selector not in (None, any_server_selector):
            # The application's own: it may decide otherwise each time.
            return
        try:
            description.check_compatible()
            suitable = description.apply_selector(writable_server_selector)
        except ConfigurationError:
            # For the operation, which selects for itself, to raise.
            return
        if len(suitable) == 1:
            self.server = topology._servers.get(suitable[0].address)
            self.takes_all_reads = description.topology_type in (
                TOPOLOGY_TYPE.Single,
                TOPOLOGY_TYPE.Sharded,
            )
