"""Forks, and the end of the interpreter, in Pythons of their own.

Each runs with warnings as errors, and must print nothing that it was not told
to: see `run_script`.
"""

from __future__ import annotations

import pytest

from tests.integration.support import run_script

PING = """
import asyncio, os, signal, sys
from motorlike import MotorClient

client = MotorClient(sys.argv[1])

async def ping():
    answers = await asyncio.gather(*(client.admin.command("ping") for _ in range(3)))
    return [answer["ok"] for answer in answers] == [1.0] * 3
"""


def script(text: str) -> str:
    return PING + text


@pytest.mark.parametrize(
    "before", ["", "assert asyncio.run(ping())"], ids=["unused", "used before the fork"]
)
def test_tornado_forks_processes_that_share_a_client_made_at_import(
    before: str, mongod_uri: str
) -> None:
    text = script(
        """
BEFORE
from tornado.process import fork_processes
from tornado.ioloop import IOLoop

fork_processes(3)

async def main():
    assert await ping()
    await client.close()
    os.write(1, b"ok ")

asyncio.run(main())
"""
    ).replace("BEFORE", before)
    assert run_script(text, mongod_uri) == "ok ok ok "


def test_a_tornado_server_started_in_all_processes_answers_from_each(mongod_uri: str) -> None:
    text = script(
        """
import tornado.httpserver, tornado.netutil, tornado.web
from tornado.httpclient import AsyncHTTPClient

assert asyncio.run(ping())

class Handler(tornado.web.RequestHandler):
    async def get(self):
        self.write(str((await client.db.command("ping"))["ok"]))

sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
port = sockets[0].getsockname()[1]
server = tornado.httpserver.HTTPServer(tornado.web.Application([("/", Handler)]))
from tornado.process import fork_processes
try:
    fork_processes(2)
except SystemExit:  # In the parent, when its children have ended.
    sockets[0].close()
    raise

async def main():
    server.add_sockets(sockets)
    fetch = AsyncHTTPClient().fetch
    answers = await asyncio.gather(*(fetch(f"http://127.0.0.1:{port}/") for _ in range(10)))
    assert {answer.body for answer in answers} == {b"1.0"}
    await asyncio.sleep(0.3)  # The other process may be asking this one.
    server.stop()
    await server.close_all_connections()
    AsyncHTTPClient().close()
    await client.close()
    os.write(1, b"ok ")

asyncio.run(main())
"""
    )
    assert run_script(text, mongod_uri) == "ok ok "


def test_parent_and_child_both_go_on_after_a_fork_between_two_loops(mongod_uri: str) -> None:
    text = script(
        """
async def stay_open():
    assert await ping()

asyncio.run(stay_open())
pid = os.fork()
assert asyncio.run(ping())
if pid == 0:
    os.write(1, b"child ")
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
assert asyncio.run(ping())
print("parent")
"""
    )
    assert run_script(text, mongod_uri) == "child parent\n"


def test_a_fork_in_the_middle_of_operations_leaves_the_parents_connections_whole(
    mongod_uri: str,
) -> None:
    text = script(
        """
items = client.motorlike_fork.items

async def parent():
    await items.drop()
    await items.insert_many([{"_id": i} for i in range(50)])
    for _ in range(3):
        running = [items.find_one({"_id": i}) for i in range(50)]
        slow = client.admin.command("sleep", 1, millis=200)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if asyncio.run(in_child()) else 2
            finally:
                os._exit(code)
        code = await asyncio.to_thread(os.waitpid, pid, 0)
        assert code[1] == 0, code
        assert [(await future)["_id"] for future in running] == list(range(50))
        assert (await slow)["ok"] == 1
        found = await asyncio.gather(*(items.find_one({"_id": i}) for i in range(50)))
        assert [document["_id"] for document in found] == list(range(50))
    await client.drop_database("motorlike_fork")
    await client.close()
    print("ok")

async def in_child():
    found = await asyncio.gather(*(items.find_one({"_id": i}) for i in range(50)))
    assert [document["_id"] for document in found] == list(range(50))
    await client.close()
    return True

asyncio.run(parent())
"""
    )
    assert run_script(text, mongod_uri) == "ok\n"


def test_a_child_of_multiprocessing_uses_its_parents_client(mongod_uri: str) -> None:
    text = script(
        """
import multiprocessing

def child():
    assert asyncio.run(ping())

async def parent():
    assert await ping()
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    while process.is_alive():
        assert await ping()
        await asyncio.sleep(0.01)
    process.join()
    assert process.exitcode == 0
    process.close()

asyncio.run(parent())
"""
    )
    assert run_script(text, mongod_uri) == ""


EXITS = {
    "never used": "",
    "after asyncio.run": "asyncio.run(ping())",
    "after asyncio.run, twice": "asyncio.run(ping()); asyncio.run(ping())",
    "after IOLoop.run_sync": """
from tornado.ioloop import IOLoop
loop = IOLoop(make_current=False)
loop.run_sync(ping)
loop.close()
""",
    "after run_until_complete and loop.close": """
loop = asyncio.new_event_loop()
loop.run_until_complete(ping())
loop.close()
""",
    "with operations abandoned at the end of asyncio.run": """
async def main():
    await ping()
    for _ in range(5):
        client.admin.command("sleep", 1, millis=300)
        asyncio.create_task(ping())
    await asyncio.sleep(0.01)
asyncio.run(main())
""",
    "with operations abandoned by loop.close": """
loop = asyncio.new_event_loop()
async def main():
    await ping()
    futures.extend(client.admin.command("sleep", 1, millis=300) for _ in range(5))
    await asyncio.sleep(0.01)
futures = []
loop.run_until_complete(main())
loop.close()
""",
    "sys.exit in the middle of operations": """
async def main():
    await ping()
    tasks = [asyncio.create_task(ping()) for _ in range(5)]
    futures = [client.admin.command("sleep", 1, millis=300) for _ in range(5)]
    await asyncio.sleep(0.005)
    sys.exit()
asyncio.run(main())
""",
    "sys.exit in the middle of a Tornado loop": """
from tornado.ioloop import IOLoop
async def main():
    await ping()
    futures = [client.admin.command("sleep", 1, millis=300) for _ in range(5)]
    await asyncio.sleep(0.005)
    sys.exit()
loop = IOLoop(make_current=False)
try:
    loop.run_sync(main)
finally:
    loop.close()
""",
    "Ctrl-C in the middle of operations": """
async def main():
    await ping()
    asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGINT)
    await asyncio.gather(*(client.admin.command("sleep", 1, millis=300) for _ in range(5)))
try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
""",
    "in the middle of a cursor": """
cursor = client.motorlike_exit.items.find(batch_size=2)
async def main():
    await client.motorlike_exit.items.insert_many([{} for _ in range(9)])
    await cursor.next()
asyncio.run(main())
""",
    "while connecting to a server that is not there": """
client = MotorClient("mongodb://127.0.0.1:9", serverSelectionTimeoutMS=30000)
async def main():
    futures = [client.db.items.find_one() for _ in range(3)]
    await asyncio.sleep(0.05)
asyncio.run(main())
""",
    "after close() without a loop": "asyncio.run(ping()); client.close()",
    "after close() that nobody awaited": """
async def main():
    await ping()
    client.close()
asyncio.run(main())
""",
    "on uvloop": """
import uvloop
async def main():
    await ping()
    futures = [client.admin.command("sleep", 1, millis=300) for _ in range(5)]
    await asyncio.sleep(0.01)
uvloop.run(main())
""",
}


@pytest.mark.parametrize("text", EXITS.values(), ids=EXITS)
def test_exit_with_an_open_client_is_prompt_and_prints_nothing(text: str, mongod_uri: str) -> None:
    assert run_script(script(text), mongod_uri, timeout=20) == ""


def test_exit_with_a_loop_left_open_adds_nothing_to_what_asyncio_says(mongod_uri: str) -> None:
    # Such a loop warns of itself: here it is kept from that.
    text = script(
        """
loop = asyncio.new_event_loop()
loop.run_until_complete(ping())
type(loop).__del__ = lambda self, **kwargs: None
"""
    )
    assert run_script(text, mongod_uri) == ""


def test_descriptors_above_1023_work(mongod_uri: str) -> None:
    """Pitfall 10: `select` fails there; `poll` does not."""
    text = script(
        """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1200)]

async def main():
    assert await ping()
    (server,) = client.delegate._topology._servers.values()
    assert min(conn.conn.fileno() for conn in server.pool.conns) > 1023
    # PyMongo looks at each idle connection before it uses it.
    server.pool._check_interval_seconds = 0
    assert await ping()
    await client.close()

asyncio.run(main())
for fd in held:
    os.close(fd)
"""
    )
    assert run_script(text, mongod_uri) == ""
