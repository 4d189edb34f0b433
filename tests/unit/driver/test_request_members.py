"""Which member of a deployment a request goes to."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo import ReadPreference
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription
from pymongo.server_selectors import writable_server_selector
from pymongo.synchronous.settings import TopologySettings
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription

from motorlike.driver.client import MongoClient
from motorlike.driver.requests import member_for
from tests.unit.driver.scripted_pool import run


class Topology:
    """A topology description of three members, by name."""

    def __init__(self, *near: str, unknown: tuple[str, ...] = ()) -> None:
        self.near = near
        self.servers = {
            name: SimpleNamespace(address=name, is_server_type_known=name not in unknown)
            for name in ("a", "b", "c")
        }

    def server_descriptions(self) -> dict[str, Any]:
        return self.servers

    def apply_selector(self, selector: Any, address: None, *, custom_selector: Any) -> list[Any]:
        suitable = [each for each in self.servers.values() if each.is_server_type_known]
        chosen = custom_selector([each for each in suitable if selector(each.address)])
        return [each for each in chosen if each.address in self.near]


def choose(members: list[str], topology: Topology, selector: Any, custom: Any = None) -> Any:
    return member_for(members, topology, selector, custom)  # type: ignore[arg-type]  # scripted


def test_the_first_member_that_will_do_is_chosen_however_near_it_is() -> None:
    topology = Topology("c")
    assert choose(["a", "b"], topology, lambda name: True) == "a"
    assert choose(["a", "b"], topology, lambda name: name != "a") == "b"
    assert choose(["a", "b"], topology, lambda name: name == "c") is None


def test_a_custom_selector_has_its_say() -> None:
    def custom(servers: list[Any]) -> list[Any]:
        return [each for each in servers if each.address != "a"]

    assert choose(["a", "b"], Topology("a"), lambda name: True, custom) == "b"


def test_a_member_that_went_away_does_not_come_back() -> None:
    members = ["a", "b", "gone"]
    assert choose(members, Topology("b", unknown=("a",)), lambda name: True) == "b"
    assert members == ["b"]
    assert choose(members, Topology("a", "b"), lambda name: True) == "b"


def test_writes_and_reads_stay_with_one_mongos_of_several() -> None:
    """Each is writable and near enough: a read on another one would overtake a write."""
    reply = {"ok": 1, "msg": "isdbgrid", "maxWireVersion": 25, "isWritablePrimary": True}
    addresses = [(name, 27017) for name in ("a", "b", "c")]
    servers = {each: ServerDescription(each, Hello(reply), 0.01) for each in addresses}
    topology = TopologyDescription(
        TOPOLOGY_TYPE.Sharded, servers, None, None, None, TopologySettings(addresses)
    )
    for selector in (writable_server_selector, ReadPreference.PRIMARY, ReadPreference.NEAREST):
        assert member_for([addresses[1]], topology, selector, None) == addresses[1]


def test_a_sharded_transaction_stays_with_the_mongos_it_is_pinned_to() -> None:
    asked: list[Any] = []

    async def main() -> None:
        client = MongoClient("mongodb://localhost:1")
        base = MongoClient.__mro__[1]
        with ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(base, "_select_server", lambda *args, **kwargs: asked.append(kwargs))
            with client.start_request() as request:
                request.holdings.members.append(("other", 1))
                session = SimpleNamespace(_pinned_address=("mongos", 1))
                client._select_server(lambda s: s, session, "find", address=None)
        assert asked == [{"address": None}]

    run(main)
