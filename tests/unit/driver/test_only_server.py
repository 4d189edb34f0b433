"""Which server is remembered, and for how long: what PyMongo would have selected."""

from __future__ import annotations

import itertools
import logging
from types import SimpleNamespace
from typing import Any

import pymongo
import pytest
from pymongo import ReadPreference, _csot
from pymongo.hello import Hello
from pymongo.read_preferences import Primary, PrimaryPreferred
from pymongo.server_description import ServerDescription
from pymongo.server_selectors import any_server_selector, writable_server_selector
from pymongo.synchronous.settings import TopologySettings
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription

from motorlike.driver.client import MongoClient
from motorlike.driver.only_server import OnlyServer

STANDALONE = {"ok": 1, "maxWireVersion": 21, "isWritablePrimary": True}
PRIMARY = {**STANDALONE, "setName": "rs", "hosts": ["a:1", "b:1", "c:1"], "setVersion": 1}
SECONDARY = {**PRIMARY, "isWritablePrimary": False, "secondary": True}
MONGOS = {**STANDALONE, "msg": "isdbgrid"}
TOO_OLD = {**STANDALONE, "maxWireVersion": 2}
UNKNOWN = None


class Deployment:
    """A topology as a client holds it, of servers that replied so.

    Attributes:
        asked: How often its description was asked to select.
    """

    def __init__(self, topology_type: int, *replies: Any, selector: Any = any_server_selector):
        addresses = [(name, 1) for name, _ in zip("abc", replies, strict=False)]
        self._settings = TopologySettings(
            addresses, replica_set_name="rs", server_selector=selector
        )
        self._servers = {each: SimpleNamespace(address=each) for each in addresses}
        self._description: Any = None
        self.asked = 0
        self.become(topology_type, *replies)

    def become(self, topology_type: int, *replies: Any) -> None:
        servers = {
            address: ServerDescription(address)
            if reply is UNKNOWN
            else ServerDescription(address, Hello(reply), 0.01)
            for address, reply in zip(self._servers, replies, strict=True)
        }
        description = TopologyDescription(topology_type, servers, "rs", None, None, self._settings)
        original = description.apply_selector

        def apply_selector(*args: Any, **kwargs: Any) -> Any:
            self.asked += 1
            return original(*args, **kwargs)

        description.apply_selector = apply_selector  # type: ignore[method-assign]  # counted
        self._description = description

    def selects(self, selector: Any) -> list[Any]:
        """What PyMongo would select from."""
        custom = self._settings.server_selector
        suitable = self._description.apply_selector(selector, None, custom_selector=custom)
        return [self._servers[each.address] for each in suitable]


@pytest.mark.parametrize(
    ("topology_type", "replies", "takes_all_reads"),
    [
        (TOPOLOGY_TYPE.Single, [STANDALONE], True),
        (TOPOLOGY_TYPE.Single, [SECONDARY], True),
        (TOPOLOGY_TYPE.Sharded, [MONGOS], True),
        (TOPOLOGY_TYPE.Sharded, [UNKNOWN, MONGOS], True),
        (TOPOLOGY_TYPE.ReplicaSetWithPrimary, [SECONDARY, PRIMARY, SECONDARY], False),
        (TOPOLOGY_TYPE.ReplicaSetWithPrimary, [PRIMARY, UNKNOWN, UNKNOWN], False),
    ],
)
def test_the_one_server_is_the_one_that_pymongo_selects(
    topology_type: int, replies: list[Any], takes_all_reads: bool
) -> None:
    topology = Deployment(topology_type, *replies)
    only = OnlyServer()
    server = only.look_up(topology)
    assert server is not None
    assert topology.selects(writable_server_selector) == [server]
    assert topology.selects(Primary()) == [server]
    assert only.takes_all_reads == takes_all_reads
    if takes_all_reads:
        assert topology.selects(ReadPreference.SECONDARY) == [server]


@pytest.mark.parametrize(
    ("topology_type", "replies"),
    [
        (TOPOLOGY_TYPE.Unknown, [UNKNOWN]),
        (TOPOLOGY_TYPE.Single, [UNKNOWN]),
        (TOPOLOGY_TYPE.Single, [TOO_OLD]),
        (TOPOLOGY_TYPE.Sharded, [MONGOS, MONGOS]),
        (TOPOLOGY_TYPE.ReplicaSetNoPrimary, [SECONDARY, UNKNOWN, SECONDARY]),
    ],
)
def test_nothing_is_remembered_where_there_is_none_or_a_choice(
    topology_type: int, replies: list[Any]
) -> None:
    assert OnlyServer().look_up(Deployment(topology_type, *replies)) is None


def test_nothing_is_remembered_where_the_application_selects() -> None:
    selector = list
    topology = Deployment(TOPOLOGY_TYPE.Single, STANDALONE, selector=selector)
    assert OnlyServer().look_up(topology) is None
    topology = Deployment(TOPOLOGY_TYPE.Single, STANDALONE, selector=None)
    assert OnlyServer().look_up(topology) is not None


def test_a_description_is_asked_once_and_each_new_one_again() -> None:
    topology = Deployment(TOPOLOGY_TYPE.ReplicaSetWithPrimary, PRIMARY, SECONDARY, SECONDARY)
    only = OnlyServer()
    first = only.look_up(topology)
    assert first.address == ("a", 1)
    assert all(only.look_up(topology) is first for _ in range(100))
    assert topology.asked == 1
    topology.become(TOPOLOGY_TYPE.ReplicaSetNoPrimary, UNKNOWN, SECONDARY, SECONDARY)
    assert only.look_up(topology) is None
    topology.become(TOPOLOGY_TYPE.ReplicaSetWithPrimary, SECONDARY, SECONDARY, PRIMARY)
    assert only.look_up(topology).address == ("c", 1)


def test_a_server_that_pymongo_has_not_made_yet_is_not_remembered() -> None:
    topology = Deployment(TOPOLOGY_TYPE.Single, STANDALONE)
    topology._servers.clear()
    assert OnlyServer().look_up(topology) is None


class Session:
    """A session in or out of a transaction."""

    def __init__(self, *, in_transaction: bool) -> None:
        self.in_transaction = in_transaction
        self.resets = 0
        self._pinned_address = None
        self._transaction = self

    def reset(self) -> None:
        self.resets += 1


class Clients:
    """A client on a standalone server, and how often PyMongo selected for it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.client = MongoClient("mongodb://localhost:1")
        self.client._opened = True
        self.topology = Deployment(TOPOLOGY_TYPE.Single, STANDALONE)
        patch.setattr(self.client, "_topology", self.topology)
        self.by_pymongo = 0
        patch.setattr(MongoClient.__mro__[1], "_select_server", self._select)

    def _select(self, *args: Any, **kwargs: Any) -> str:
        self.by_pymongo += 1
        return "by PyMongo"

    def select(self, selector: Any = writable_server_selector, session: Any = None, **more: Any):
        return self.client._select_server(selector, session, "find", **more)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    return Clients(monkeypatch)


@pytest.mark.parametrize("selector", [writable_server_selector, Primary()])
def test_an_operation_goes_to_the_remembered_server(clients: Clients, selector: Any) -> None:
    (server,) = clients.topology._servers.values()
    nothing = {"address": None, "deprioritized_servers": [], "operation_id": 7}
    assert clients.select(selector) is server
    assert clients.select(selector, **nothing) is server
    assert not clients.by_pymongo


def test_a_transaction_that_has_ended_is_forgotten_and_one_under_way_is_pymongos(
    clients: Clients,
) -> None:
    ended, under_way = Session(in_transaction=False), Session(in_transaction=True)
    assert clients.select(session=ended) in clients.topology._servers.values()
    assert ended.resets == 1
    assert clients.select(session=under_way) == "by PyMongo"
    assert under_way.resets == 0


@pytest.mark.parametrize(
    ("selector", "more"),
    [
        (any_server_selector, {}),
        (PrimaryPreferred(), {}),
        (writable_server_selector, {"address": ("a", 1)}),
        (writable_server_selector, {"deprioritized_servers": ["a"]}),
    ],
)
def test_pymongo_selects_where_more_is_asked(
    clients: Clients, selector: Any, more: dict[str, Any]
) -> None:
    assert clients.select(selector, **more) == "by PyMongo"


def test_pymongo_selects_under_a_deadline_and_where_it_is_logged(
    clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    with pymongo.timeout(5):
        assert _csot.get_timeout() is not None
        assert clients.select() == "by PyMongo"
    with caplog.at_level(logging.DEBUG, "pymongo.serverSelection"):
        assert clients.select() == "by PyMongo"
    assert clients.select() != "by PyMongo"


def test_a_client_that_is_not_open_opens_first(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []

    def get_topology(client: Any) -> Any:
        opened.append(True)
        return clients.topology

    clients.client._opened = False
    monkeypatch.setattr(MongoClient.__mro__[1], "_get_topology", get_topology)
    assert clients.select() in clients.topology._servers.values()
    assert opened == [True]


def test_what_is_remembered_follows_any_course_of_events() -> None:
    """Through all steps between six states, it is what PyMongo selects at that moment."""
    none = TOPOLOGY_TYPE.ReplicaSetNoPrimary
    with_primary = TOPOLOGY_TYPE.ReplicaSetWithPrimary
    states = [
        (with_primary, PRIMARY, SECONDARY, SECONDARY),
        (with_primary, SECONDARY, PRIMARY, SECONDARY),
        (with_primary, UNKNOWN, SECONDARY, PRIMARY),
        (none, SECONDARY, SECONDARY, SECONDARY),
        (none, UNKNOWN, SECONDARY, UNKNOWN),
        (with_primary, UNKNOWN, UNKNOWN, PRIMARY),
    ]
    topology = Deployment(*states[0])
    only = OnlyServer()
    for before, after in itertools.permutations(states, 2):
        for state in (before, after):
            topology.become(*state)
            server = only.look_up(topology)
            assert topology.selects(writable_server_selector) == ([server] if server else [])
