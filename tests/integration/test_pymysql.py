"""PyMySQL, unchanged, run green against MariaDB through a `ConnectionPool`."""

from __future__ import annotations

import asyncio
import importlib
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import tornado.web
import trustme

from motorlike import NotInGreenlet, green
from motorlike.green import ssl
from motorlike.pool import ConnectionPool
from tests.integration.servers import MariaDB
from tests.integration.support import eventually, run
from tests.integration.tornado_site import visiting

QUERIES = 200
POOL = 50
SLEEP_SECONDS = 0.05

LOST_CONNECTION = 2013
DEADLOCK = 1213

Connection = Any  # of a module that is loaded at run time


@pytest.fixture(scope="module")
def pymysql() -> Any:
    return green.load("pymysql", shared=["pymysql.err"])


@pytest.fixture
def table(mariadb: MariaDB) -> Iterator[str]:
    """The name of an empty table with the columns `id` and `amount`."""
    mariadb.query("CREATE TABLE accounts (id INT PRIMARY KEY, amount INT NOT NULL) ENGINE=InnoDB")
    yield "accounts"
    mariadb.query("DROP TABLE accounts")


@pytest.fixture
def pool_of(pymysql: Any, mariadb: MariaDB) -> Callable[..., Any]:
    """Make a pool as the guide does; options of the driver go by `options`."""

    @asynccontextmanager
    async def make(max_size: int, options: Any = None, **settings: Any) -> AsyncIterator[Any]:
        # TLS costs a handshake each, and has its own tests.
        chosen = {"ssl_disabled": True, **(options or {})}
        settings = {"reset": lambda connection: connection.rollback(), **settings}
        settings.setdefault("discard_on", (OSError, pymysql.err.InterfaceError))

        def connect() -> Connection:
            return pymysql.connect(**{**mariadb.options, **chosen})

        async with ConnectionPool(connect, max_size, **settings) as pool:
            yield pool

    return make


def query(connection: Connection, sql: str, *arguments: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments or None)
        return cursor.fetchall()


def identity(connection: Connection) -> int:
    return int(query(connection, "SELECT CONNECTION_ID()")[0][0])


def run_all(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(body(), timeout=60)


# -- in Tornado handlers ------------------------------------------------------


# When it began and ended, by the server's clock.
SLEEP = "SELECT CONNECTION_ID(), NOW(6), SLEEP(%s), SYSDATE(6)"


class SleepHandler(tornado.web.RequestHandler):
    def initialize(self, pool: Any, all_are_here: asyncio.Barrier, slept: list[Any]) -> None:
        self.pool = pool
        self.all_are_here = all_are_here
        self.slept = slept

    async def get(self) -> None:
        # What serving 200 pages takes is not the question.
        await self.all_are_here.wait()
        rows = await self.pool.run(query, SLEEP, SLEEP_SECONDS)
        self.slept += rows
        self.write("slept")


def most_at_once(slept: list[Any]) -> int:
    """Return how many of the server's sleeps overlapped."""
    begins = [(begin, 1) for _, begin, _, _ in slept]
    ends = [(end, -1) for _, _, _, end in slept]
    changes = (change for _, change in sorted(begins + ends))
    return max(accumulate(changes))


def test_200_handlers_that_query_take_turns_of_50(
    mariadb: MariaDB, pool_of: Callable[..., Any]
) -> None:
    slept: list[Any] = []

    async def body() -> None:
        async with pool_of(POOL) as pool:
            await pool.fill(POOL)
            given = {"pool": pool, "all_are_here": asyncio.Barrier(QUERIES), "slept": slept}
            application = tornado.web.Application([("/sleep", SleepHandler, given)])
            async with visiting(application, QUERIES) as visit:
                mariadb.query("FLUSH STATUS")
                pages = await asyncio.gather(*(visit("/sleep") for _ in range(QUERIES)))
            # One more asks for the status.
            assert mariadb.status("Max_used_connections") <= POOL + 1
            assert pool.stats().opened == POOL
        assert [page.body for page in pages] == [b"slept"] * QUERIES

    run_all(body)
    assert len(slept) == QUERIES
    assert POOL / 2 < most_at_once(slept) <= POOL


def test_200_queries_on_a_pool_of_50_take_about_four_rounds(pool_of: Callable[..., Any]) -> None:
    slept: list[Any] = []

    async def body() -> None:
        async with pool_of(POOL) as pool:
            await pool.fill(POOL)
            started = time.monotonic()
            calls = [pool.run(query, SLEEP, SLEEP_SECONDS) for _ in range(QUERIES)]
            for rows in await asyncio.gather(*calls):
                slept.extend(rows)
            seconds = time.monotonic() - started
        # One after another they would take 200 rounds. A busy machine may need some more than 4.
        assert seconds < SLEEP_SECONDS * 20

    run_all(body)
    rounds = Counter(row[0] for row in slept)
    assert len(rounds) == POOL
    assert max(rounds.values()) <= 12
    assert POOL / 2 < most_at_once(slept) <= POOL


class TransferHandler(tornado.web.RequestHandler):
    """Moves an amount, in a transaction; says 409 where the money does not suffice."""

    def initialize(self, pool: Any) -> None:
        self.pool = pool

    async def post(self, source: str, target: str, amount: str) -> None:
        await self.pool.run(self.transfer, int(source), int(target), int(amount))

    @staticmethod
    def transfer(connection: Connection, source: int, target: int, amount: int) -> None:
        # In the order of their numbers, so that no two handlers deadlock.
        sql = "SELECT id, amount FROM accounts WHERE id IN (%s, %s) ORDER BY id FOR UPDATE"
        amounts = dict(query(connection, sql, source, target))
        query(connection, "UPDATE accounts SET amount = amount + %s WHERE id = %s", amount, target)
        query(connection, "UPDATE accounts SET amount = amount - %s WHERE id = %s", amount, source)
        if amounts[source] < amount:
            raise tornado.web.HTTPError(409)
        connection.commit()


def test_transactions_of_concurrent_handlers_are_isolated_and_rolled_back_on_errors(
    mariadb: MariaDB, pool_of: Callable[..., Any], table: str
) -> None:
    mariadb.query(f"INSERT INTO {table} VALUES (0, 100), (1, 100), (2, 100)")

    async def body() -> None:
        async with pool_of(10) as pool:
            route = (r"/(\d)/(\d)/(\d+)", TransferHandler, {"pool": pool})
            async with visiting(tornado.web.Application([route])) as visit:
                paths = [
                    f"/{n % 3}/{(n + 1 + n % 2) % 3}/{7 + n % 60 if n % 4 else 301}"
                    for n in range(120)
                ]
                options = {"method": "POST", "body": "", "raise_error": False}
                answers = await asyncio.gather(*(visit(path, **options) for path in paths))
            stats = pool.stats()
        assert (stats.in_use, stats.broken) == (0, 0)
        assert {answer.code for answer in answers} == {200, 409}
        left = dict.fromkeys(range(3), 100)
        for path, answer in zip(paths, answers, strict=True):
            source, target, amount = map(int, path.strip("/").split("/"))
            if answer.code == 200:
                left[source] -= amount
                left[target] += amount
        assert dict(mariadb.query(f"SELECT id, amount FROM {table}")) == left

    run_all(body)


# -- connections, given back and replaced -------------------------------------


def test_what_was_not_committed_is_rolled_back_on_return(
    mariadb: MariaDB, pool_of: Callable[..., Any], table: str
) -> None:
    def insert(connection: Connection, number: int, then: str) -> None:
        query(connection, f"INSERT INTO {table} VALUES (%s, 0)", number)
        if then == "commit":
            connection.commit()
        elif then == "fail":
            raise LookupError(then)

    async def body() -> None:
        async with pool_of(1) as pool:
            first = await pool.run(identity)
            await pool.run(insert, 1, "forget")
            with pytest.raises(LookupError):
                await pool.run(insert, 2, "fail")
            await pool.run(insert, 3, "commit")
            async with pool.reserve() as connection:
                await green.spawn(insert, connection, 4, "forget")
            assert await pool.run(query, f"SELECT id FROM {table}") == ((3,),)
            assert await pool.run(identity) == first

    run_all(body)
    assert mariadb.query(f"SELECT id FROM {table}") == ((3,),)


def test_keepalive_keeps_an_idle_connection_from_the_server_s_timeout(
    pool_of: Callable[..., Any],
) -> None:
    async def body() -> None:
        options = {"init_command": "SET SESSION wait_timeout = 1"}
        ping = {"ping": lambda connection: connection.ping(reconnect=False)}
        async with (
            pool_of(1, options, keepalive_seconds=0.2, **ping) as kept,
            pool_of(1, options) as forgotten,
        ):
            before = await kept.run(identity), await forgotten.run(identity)
            await asyncio.sleep(2.5)
            assert await kept.run(identity) == before[0]
            with pytest.raises(Exception, match=r"Lost|gone away|timeout"):
                await forgotten.run(identity)
            assert await forgotten.run(identity) != before[1]

    run_all(body)


def test_a_connection_killed_while_idle_is_replaced_before_it_is_lent(
    mariadb: MariaDB, pool_of: Callable[..., Any]
) -> None:
    async def body() -> None:
        ping = {"ping": lambda connection: connection.ping(reconnect=False)}
        async with pool_of(1, **ping) as pool:
            first = await pool.run(identity)
            mariadb.query(f"KILL {first}")
            assert await pool.run(identity) != first
            assert pool.stats().size == 1

    run_all(body)


def test_a_connection_killed_in_a_query_fails_that_query_and_is_replaced(
    mariadb: MariaDB, pool_of: Callable[..., Any], pymysql: Any
) -> None:
    async def body() -> None:
        async with pool_of(2) as pool:
            await pool.fill(2)
            before = await asyncio.gather(
                *(pool.run(query, "SELECT CONNECTION_ID(), SLEEP(0.1)") for _ in range(2))
            )
            victim = pool.run(query, "SELECT SLEEP(20)")
            other = pool.run(query, "SELECT 'mine', SLEEP(0.3)")
            (killed,) = await sleeping(mariadb, "SELECT SLEEP(20)")
            mariadb.query(f"KILL {killed}")
            with pytest.raises(pymysql.err.OperationalError) as caught:
                await victim
            assert caught.value.args[0] == LOST_CONNECTION
            assert await other == (("mine", 0),)
            after = await asyncio.gather(
                *(pool.run(query, "SELECT CONNECTION_ID(), SLEEP(0.1)") for _ in range(2))
            )
            survivors = {row[0] for (row,) in before} - {killed}
            assert survivors < {row[0] for (row,) in after}
            assert pool.stats().size == 2

    run_all(body)


async def sleeping(mariadb: MariaDB, sql: str, count: int = 1) -> list[int]:
    """Return which connections run *sql*, as soon as they are *count*."""
    found: list[int] = []

    def ask() -> bool:
        rows = mariadb.query("SELECT id FROM information_schema.processlist WHERE info = %s", sql)
        found[:] = [row[0] for row in rows]
        return len(found) == count

    await eventually(ask)
    return found


def test_cancelling_a_query_discards_its_connection_and_nobody_reads_its_answer(
    mariadb: MariaDB, pool_of: Callable[..., Any]
) -> None:
    async def body() -> None:
        async with pool_of(1) as pool:
            first = await pool.run(identity)
            slow = pool.run(query, "SELECT 'late', SLEEP(1)")
            await sleeping(mariadb, "SELECT 'late', SLEEP(1)")
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert await pool.run(query, "SELECT 'own'") == (("own",),)
            assert await pool.run(identity) != first
            assert pool.stats().broken == 1

    run_all(body)


def test_a_storm_of_cancels_loses_no_connection_and_mixes_no_answers(
    pool_of: Callable[..., Any],
) -> None:
    chance = random.Random(2042)

    async def ask(pool: Any, number: int) -> None:
        answer = pool.run(query, "SELECT %s, SLEEP(%s)", number, chance.random() / 50)
        if chance.random() < 0.3:
            asyncio.get_running_loop().call_later(chance.random() / 50, answer.cancel)
        try:
            assert await answer == ((number, 0),)
        except asyncio.CancelledError:
            assert answer.cancelled()

    async def ask_on(pool: Any, first: int) -> None:
        for number in range(first, first + 25):
            await ask(pool, number)

    async def body() -> None:
        async with pool_of(8) as pool:
            await asyncio.gather(*(ask_on(pool, first) for first in range(0, 300, 25)))
            assert pool.stats().in_use == 0
            assert pool.stats().broken > 0
            rows = await asyncio.gather(*(pool.run(query, "SELECT %s", n) for n in range(50)))
            assert rows == [((n,),) for n in range(50)]
            assert pool.stats().size <= 8

    run_all(body)


def test_a_deadlock_fails_one_transaction_and_costs_no_connection(
    mariadb: MariaDB, pool_of: Callable[..., Any], pymysql: Any, table: str
) -> None:
    mariadb.query(f"INSERT INTO {table} VALUES (1, 0), (2, 0)")

    async def body() -> None:
        both_hold_one = asyncio.Barrier(2)

        def change(connection: Connection, first: int, second: int) -> None:
            sql = f"UPDATE {table} SET amount = amount + 1 WHERE id = %s"
            query(connection, sql, first)
            green.wait(both_hold_one.wait())
            query(connection, sql, second)
            connection.commit()

        async with pool_of(2) as pool:
            calls = pool.run(change, 1, 2), pool.run(change, 2, 1)
            ends = await asyncio.gather(*calls, return_exceptions=True)
            (error,) = [end for end in ends if end is not None]
            assert isinstance(error, pymysql.err.OperationalError)
            assert error.args[0] == DEADLOCK
            assert pool.stats().opened == 2
            assert pool.stats().closed == 0
        amounts = mariadb.query(f"SELECT amount FROM {table}")
        assert amounts == ((1,), (1,))

    run_all(body)


# -- the driver itself --------------------------------------------------------


def test_tls_connections_are_verified_and_encrypted(
    mariadb: MariaDB, pool_of: Callable[..., Any]
) -> None:
    async def body() -> None:
        options = {"ssl_ca": mariadb.ca_file, "ssl_disabled": False}
        options |= {"ssl_verify_cert": True, "ssl_verify_identity": True}
        options["user"] = mariadb.tls_only_user
        async with pool_of(10, options) as pool:
            sql = "SELECT variable_value, SLEEP(0.05) FROM information_schema.session_status "
            sql += "WHERE variable_name = 'Ssl_cipher'"
            calls = [pool.run(query, sql) for _ in range(40)]
            ciphers = {rows[0][0] for rows in await asyncio.gather(*calls)}
            assert all(cipher.startswith("TLS_") for cipher in ciphers)
            assert ciphers
            large = await pool.run(query, "SELECT REPEAT('x', 3000000)")
            assert large[0][0] == "x" * 3_000_000

    run_all(body)


def test_a_context_of_the_green_ssl_is_used(mariadb: MariaDB, pool_of: Callable[..., Any]) -> None:
    context = ssl.create_default_context(cafile=mariadb.ca_file)

    async def body() -> None:
        async with pool_of(1, {"ssl": context, "ssl_disabled": False}) as pool:
            ((_, cipher),) = await pool.run(query, "SHOW STATUS LIKE 'Ssl_cipher'")
            assert cipher.startswith("TLS_")

    run_all(body)


def test_a_server_that_another_authority_vouches_for_is_refused(
    mariadb: MariaDB, pool_of: Callable[..., Any], pymysql: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))

    async def body() -> None:
        options = {"ssl_ca": str(other), "ssl_verify_cert": True, "ssl_disabled": False}
        async with pool_of(1, options) as pool:
            with pytest.raises(pymysql.err.OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
                await pool.run(identity)
            assert pool.stats().size == 0

    run_all(body)


def test_a_user_who_needs_tls_is_refused_without(
    mariadb: MariaDB, pool_of: Callable[..., Any], pymysql: Any
) -> None:
    async def body() -> None:
        async with pool_of(1, {"user": mariadb.tls_only_user}) as pool:
            with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
                await pool.run(identity)

    run_all(body)


def test_a_unix_socket(mariadb: MariaDB, pool_of: Callable[..., Any]) -> None:
    async def body() -> None:
        async with pool_of(5, {"unix_socket": mariadb.unix_socket}) as pool:
            calls = [pool.run(query, "SELECT %s, SLEEP(0.02)", n) for n in range(20)]
            assert await asyncio.gather(*calls) == [((n, 0),) for n in range(20)]

    run_all(body)


def test_a_read_timeout_ends_the_query_while_others_go_on(
    pool_of: Callable[..., Any], pymysql: Any
) -> None:
    async def body() -> None:
        async with pool_of(1, {"read_timeout": 0.2}) as impatient, pool_of(1) as pool:
            slow = impatient.run(query, "SELECT SLEEP(1)")
            rows = 0
            while not slow.done():
                assert await pool.run(query, "SELECT 1") == ((1,),)
                rows += 1
            assert rows > 3
            with pytest.raises(pymysql.err.OperationalError, match="timed out"):
                await slow
            assert await impatient.run(query, "SELECT 2") == ((2,),)

    run_all(body)


def test_large_and_unbuffered_results_and_prepared_data(
    pool_of: Callable[..., Any], pymysql: Any, mariadb: MariaDB
) -> None:
    data = bytes(range(256)) * 8192

    def work(connection: Connection) -> None:
        query(connection, "CREATE TEMPORARY TABLE files (id INT, content LONGBLOB)")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO files VALUES (%s, %s)", [(1, data), (2, b"")])
        assert query(connection, "SELECT content FROM files ORDER BY id") == ((data,), (b"",))
        with connection.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute("SELECT seq FROM seq_1_to_50000")
            assert sum(row[0] for row in cursor.fetchall_unbuffered()) == 50_000 * 50_001 // 2
        with connection.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute("SELECT 1 AS one")
            assert cursor.fetchone() == {"one": 1}

    async def body() -> None:
        async with pool_of(1) as pool:
            await pool.run(work)

    run_all(body)


def test_errors_are_the_application_s_own_where_they_are_shared(
    pool_of: Callable[..., Any], pymysql: Any, table: str
) -> None:
    own = importlib.import_module("pymysql")

    async def body() -> None:
        async with pool_of(1) as pool:
            first = await pool.run(identity)
            with pytest.raises(own.err.ProgrammingError):
                await pool.run(query, "SELECT nothing FROM nowhere")
            await pool.run(query, f"INSERT INTO {table} VALUES (1, 1)")
            with pytest.raises(own.IntegrityError):
                await pool.run(query, f"INSERT INTO {table} VALUES (1, 1), (1, 1)")
            assert await pool.run(identity) == first

    run_all(body)


def test_the_application_s_own_pymysql_is_untouched(
    pymysql: Any, mariadb: MariaDB, pool_of: Callable[..., Any]
) -> None:
    own = importlib.import_module("pymysql")
    assert own is sys.modules["pymysql"]
    assert own is not pymysql
    assert own.connections.socket is socket
    assert pymysql.connections.socket is not socket

    async def body() -> None:
        async with pool_of(1) as pool:
            assert mariadb.query("SELECT 1") == ((1,),)
            assert await pool.run(query, "SELECT 2") == ((2,),)

    run_all(body)


def test_outside_green_code_a_connection_refuses_to_block(
    pool_of: Callable[..., Any], pymysql: Any, mariadb: MariaDB
) -> None:
    async def body() -> None:
        with pytest.raises(NotInGreenlet, match=r"green\.spawn"):
            pymysql.connect(**mariadb.options)
        async with pool_of(1) as pool:
            with pytest.raises(NotInGreenlet, match=r"async with pool\.reserve"), pool.reserve():
                pass

    run_all(body)
