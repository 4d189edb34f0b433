"""Loading the driver leaves everything as it was, and warns of untried versions."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pymongo
import pytest

from motorlike.driver.loader import TESTED_VERSIONS, load, make_loader


def _run(script: str, *options: str) -> str:
    command = [sys.executable, "-X", "dev", *options, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


UNTOUCHED = """
    import atexit, os, socket, ssl, sys, threading
    import bson, gridfs, pymongo, pymongo.encryption
    # What motorlike imports of other packages', which have hooks of their own.
    import asyncio, concurrent.futures.thread, greenlet, queue, tornado.iostream

    callers = set()

    def register(*args, **hooks):
        callers.add(sys._getframe(1).f_globals["__name__"])

    atexit.register = os.register_at_fork = register

    watched = [atexit, os, socket, ssl, threading]
    watched += [m for n, m in sys.modules.items() if n.split(".")[0] in {packages}]

    def snapshot():
        found = {{}}
        for module in watched:
            for name, value in vars(module).items():
                # The application's own submodules may be imported, as always.
                if value is not sys.modules.get(f"{{module.__name__}}.{{name}}"):
                    found[module.__name__, name] = id(value)
        return found

    modules = dict(sys.modules)
    before = snapshot()
    threads = threading.enumerate()
    import motorlike.driver as driver
    client = driver.MongoClient("mongodb://localhost:1")
    for name in ("pymongo.encryption", "gridfs"):
        driver.load(name)

    assert snapshot() == before
    assert {{n: sys.modules.get(n) for n in modules}} == modules
    assert threading.enumerate() == threads
    # Their hooks are tested elsewhere; PyMongo's private copy registers none.
    ours = {{"motorlike.green.hub", "motorlike.green.trace", "motorlike.driver.loader"}}
    assert callers == ours, callers
    loader = driver.loader
    private = [m for n, m in loader._loader.modules.items() if not loader._is_shared(n)]
    assert len(private) > 40, private
    leaked = set(map(id, private)) & set(map(id, sys.modules.values()))
    assert not leaked
"""


def test_loading_the_driver_touches_nothing_that_users_import() -> None:
    packages = {"pymongo", "gridfs", "bson", "pymongocrypt"}
    assert _run(UNTOUCHED.format(packages=packages), "-W", "error") == ""


def test_the_applications_pymongo_still_blocks_and_ours_is_green() -> None:
    script = """
        import socket, threading, motorlike.driver as driver, pymongo.pool_shared, pymongo.lock
        assert pymongo.pool_shared.socket is socket
        assert driver.load("pymongo.pool_shared").socket is not socket
        assert pymongo.lock.threading is threading
        assert driver.load("pymongo.lock").threading is not threading
        assert pymongo.MongoClient is not driver.MongoClient.__mro__[1]
    """
    assert _run(script, "-W", "error") == ""


def test_the_driver_sees_an_os_and_an_atexit_whose_hooks_do_nothing() -> None:
    import atexit
    import os

    os_seen = load("pymongo.synchronous.mongo_client").os
    atexit_seen = load("pymongo.synchronous.monitor").atexit
    assert os_seen.register_at_fork is not os.register_at_fork
    assert atexit_seen.register is not atexit.register
    assert os_seen.getpid is os.getpid
    assert os_seen.environ is os.environ


def test_a_forked_child_finds_no_lock_taken() -> None:
    script = """
        import asyncio, os, warnings
        from motorlike import green
        from motorlike.driver import load

        lock = load("pymongo.lock")._create_lock()

        def hold():
            with lock:
                green.sleep(60)

        async def main():
            holders = [green.spawn(hold) for _ in range(3)]
            await asyncio.sleep(0)
            assert lock.locked()
            pid = os.fork()
            if not pid:
                os._exit(1 if lock.locked() else 0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert lock.locked()
            for holder in holders:
                holder.cancel()
            await asyncio.gather(*holders, return_exceptions=True)

        asyncio.run(main())
    """
    assert _run(script, "-W", "error") == ""


def test_a_new_loader_has_modules_of_its_own() -> None:
    assert make_loader().load("pymongo.lock") is not load("pymongo.lock")


def test_the_installed_pymongo_is_a_tried_one() -> None:
    assert pymongo.version_tuple[:2] in TESTED_VERSIONS


@pytest.mark.parametrize("version", [(4, 17, 1), (4, 99, 0, ".dev0"), (5, 0, 0)])
def test_an_untried_pymongo_warns_exactly_once(version: tuple[int, ...]) -> None:
    text = ".".join(map(str, version))
    script = f"""
        import warnings
        import pymongo
        pymongo.version_tuple, pymongo.version = {version!r}, {text!r}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import motorlike.driver
            from motorlike.driver import MongoClient, load
            MongoClient("mongodb://localhost:1")
            load("gridfs")
        print([(w.category.__name__, str(w.message)) for w in caught])
    """
    output = _run(script)
    assert output.count("UntestedVersionWarning") == 1
    assert f"{text} is installed" in output
    assert output.count("',") == 1


def test_a_tried_pymongo_does_not_warn() -> None:
    assert _run("import motorlike.driver", "-W", "error") == ""
