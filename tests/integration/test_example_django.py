"""The Django example on a real MariaDB: its pool, its transactions, and its admin.

Django is set up once, for all tests of this file, with the example's settings
and a database of its own. Each test has an event loop and pools of its own.

Rule: the server is asked, not the pool, where the server can know.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from motorlike import green
from motorlike.green.threading import Event
from motorlike.testing._process import free_ports
from tests.integration.servers import MariaDB
from tests.integration.support import eventually, run

pytest.importorskip("django")
pytest.importorskip("pymysql")

T = TypeVar("T")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "django_tornado"
POOL_SIZE = 8
DATABASE = "django_example"
ADMIN = {"username": "admin", "password": "correct horse"}


@pytest.fixture(scope="module")
def environment(mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the example reads of its environment."""
    return {
        "DJANGO_SETTINGS_MODULE": "website.settings",
        "MYSQL_HOST": mariadb.host,
        "MYSQL_PORT": str(mariadb.port),
        "MYSQL_USER": mariadb.user,
        "MYSQL_PASSWORD": mariadb.password,
        "MYSQL_DATABASE": DATABASE,
        "POOL_SIZE": str(POOL_SIZE),
        "STATIC_ROOT": str(tmp_path_factory.mktemp("static")),
        "TZ": os.environ.get("TZ", ""),
    }


@pytest.fixture(scope="module", autouse=True)
def bank(mariadb: MariaDB, environment: dict[str, str]) -> Iterator[None]:
    """Django, set up with the example's settings, and its tables in a database of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.syspath_prepend(str(EXAMPLE))
        mariadb.query(f"CREATE DATABASE {DATABASE}")
        try:
            importlib.import_module("django").setup()
            on_loop(make_tables())
            yield
        finally:
            mariadb.query(f"DROP DATABASE {DATABASE}")
    # Django has set the process's time zone.
    time.tzset()


def command(*arguments: str, **options: Any) -> None:
    from django.core.management import call_command

    call_command(*arguments, verbosity=0, **options)


async def make_tables() -> None:
    await green.spawn(command, "migrate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_SUPERUSER_PASSWORD", ADMIN["password"])
        user = {"username": ADMIN["username"], "email": "admin@example.com"}
        await green.spawn(command, "createsuperuser", interactive=False, **user)


def on_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* on a loop of its own; no connection may be in use at its end."""
    from green_django.mysql import close_pools, open_pools

    async def main() -> T:
        try:
            result = await coroutine
            for pool in open_pools():
                await eventually(lambda pool=pool: pool.connections.stats().in_use == 0)
        finally:
            await close_pools()
        return result

    return run(main(), timeout=60)


@pytest.fixture
def accounts() -> list[int]:
    """The keys of six accounts of 100 each. There are no others."""
    from bank.models import Account, Transfer

    def make() -> list[int]:
        Transfer.objects.all().delete()
        Account.objects.all().delete()
        return [Account.objects.create(owner=f"owner {n}", balance=100).pk for n in range(6)]

    async def spawned() -> list[int]:
        return await green.spawn(make)

    return on_loop(spawned())


def balances() -> dict[int, int]:
    from bank.models import Account

    return dict(Account.objects.values_list("pk", "balance"))


def ask(sql: str, *arguments: Any) -> Any:
    """Return the first column of the first row, by Django's connection of the caller."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql, arguments)
        return cursor.fetchone()[0]


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """Serve the example's application; yield its URL."""
    from website.application import make_application

    server = HTTPServer(make_application())
    (listener,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


class Browser:
    """An HTTP client with cookies, as Django's pages want it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies: dict[str, str] = {}
        self._client = AsyncHTTPClient(force_instance=True, max_clients=100)

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._client.close()

    async def get(self, path: str) -> HTTPResponse:
        return await self._fetch(path)

    async def post_json(self, path: str, **document: Any) -> HTTPResponse:
        return await self._fetch(path, method="POST", body=json.dumps(document))

    async def post_form(self, path: str, **fields: str) -> HTTPResponse:
        """Fill in the form at *path*, with the token that the page has for it."""
        page = (await self.get(path)).body.decode()
        (token,) = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page))
        body = urlencode({"csrfmiddlewaretoken": token, **fields})
        return await self._fetch(path, method="POST", body=body)

    async def log_in(self, password: str = ADMIN["password"]) -> HTTPResponse:
        return await self.post_form("/admin/login/", username=ADMIN["username"], password=password)

    async def _fetch(self, path: str, **options: Any) -> HTTPResponse:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self._client.fetch(
            self.url + path,
            headers={"Cookie": cookie},
            raise_error=False,
            follow_redirects=False,
            **options,
        )
        for each in answer.headers.get_list("Set-Cookie"):
            self.cookies.update({name: morsel.value for name, morsel in SimpleCookie(each).items()})
        return answer


# -- connections ----------------------------------------------------------------


def test_the_application_keeps_its_own_django_and_gets_no_mysqldb() -> None:
    from django.db import connection
    from green_django.mysql import driver

    assert type(connection._connections["default"]).__module__ == "green_django.mysql.base"
    assert "MySQLdb" not in sys.modules
    assert "django.db.backends.mysql.base" not in sys.modules
    assert driver.pymysql is not sys.modules["pymysql"]
    assert driver.django_base.Database is driver.pymysql
    assert driver.django_base.IntegrityError is importlib.import_module("django.db").IntegrityError


def all_at_once(
    count: int, look: Callable[[], T], seconds: float = 10
) -> Coroutine[Any, Any, list[T]]:
    """Run *look* in *count* greenlets, which all wait for the last one, and look again."""
    everybody, here = Event(), []

    def view() -> T:
        first = look()
        here.append(first)
        if len(here) == count:
            everybody.set()
        assert everybody.wait(seconds)
        assert look() == first
        return first

    async def gathered() -> list[T]:
        return await asyncio.gather(*(green.spawn(view) for _ in range(count)))

    return gathered()


def connection_id() -> int:
    return ask("SELECT CONNECTION_ID()")


def test_each_greenlet_has_a_connection_of_its_own() -> None:
    async def main() -> None:
        ids = await all_at_once(POOL_SIZE, connection_id)
        assert len(set(ids)) == POOL_SIZE

    on_loop(main())


def test_greenlets_share_no_connection_that_their_starter_has_looked_at() -> None:
    from django.db import connection

    async def main() -> None:
        # Django now keeps a wrapper in this context, of which each greenlet
        # gets a copy.
        assert connection.vendor == "mysql"
        ids = await all_at_once(POOL_SIZE, connection_id)
        assert len(set(ids)) == POOL_SIZE

    on_loop(main())


def test_a_greenlet_is_not_in_the_transaction_of_the_one_that_started_it(
    accounts: list[int],
) -> None:
    from bank.models import Account
    from django.db import connection, transaction

    def inner() -> tuple[int, bool, int]:
        return connection_id(), connection.in_atomic_block, balances()[accounts[0]]

    def outer() -> None:
        with transaction.atomic():
            Account.objects.filter(pk=accounts[0]).update(balance=1)
            inner_id, inner_in_atomic, inner_balance = green.wait(green.spawn(inner))
            assert inner_id != connection_id()
            assert not inner_in_atomic
            assert inner_balance == 100
            assert connection.in_atomic_block

    async def main() -> None:
        await green.spawn(outer)

    on_loop(main())


def test_a_connection_comes_back_when_the_callable_ends() -> None:
    async def main() -> None:
        # Were one kept, the pool would be empty after a third of these.
        ids = [await green.spawn(connection_id) for _ in range(3 * POOL_SIZE)]
        assert len(set(ids)) <= POOL_SIZE

    on_loop(main())


def test_django_close_gives_the_connection_back_at_once() -> None:
    from django.db import connection

    def view() -> tuple[int, int]:
        first = connection_id()
        connection.close()
        return first, connection_id()

    async def main() -> None:
        first, second = await green.spawn(view)
        assert first == second

    on_loop(main())


async def count_from_now(mariadb: MariaDB) -> None:
    """Let the server forget how many connections it had, when it has none of the pool's.

    The one that asks may be counted as well.
    """
    await eventually(lambda: mariadb.status("Threads_connected") == 1)
    mariadb.query("FLUSH STATUS")


def test_the_pool_never_has_more_connections_than_its_size(mariadb: MariaDB) -> None:
    async def main() -> None:
        await count_from_now(mariadb)
        await asyncio.gather(*(green.spawn(ask, "SELECT SLEEP(0.01)") for _ in range(60)))

    on_loop(main())
    assert POOL_SIZE <= mariadb.status("Max_used_connections") <= POOL_SIZE + 1


def test_queries_of_greenlets_overlap(mariadb: MariaDB) -> None:
    running = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'"

    async def main() -> None:
        await all_at_once(POOL_SIZE, connection_id)
        slow = [green.spawn(ask, "SELECT SLEEP(1.5)") for _ in range(POOL_SIZE)]
        await eventually(lambda: mariadb.query(running)[0][0] == POOL_SIZE)
        await asyncio.gather(*slow)

    on_loop(main())


def test_the_session_is_prepared_once_for_each_connection(mariadb: MariaDB) -> None:
    async def main() -> None:
        await green.spawn(connection_id)
        before = await asyncio.to_thread(mariadb.status, "Com_set_option")
        for _ in range(10):
            isolation = await green.spawn(ask, "SELECT @@tx_isolation")
            assert isolation == "READ-COMMITTED"
        assert await asyncio.to_thread(mariadb.status, "Com_set_option") - before < 10

    on_loop(main())


def test_errors_of_the_driver_become_those_of_django(accounts: list[int]) -> None:
    from bank.models import Account
    from django.db import DataError, IntegrityError, ProgrammingError

    def twice() -> Any:
        return Account.objects.create(owner="owner 0")

    def below_nothing() -> Any:
        return Account.objects.filter(pk=accounts[0]).update(balance=-1)

    async def main() -> None:
        with pytest.raises(IntegrityError, match="Duplicate"):
            await green.spawn(twice)
        with pytest.raises(DataError):
            await green.spawn(below_nothing)
        with pytest.raises(ProgrammingError):
            await green.spawn(ask, "SELECT * FROM nowhere")

    on_loop(main())


def test_the_orm_on_the_event_loop_itself_is_refused() -> None:
    from bank.models import Account
    from django.core.exceptions import SynchronousOnlyOperation

    async def main() -> None:
        lazy = await green.spawn(Account.objects.all)
        with pytest.raises(SynchronousOnlyOperation, match=r"green\.spawn"):
            list(lazy)

    on_loop(main())


# -- transactions ---------------------------------------------------------------


def test_transactions_of_greenlets_do_not_leak_into_one_another(accounts: list[int]) -> None:
    from bank.models import Account
    from django.db import connection, transaction

    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    fates = {f"storm {n}": rng.choice(["commit", "raise", "inner raise"]) for n in range(60)}

    committed = []

    class Undone(Exception):
        pass

    def names() -> set[str]:
        return set(
            Account.objects.filter(owner__startswith="storm").values_list("owner", flat=True)
        )

    def pause() -> None:
        if rng.random() < 0.5:
            green.sleep(rng.random() / 100)

    def storm(name: str) -> None:
        with transaction.atomic():
            transaction.on_commit(lambda: committed.append(name))
            Account.objects.create(owner=name)
            pause()
            with suppress(Undone), transaction.atomic():
                Account.objects.create(owner=f"{name}, inner")
                assert len(connection.savepoint_ids) == 1
                pause()
                seen = names()
                assert {name, f"{name}, inner"} <= seen
                # Others show what they have committed, and nothing else.
                others = seen - {name, f"{name}, inner"}
                assert {fates[each.partition(",")[0]] for each in others} <= {
                    "commit",
                    "inner raise",
                }
                if fates[name] == "inner raise":
                    raise Undone
            pause()
            if fates[name] == "raise":
                raise Undone

    async def main() -> None:
        results = await asyncio.gather(
            *(green.spawn(storm, name) for name in fates), return_exceptions=True
        )
        for name, result in zip(fates, results, strict=True):
            assert isinstance(result, Undone) == (fates[name] == "raise"), (seed, result)
        kept = {name for name, fate in fates.items() if fate != "raise"}
        inner = {f"{name}, inner" for name, fate in fates.items() if fate == "commit"}
        assert await green.spawn(names) == kept | inner, seed
        assert sorted(committed) == sorted(kept)

    on_loop(main())


def test_a_callable_that_raises_gives_its_connection_back_rolled_back(accounts: list[int]) -> None:
    from bank.models import Account
    from django.db import transaction

    def view() -> None:
        transaction.set_autocommit(False)
        Account.objects.filter(pk=accounts[0]).update(balance=1)
        assert balances()[accounts[0]] == 1
        raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await green.spawn(view)
        # The row is locked by nobody, and as it was.
        looked = await all_at_once(
            POOL_SIZE, lambda: (balances()[accounts[0]], ask("SELECT @@autocommit"))
        )
        assert looked == [(100, 1)] * POOL_SIZE
        await green.spawn(Account.objects.filter(pk=accounts[0]).update, balance=2)

    on_loop(main())


def test_a_connection_closed_in_a_transaction_is_not_used_to_its_end(accounts: list[int]) -> None:
    from bank.models import Account
    from django.db import Error, connection, transaction

    def view() -> None:
        with transaction.atomic():
            Account.objects.filter(pk=accounts[0]).update(balance=1)
            connection.close()
            with pytest.raises(Error):
                connection_id()
        assert balances()[accounts[0]] == 100

    async def main() -> None:
        await green.spawn(view)

    on_loop(main())


@pytest.mark.parametrize("where", ["in a query", "between queries"])
def test_a_cancelled_greenlet_undoes_its_transaction(accounts: list[int], where: str) -> None:
    from bank.models import Account
    from django.db import transaction

    waiting = Event()

    def view() -> None:
        with transaction.atomic():
            Account.objects.filter(pk=accounts[0]).update(balance=1)
            waiting.set()
            if where == "in a query":
                ask("SELECT SLEEP(1.5)")
            else:
                green.sleep(60)

    async def main() -> None:
        future = green.spawn(view)
        await green.spawn(waiting.wait)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        # Where it was cancelled in a query, the server ends the transaction
        # when it notices that nobody listens.
        changed = await green.spawn(
            Account.objects.filter(pk=accounts[0], balance=100).update, balance=2
        )
        assert changed == 1
        assert len(set(await all_at_once(POOL_SIZE, connection_id))) == POOL_SIZE

    on_loop(main())


def test_a_command_that_was_cancelled_half_sent_ends_its_connection() -> None:
    from django.db import connection
    from green_django.mysql import open_pools

    waiting = Event()
    long = "x" * 15_000_000

    def view() -> None:
        connection_id()
        with connection.cursor() as cursor:
            waiting.set()
            cursor.execute("SELECT LENGTH(%s)", [long])

    async def main() -> None:
        future = green.spawn(view)
        await green.spawn(waiting.wait)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        (pool,) = open_pools()
        await eventually(lambda: pool.connections.stats().in_use == 0, seconds=5)
        assert pool.connections.stats().broken == 1
        assert len(set(await all_at_once(POOL_SIZE, connection_id))) == POOL_SIZE

    on_loop(main())


@pytest.mark.parametrize("keepalive_seconds", [30, None])
def test_a_connection_that_the_server_ended_is_replaced(
    monkeypatch: pytest.MonkeyPatch, mariadb: MariaDB, keepalive_seconds: int | None
) -> None:
    from django.db import OperationalError, connections

    options = connections.settings["default"]["OPTIONS"]["pool"]
    monkeypatch.setitem(options, "keepalive_seconds", keepalive_seconds)

    async def main() -> None:
        there = set(await all_at_once(POOL_SIZE, connection_id))
        for each in there:
            mariadb.query(f"KILL {each}")
        await eventually(lambda: mariadb.status("Threads_connected") == 1)
        failed = 0
        for _ in range(2 * POOL_SIZE):
            try:
                await green.spawn(connection_id)
            except OperationalError:
                failed += 1
        # Where they are not probed at check-out, each is missed once at most.
        if keepalive_seconds is None:
            assert failed == 0
        else:
            assert 0 < failed <= len(there)

    on_loop(main())


def test_a_pool_that_gives_no_connection_is_an_error_of_django(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from django.db import OperationalError, connections

    options = connections.settings["default"]["OPTIONS"]["pool"]
    monkeypatch.setitem(options, "wait_timeout", 0.05)

    async def main() -> None:
        slow = [green.spawn(ask, "SELECT SLEEP(1)") for _ in range(POOL_SIZE)]
        with pytest.raises(OperationalError, match="max_size"):
            await green.spawn(connection_id)
        assert await asyncio.gather(*slow) == [0] * POOL_SIZE

    on_loop(main())


# -- the handlers ---------------------------------------------------------------


def test_concurrent_transfers_move_money_and_make_none(
    accounts: list[int], mariadb: MariaDB
) -> None:
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    wanted = [(*rng.sample(accounts, 2), rng.randint(1, 80)) for _ in range(80)]

    async def main() -> None:
        await count_from_now(mariadb)
        async with served() as url, Browser(url) as browser:
            answers = await asyncio.gather(
                *(
                    browser.post_json("/transfers", source=source, target=target, amount=amount)
                    for source, target, amount in wanted
                )
            )
            listed = json.loads((await browser.get("/accounts")).body)["accounts"]
        assert {answer.code for answer in answers} == {201, 409}, seed
        expected = dict.fromkeys(accounts, 100)
        for (source, target, amount), answer in zip(wanted, answers, strict=True):
            if answer.code == 201:
                expected[source] -= amount
                expected[target] += amount
        assert {each["id"]: each["balance"] for each in listed} == expected, seed
        assert sum(expected.values()) == 600

    on_loop(main())
    made = mariadb.query(f"SELECT COUNT(*) FROM {DATABASE}.bank_transfer")[0][0]
    assert 0 < made < len(wanted)
    assert mariadb.status("Max_used_connections") <= POOL_SIZE + 1


@pytest.mark.parametrize("body", [{}, {"source": 1, "target": 2, "amount": "much"}])
def test_a_transfer_that_says_too_little_is_refused(body: dict[str, Any]) -> None:
    async def main() -> None:
        async with served() as url, Browser(url) as browser:
            answer = await browser.post_json("/transfers", **body)
        assert answer.code == 400
        assert "source, target, amount" in json.loads(answer.body)["error"]

    on_loop(main())


# -- the admin ------------------------------------------------------------------


def test_the_admin_sends_strangers_to_its_login() -> None:
    async def main() -> None:
        async with served() as url, Browser(url) as browser:
            answer = await browser.get("/admin/bank/account/")
            assert (answer.code, answer.headers["Location"]) == (
                302,
                "/admin/login/?next=/admin/bank/account/",
            )
            refused = await browser.log_in("wrong")
            assert refused.code == 200
            assert "sessionid" not in browser.cookies

    on_loop(main())


def test_the_admin_refuses_a_form_without_its_token() -> None:
    async def main() -> None:
        async with served() as url, Browser(url) as browser:
            await browser.get("/admin/login/")
            answer = await browser._fetch("/admin/login/", method="POST", body=urlencode(ADMIN))
            assert answer.code == 403

    on_loop(main())


def test_accounts_are_listed_added_and_changed_in_the_admin(accounts: list[int]) -> None:
    async def main() -> None:
        async with served() as url, Browser(url) as browser:
            assert (await browser.log_in()).code == 302
            listed = await browser.get("/admin/bank/account/")
            assert listed.code == 200
            assert b"owner 5" in listed.body

            added = await browser.post_form("/admin/bank/account/add/", owner="Ada", balance="7")
            assert (added.code, added.headers["Location"]) == (302, "/admin/bank/account/")
            listed = await browser.get("/admin/bank/account/?q=Ada")
            (key,) = set(re.findall(rb"/admin/bank/account/(\d+)/change/", listed.body))
            assert b"was added successfully" in listed.body

            page = f"/admin/bank/account/{key.decode()}/change/"
            assert (await browser.post_form(page, owner="Ada", balance="8")).code == 302
            refused = await browser.post_form(page, owner="Ada", balance="-1")
            assert (refused.code, b"errorlist" in refused.body) == (200, True)
            assert (await green.spawn(balances))[int(key)] == 8

    on_loop(main())


def test_the_admin_serves_many_at_once(accounts: list[int]) -> None:
    async def main() -> None:
        async with served() as url, Browser(url) as browser:
            await browser.log_in()
            pages = ["/admin/bank/account/", "/admin/bank/transfer/", "/accounts"] * 10
            answers = await asyncio.gather(*(browser.get(page) for page in pages))
            assert [answer.code for answer in answers] == [200] * len(pages)

    on_loop(main())


def test_tornado_serves_the_static_files_of_the_admin() -> None:
    async def main() -> None:
        await green.spawn(command, "collectstatic", interactive=False)
        async with served() as url, Browser(url) as browser:
            assert b"/static/admin/css/base.css" in (await browser.get("/admin/login/")).body
            answer = await browser.get("/static/admin/css/base.css")
            assert (answer.code, answer.headers["Content-Type"]) == (200, "text/css")

    on_loop(main())


def test_a_password_is_checked_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.contrib.auth import hashers

    threads = []
    pbkdf2 = hashers.pbkdf2

    def watched(*arguments: Any, **options: Any) -> bytes:
        threads.append(threading.get_ident())
        return pbkdf2(*arguments, **options)

    monkeypatch.setattr(hashers, "pbkdf2", watched)

    async def main() -> None:
        async with served() as url, Browser(url) as browser:
            assert (await browser.log_in()).code == 302

    on_loop(main())
    assert threads
    assert threading.get_ident() not in threads


def test_an_application_that_fails_is_answered_for(
    no_error_goes_unseen: list[logging.LogRecord],
) -> None:
    from green_django.wsgi import GreenWSGIContainer

    def application(environ: Any, start_response: Any) -> Any:
        raise ZeroDivisionError

    async def main() -> None:
        server = HTTPServer(GreenWSGIContainer(application))
        (listener,) = bind_sockets(0, "127.0.0.1")
        server.add_sockets([listener])
        async with Browser(f"http://127.0.0.1:{listener.getsockname()[1]}") as browser:
            assert (await browser.get("/")).code == 500
        assert "GET / failed" in [record.getMessage() for record in no_error_goes_unseen]
        no_error_goes_unseen.clear()
        server.stop()
        await server.close_all_connections()

    on_loop(main())


# -- the programs ---------------------------------------------------------------


PYTHON = [sys.executable, "-X", "dev", "-W", "error"]


def program_environment(environment: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(EXAMPLE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **environment, "PYTHONPATH": path}


@pytest.mark.parametrize(
    "arguments", [["migrate", "--check"], ["makemigrations", "--check"], ["test"]]
)
def test_django_commands_run_green(environment: dict[str, str], arguments: list[str]) -> None:
    done = subprocess.run(
        [*PYTHON, "manage.py", *arguments],
        cwd=EXAMPLE,
        env=program_environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("Ran 2 tests" in done.stderr) == (arguments == ["test"])


def test_the_server_serves_until_it_is_told_to_end(environment: dict[str, str]) -> None:
    (port,) = free_ports(1)
    with subprocess.Popen(
        [*PYTHON, "server.py", str(port)],
        cwd=EXAMPLE,
        env=program_environment(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == f"http://127.0.0.1:{port}/admin/\n"

        async def main() -> None:
            async with Browser(f"http://127.0.0.1:{port}") as browser:
                assert (await browser.get("/accounts")).code == 200
                assert (await browser.get("/admin/login/")).code == 200

        on_loop(main())
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
    assert server.returncode == 0, errors
    assert "Traceback" not in errors
    assert "Warning" not in errors
