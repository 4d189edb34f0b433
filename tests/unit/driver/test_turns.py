"""Operations that stand in a pool's line before they begin, on scripted connections."""

from __future__ import annotations

import asyncio
import contextvars
import random
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pymongo
import pytest
from pymongo.errors import AutoReconnect, PyMongoError
from pymongo.read_preferences import Nearest, Primary
from pymongo.topology_description import TOPOLOGY_TYPE

from motorlike import green
from motorlike.driver import loader
from motorlike.driver.growth import EAGER_CONNECTIONS, TICK_SECONDS
from motorlike.driver.only_server import OnlyServer
from motorlike.driver.turns import Turns
from motorlike.green.hub import GreenFuture, Hub, current_hub
from tests.unit.driver.scripted_pool import Pool, run

Session: Any = loader.load("pymongo.synchronous.client_session").ClientSession

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Client:
    """A client as its `Turns` see it: one server, and operations on its scripted pool.

    Attributes:
        collection: Where its operations read.
        checked_out: The numbers of its operations, in the order of their check-outs.
        gates: Opening one lets the operation of that number give its connection back.
    """

    def __init__(
        self,
        *,
        topology_type: int = TOPOLOGY_TYPE.Single,
        timeout: float | None = None,
        **pool: Any,
    ) -> None:
        self.pool = Pool(**pool)
        self.requests = self.pool.map
        self.options = SimpleNamespace(timeout=timeout)
        self.only_server = OnlyServer()
        self._topology: Any = SimpleNamespace(
            _settings=SimpleNamespace(server_selector=None),
            _servers={"server": SimpleNamespace(pool=self.pool)},
            _description=SimpleNamespace(
                topology_type=topology_type,
                check_compatible=lambda: None,
                apply_selector=lambda _: [SimpleNamespace(address="server")],
            ),
        )
        this: Any = self  # as a MongoClient
        self.turns = Turns(this)
        self.collection: Any = SimpleNamespace(read_preference=Primary())
        self.checked_out: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}

    def enlist(self, job: Callable[..., Any], *args: Any) -> GreenFuture[Any] | None:
        if not self.turns.has_line():
            return None
        return self.turns.enlist(current_hub(), (job, args, {}), self.collection)

    def call(self, job: Callable[..., Any], *args: Any) -> GreenFuture[Any]:
        """Call an operation, as a collection's wrapper does."""
        future = self.enlist(job, *args)
        return current_hub().spawn(job, args, {}) if future is None else future

    def use(self, number: int) -> int:
        """Keep a connection until the number's gate is open, or for a turn of the loop."""
        with self.pool.checkout():
            self.checked_out.append(number)
            if number in self.gates:
                green.wait(self.gates[number].wait())
            else:
                green.sleep(0)
        return number

    def occupy(self, count: int = 1) -> tuple[asyncio.Event, list[GreenFuture[int]]]:
        """Fill the pool with operations -1, -2, … until the event is set."""
        gate = asyncio.Event()
        numbers = [-each - 1 for each in range(count)]
        self.gates.update(dict.fromkeys(numbers, gate))
        return gate, [current_hub().spawn(self.use, (each,), {}) for each in numbers]

    def assert_at_rest(self) -> None:
        self.pool.assert_at_rest()
        assert self.pool.size_cond.line_length == 0
        assert not self.pool.is_admitting
        assert current_hub().suspended == 0


async def turn_of_the_loop() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_an_operation_that_queues_has_no_greenlet_before_its_turn() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()
        queued = [client.call(client.use, number) for number in range(500)]
        assert current_hub().suspended == 1
        assert client.pool.operation_count == 501
        gate.set()
        assert await asyncio.gather(*queued) == list(range(500))
        assert len(current_hub().workers) <= 2
        await asyncio.gather(*busy)
        client.assert_at_rest()

    run(main)


@pytest.mark.parametrize("is_queued", [(True, False), (False, True)])
def test_those_that_queue_and_those_that_wait_on_a_stack_are_served_as_they_came(
    is_queued: tuple[bool, bool],
) -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()
        others = []
        for number in range(40):
            if is_queued[number % 2]:
                future = client.enlist(client.use, number)
                assert future is not None
            else:
                future = green.spawn(client.use, number)
            others.append(future)
        gate.set()
        await asyncio.gather(*busy, *others)
        assert client.checked_out == [-1, *range(40)]
        client.assert_at_rest()

    run(main)


def test_newcomers_do_not_overtake_one_that_was_woken_and_has_not_begun() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        client.gates[-1] = asyncio.Event()
        later: list[asyncio.Future[int]] = []

        def give_back_and_barge() -> None:
            client.use(-1)
            # The first in line is woken; its turn to begin is the hub's next.
            later.append(client.call(client.use, 2))
            later.append(green.spawn(client.use, 3))
            client.use(1)

        busy = green.spawn(give_back_and_barge)
        first = client.call(client.use, 0)
        client.gates[-1].set()
        await busy
        await asyncio.gather(first, *later)
        # Number 2 took its place in line before number 1 did.
        assert client.checked_out == [-1, 0, 2, 1, 3]
        client.assert_at_rest()

    run(main)


# -- endings ----------------------------------------------------------------


def test_an_operation_cancelled_in_line_never_runs_and_the_next_gets_its_turn() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()
        queued = [client.call(client.use, number) for number in range(5)]
        assert queued[0].cancel()
        assert queued[3].cancel()
        gate.set()
        await asyncio.gather(*busy, queued[1], queued[2], queued[4])
        assert client.checked_out == [-1, 1, 2, 4]
        client.assert_at_rest()

    run(main)


@pytest.mark.parametrize("next_queues", [True, False])
def test_one_cancelled_between_its_wake_up_and_its_beginning_passes_the_turn_on(
    next_queues: bool,
) -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        client.gates[-1] = asyncio.Event()

        def give_back_and_cancel() -> None:
            client.use(-1)
            assert client.pool.size_cond._woken == 1
            assert first.cancel()

        busy = green.spawn(give_back_and_cancel)
        first = client.call(client.use, 0)
        second = client.call(client.use, 1) if next_queues else green.spawn(client.use, 1)
        client.gates[-1].set()
        await asyncio.gather(busy, second)
        assert first.cancelled()
        assert client.checked_out == [-1, 1]
        client.assert_at_rest()

    run(main)


def test_a_line_that_is_cancelled_as_a_whole_leaves_the_pool_at_rest() -> None:
    async def main() -> None:
        client = Client(max_pool_size=2)
        gate, busy = client.occupy(2)
        for future in [client.call(client.use, number) for number in range(100)]:
            future.cancel()
        gate.set()
        await asyncio.gather(*busy)
        await turn_of_the_loop()
        client.assert_at_rest()
        assert client.enlist(client.use, 0) is None, "there is no line any more"
        assert await client.call(client.use, 0) == 0

    run(main)


def test_a_cancelled_operation_leaves_the_line_and_its_arguments_at_once() -> None:
    """While no connection comes back: a line of operations given up must not grow for ever."""

    class Document:
        pass

    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()
        queued = [client.call(client.use, number) for number in range(4)]
        counted = client.pool.operation_count
        document = Document()
        doomed = client.call(lambda document: None, document)
        gone = weakref.ref(document)
        del document
        assert doomed.cancel()
        assert queued[1].cancel()
        assert client.pool.size_cond.line_length == 3
        assert client.pool.operation_count == counted - 1
        del doomed
        assert gone() is None
        gate.set()
        await asyncio.gather(*busy, queued[0], queued[2], queued[3])
        assert client.checked_out == [-1, 0, 2, 3]
        client.assert_at_rest()

    run(main)


def test_one_that_first_waits_for_something_else_hands_its_turn_on() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        selected = asyncio.Event()

        def select_and_use(number: int) -> int:
            green.wait(selected.wait())
            return client.use(number)

        gate, busy = client.occupy()
        slow = client.call(select_and_use, 0)
        others = [client.call(client.use, number) for number in (1, 2)]
        gate.set()
        await asyncio.gather(*busy, *others)
        assert not slow.done()
        selected.set()
        assert await slow == 0
        client.assert_at_rest()

    run(main)


@pytest.mark.parametrize("kind", ["queued", "begun"])
def test_one_that_waits_for_something_else_jumps_no_line_when_it_comes_back(kind: str) -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        selected = asyncio.Event()
        client.gates[1] = asyncio.Event()

        def select_and_use(number: int) -> int:
            green.wait(selected.wait())
            return client.use(number)

        gate, busy = client.occupy()
        slow = client.call(select_and_use, 0)
        start = client.call if kind == "queued" else green.spawn
        others = [start(client.use, number) for number in (1, 2)]
        gate.set()
        await asyncio.gather(*busy)
        selected.set()
        await turn_of_the_loop()
        client.gates[1].set()
        await asyncio.gather(slow, *others)
        assert client.checked_out == [-1, 1, 2, 0]
        client.assert_at_rest()

    run(main)


def test_those_that_fail_before_they_ask_for_a_connection_hand_their_turns_on() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)

        def fail() -> None:
            raise ValueError("not a document")

        gate, busy = client.occupy()
        failing = [client.call(fail) for _ in range(20)]
        last = client.call(client.use, 20)
        gate.set()
        await asyncio.gather(*busy, last)
        assert all(isinstance(each.exception(), ValueError) for each in failing)
        client.assert_at_rest()

    run(main)


def test_one_that_checks_out_twice_stands_in_line_for_the_second_time() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)

        def use_twice(number: int) -> None:
            client.pool.use(lambda: None)
            client.use(number)

        gate, busy = client.occupy()
        twice = client.call(use_twice, 0)
        others = [client.call(client.use, number) for number in (1, 2)]
        gate.set()
        await asyncio.gather(*busy, twice, *others)
        assert client.checked_out == [-1, 1, 2, 0]
        client.assert_at_rest()

    run(main)


def test_one_whose_connect_fails_gives_its_place_to_the_next() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()
        queued = [client.call(client.use, number) for number in range(3)]

        def fail_once() -> None:
            client.pool.error = None if client.pool.error else AutoReconnect("refused")

        client.pool.made[0].closed = True
        client.pool.connecting = fail_once
        gate.set()
        results = await asyncio.gather(*busy, *queued, return_exceptions=True)
        assert [type(each) for each in results] == [int, AutoReconnect, int, int]
        client.assert_at_rest()

    run(main)


@pytest.mark.parametrize("how", ["reset", "reset_without_pause", "close"])
def test_a_pool_that_is_cleared_or_closed_keeps_nobody_in_its_line(how: str) -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()
        queued = [client.call(client.use, number) for number in range(20)]
        await green.spawn(getattr(client.pool, how))
        gate.set()
        results = await asyncio.gather(*queued, return_exceptions=True)
        if how == "reset_without_pause":
            assert results == list(range(20))
            assert client.checked_out == [-1, *range(20)]
        else:
            assert all(isinstance(each, PyMongoError) for each in results)
        await asyncio.gather(*busy)
        client.assert_at_rest()

    run(main)


@pytest.mark.parametrize("woken", [0, 1])
def test_those_whose_loop_ends_are_cancelled_and_do_not_begin(woken: int) -> None:
    client = Client(max_pool_size=1)

    async def start() -> None:
        green.spawn(client.pool.use, lambda: green.sleep(60))
        queued = [client.call(client.use, number) for number in range(5)]
        client.pool.size_cond._wake(woken)
        current_hub().close()
        assert [each.cancelled() for each in queued] == [True] * 5

    asyncio.run(start())
    assert client.checked_out == []
    assert client.pool.requests == client.pool.operation_count == 0
    assert client.pool.size_cond.line_length == 0


def test_an_interrupt_in_one_that_begins_goes_to_the_loop_and_the_turn_to_the_next() -> None:
    loop = asyncio.new_event_loop()
    client = Client(max_pool_size=1)

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def start() -> list[Any]:
        gate, busy = client.occupy()
        futures: list[Any] = [*busy, client.call(interrupt), client.call(client.use, 1)]
        gate.set()
        return futures

    async def end(busy: Any, interrupted: Any, later: Any) -> None:
        assert await busy == -1
        assert isinstance(interrupted.exception(), KeyboardInterrupt)
        assert await later == 1
        client.assert_at_rest()

    try:
        futures = loop.run_until_complete(start())
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_until_complete(end(*futures))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_those_left_behind_on_another_loop_do_not_begin_there() -> None:
    """They would use the connections that the client has opened on its new loop."""

    async def main() -> None:
        client = Client(max_pool_size=1)
        ran: list[int] = []
        gate, busy = client.occupy()
        queued = client.call(ran.append, 0)
        client.pool.is_left = True
        await green.spawn(client.pool.close)
        with pytest.raises(PyMongoError, match="closed connection pool"):
            await queued
        assert not ran
        gate.set()
        await asyncio.gather(*busy)
        client.assert_at_rest()

    run(main)


@pytest.mark.parametrize("has_begun", [False, True])
def test_those_in_line_for_a_server_that_has_gone_may_find_another(has_begun: bool) -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()

        def operation() -> str:
            if client.pool.closed:
                return "another server"
            try:
                with client.pool.checkout():
                    return "this one"
            except AutoReconnect:
                # As PyMongo does.
                return operation()

        if has_begun:
            operations = [current_hub().spawn(operation, (), {}) for _ in range(5)]
        else:
            operations = [client.call(operation) for _ in range(5)]
        await green.spawn(client.pool.close)
        assert await asyncio.gather(*operations) == ["another server"] * 5
        gate.set()
        await asyncio.gather(*busy)
        client.assert_at_rest()

    run(main)


# -- the limit --------------------------------------------------------------


def test_no_more_begin_than_the_limit_rose_by() -> None:
    async def main() -> None:
        client = Client(max_pool_size=12)
        gate, busy = client.occupy(EAGER_CONNECTIONS)
        held = asyncio.Event()
        client.gates.update(dict.fromkeys(range(200), held))
        queued = [client.call(client.use, number) for number in range(100)]
        while len(client.checked_out) < 12:
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.sleep(3 * TICK_SECONDS)
        assert current_hub().suspended == 12
        queued += [client.call(client.use, number) for number in range(100, 200)]
        held.set()
        gate.set()
        await asyncio.gather(*busy, *queued)
        assert client.checked_out[EAGER_CONNECTIONS:] == list(range(200))
        client.assert_at_rest()

    run(main)


def test_a_limit_that_sank_counts_for_those_that_queue_and_they_keep_their_places() -> None:
    async def main() -> None:
        client = Client(max_pool_size=20)
        client.pool.growth.limit = 20
        gate, busy = client.occupy(20)
        client.gates.update({number: asyncio.Event() for number in range(20)})
        client.pool.growth.limit = 15
        queued = [client.call(client.use, number) for number in range(20)]
        gate.set()
        await asyncio.gather(*busy)
        await turn_of_the_loop()
        client.pool.growth.limit = 15
        assert client.checked_out[20:] == list(range(15))
        assert client.pool.requests == 15
        for gate in client.gates.values():
            gate.set()
        await asyncio.gather(*queued)
        assert client.checked_out[20:] == list(range(20))
        client.assert_at_rest()

    run(main)


def test_all_who_are_woken_for_nothing_come_back_in_order_before_newcomers() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()
        others: list[asyncio.Future[int]] = []

        def start(number: int) -> None:
            queues = number % 3
            others.append((client.call if queues else green.spawn)(client.use, number))

        for number in range(30):
            start(number)
        # A reset wakes them all, before the hub lets any of them go on.
        current_hub().spawn(client.pool._wake_line, (30,), {})
        for number in range(30, 60):
            start(number)
        await turn_of_the_loop()
        assert client.pool.size_cond.line_length == 60
        assert client.pool.operation_count == 61
        gate.set()
        await asyncio.gather(*busy, *others)
        assert client.checked_out == [-1, *range(60)]
        client.assert_at_rest()

    run(main)


# -- who does not queue -----------------------------------------------------


def enlists(client: Client) -> bool:
    """Tell whether an operation of *client* queues while its pool is full."""
    client.occupy()
    future = client.enlist(client.use, 0)
    return future is not None


@pytest.mark.parametrize(
    ("is_queued", "options"),
    [
        (True, {}),
        (False, {"timeout": 5.0}),
        (False, {"timeout": 0.0}),
        (False, {"wait_queue_timeout": 5.0}),
    ],
)
def test_who_may_wait_for_a_limited_time_begins_at_once(
    is_queued: bool, options: dict[str, Any]
) -> None:
    async def main() -> None:
        assert enlists(Client(max_pool_size=1, **options)) == is_queued

    run(main)


def test_who_has_a_deadline_of_the_callers_begins_at_once() -> None:
    async def main() -> None:
        with pymongo.timeout(5):
            assert not enlists(Client(max_pool_size=1))
        with pymongo.timeout(None):
            assert enlists(Client(max_pool_size=1))

    run(main)


@pytest.mark.parametrize(
    ("is_queued", "topology_type"),
    [
        (True, TOPOLOGY_TYPE.Single),
        (True, TOPOLOGY_TYPE.Sharded),
        (False, TOPOLOGY_TYPE.ReplicaSetWithPrimary),
    ],
)
def test_who_prefers_other_members_queues_where_there_is_one_server(
    is_queued: bool, topology_type: int
) -> None:
    async def main() -> None:
        client = Client(max_pool_size=1, topology_type=topology_type)
        client.collection.read_preference = Nearest()
        assert enlists(client) == is_queued

    run(main)


@pytest.mark.skipif(not hasattr(Session, "bind"), reason="sessions cannot be bound")
def test_who_has_a_bound_session_begins_at_once() -> None:
    async def main() -> None:
        session = Session.__new__(Session)
        with session.bind(end_session=False):
            assert not enlists(Client(max_pool_size=1))
        assert enlists(Client(max_pool_size=1))

    run(main)


def test_nobody_queues_once_socket_requests_are_used() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        request = client.requests.start()
        assert not enlists(client)
        request.end()

    run(main)


@pytest.mark.parametrize("servers", [[], ["server", "server"], ["another"]])
def test_nobody_queues_where_it_is_not_certain_which_server_it_will_be(servers: list[str]) -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        client._topology._description.apply_selector = lambda _: [
            SimpleNamespace(address=each) for each in servers
        ]
        assert not enlists(client)

    run(main)


def test_a_new_description_of_the_topology_may_lead_to_another_line() -> None:
    async def main() -> None:
        client, other = Client(max_pool_size=1), Client(max_pool_size=1)
        assert enlists(client)
        client._topology = other._topology
        assert not client.turns.has_line()
        client._topology = None  # a name that is still to be looked up
        assert not client.turns.has_line()

    run(main)


def test_an_operation_begins_in_the_context_of_its_call() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        gate, busy = client.occupy()
        queued = []
        for name in "abc":
            user.set(name)
            queued.append(client.call(user.get))
        user.set("nobody")
        gate.set()
        assert await asyncio.gather(*queued) == ["a", "b", "c"]
        await asyncio.gather(*busy)

    run(main)


# -- all at once ------------------------------------------------------------


class Storm:
    """Random kinds of operations on one pool, some of them cancelled at random moments."""

    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.random = random.Random(seed)

    def operate(self, number: int) -> int:
        kind = number % 5
        if kind == 0:
            green.sleep(0)
        elif kind == 1:
            raise ValueError(number)
        elif kind == 2:
            self.client.use(number)
        return self.client.use(number)

    def start(self, number: int) -> asyncio.Future[int]:
        start = self.client.call if self.random.random() < 0.7 else green.spawn
        return start(self.operate, number)

    async def round(self, base: int) -> None:
        futures = []
        for number in range(base, base + 60):
            futures.append(self.start(number))
            if self.random.random() < 0.3:
                await asyncio.sleep(0)
            if self.random.random() < 0.3:
                self.random.choice(futures).cancel()
        _, pending = await asyncio.wait(futures, timeout=5)
        assert not pending
        for number, future in enumerate(futures, base):
            if not future.cancelled() and future.exception() is None:
                assert future.result() == number
        await turn_of_the_loop()


@pytest.mark.parametrize("size", [1, 3, 30])
def test_a_storm_of_all_kinds_leaves_the_pool_at_rest(size: int) -> None:
    async def main() -> None:
        client = Client(max_pool_size=size)
        storm = Storm(client, seed=size)
        for each in range(40):
            await storm.round(1000 * each)
            client.assert_at_rest()

    run(main)


def test_the_hub_begins_operations_after_the_greenlet_that_woke_them_let_go() -> None:
    async def main() -> None:
        client = Client(max_pool_size=1)
        hub: Hub = current_hub()
        began_in: list[object] = []
        gate, busy = client.occupy()
        queued = client.call(lambda: began_in.append(hub.greenlet))
        gate.set()
        await asyncio.gather(*busy, queued)
        assert began_in == [hub.greenlet]
        client.assert_at_rest()

    run(main)
