"""A guest book on MariaDB or MySQL: Tornado handlers, and PyMySQL run green through a pool.

Run it with the URL of a database in which it may create two tables:

    python examples/mysql_guestbook.py mysql://user:password@localhost:3306/guestbook

Then sign the book, and read it:

    curl -d guest=Ada -d text=Hello http://localhost:8080/entries
    curl http://localhost:8080/entries

The functions that query are synchronous, written as for any PyMySQL. Each
handler awaits one on a connection of the pool; meanwhile the others go on.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import tornado.web
from pymysql.err import IntegrityError, InterfaceError
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from motorlike import green
from motorlike.pool import ConnectionPool, PoolTimeout

# Its errors are those that are imported above.
pymysql = green.load("pymysql", shared=["pymysql.err"])

Connection = Any  # PyMySQL's, from the copy that runs green

STATEMENTS = (
    """CREATE TABLE IF NOT EXISTS entries (
        id INT AUTO_INCREMENT PRIMARY KEY, guest VARCHAR(100) NOT NULL,
        text VARCHAR(500) NOT NULL, UNIQUE (guest, text))
        ENGINE=InnoDB CHARACTER SET utf8mb4""",
    "CREATE TABLE IF NOT EXISTS book (id INT PRIMARY KEY, entries INT NOT NULL) ENGINE=InnoDB",
    "INSERT IGNORE INTO book VALUES (1, 0)",
)


# -- synchronous code, run green ----------------------------------------------


def create_tables(connection: Connection) -> None:
    with connection.cursor() as cursor:
        for statement in STATEMENTS:
            cursor.execute(statement)
    connection.commit()


def sign(connection: Connection, guest: str, text: str) -> int:
    """Add an entry and count it, or neither; return how many the book holds."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE book SET entries = entries + 1")
        cursor.execute("INSERT INTO entries (guest, text) VALUES (%s, %s)", (guest, text))
        cursor.execute("SELECT entries FROM book")
        (count,) = cursor.fetchone()
    connection.commit()
    return int(count)


def latest(connection: Connection, limit: int) -> list[dict[str, Any]]:
    with connection.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute("SELECT id, guest, text FROM entries ORDER BY id DESC LIMIT %s", (limit,))
        return list(cursor.fetchall())


# -- handlers -----------------------------------------------------------------


class EntriesHandler(tornado.web.RequestHandler):
    def initialize(self, pool: "ConnectionPool[Connection]") -> None:
        self.pool = pool

    async def get(self) -> None:
        limit = min(int(self.get_argument("limit", "20")), 100)
        self.write({"entries": await self.pool.run(latest, limit)})

    async def post(self) -> None:
        guest, text = self.get_argument("guest"), self.get_argument("text")
        try:
            count = await self.pool.run(sign, guest, text)
        except IntegrityError:
            # The count was rolled back when the connection was given back.
            raise tornado.web.HTTPError(409, reason="You said that before") from None
        except PoolTimeout:
            raise tornado.web.HTTPError(503, reason="Too many guests at once") from None
        self.write({"entries": count})


def connection_pool(url: str, size: int) -> "ConnectionPool[Connection]":
    parts = urlsplit(url)

    def connect() -> Connection:
        return pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=parts.path.lstrip("/"),
        )

    return ConnectionPool(
        connect,
        max_size=size,
        wait_timeout=5,
        # So that nobody sees what another one did not commit.
        reset=lambda connection: connection.rollback(),
        # So that the server does not close connections that are idle.
        keepalive_seconds=60,
        ping=lambda connection: connection.ping(reconnect=False),
        discard_on=(OSError, InterfaceError),
    )


@asynccontextmanager
async def serving(url: str, *, pool_size: int = 20, port: int = 0) -> AsyncIterator[str]:
    """Serve the guest book in the database at *url* for the block; yield its address."""
    async with connection_pool(url, pool_size) as pool:
        await pool.run(create_tables)
        application = tornado.web.Application([("/entries", EntriesHandler, {"pool": pool})])
        server = HTTPServer(application)
        (socket,) = bind_sockets(port, "127.0.0.1")
        server.add_sockets([socket])
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.stop()
            await server.close_all_connections()


async def main(url: str, port: int) -> None:
    """Serve until cancelled, which Ctrl-C does."""
    async with serving(url, port=port) as address:
        print(f"Serving at {address}/entries; Ctrl-C ends it.", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A guest book on MariaDB or MySQL.")
    parser.add_argument("url", help="mysql://user:password@host:port/database")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(main(arguments.url, arguments.port))
