"""Start-up: the import and the first operation, in new processes.

Each is a Python that has imported asyncio and nothing of ours. The first of
them is not counted: it may have had to compile what it imports.

Rule: the clock starts before the library's import, and after Python's own start.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from statistics import median
from textwrap import indent
from typing import TYPE_CHECKING

from ..task import Figure, Task, Unavailable

if TYPE_CHECKING:
    from ..measure import Bench

__all__ = ["TASKS"]

_FEWEST = 3

# For each peer: what is imported, and what is done with it.
_STEPS = {
    "motorlike": (
        "from motorlike import MotorClient",
        "await MotorClient(uri).admin.command('ping')",
    ),
    "pymongo": (
        "from pymongo import MongoClient",
        "MongoClient(uri).admin.command('ping')",
    ),
    "pymongo-async": (
        "from pymongo import AsyncMongoClient",
        "await AsyncMongoClient(uri).admin.command('ping')",
    ),
    "motor": (
        "from motor.motor_asyncio import AsyncIOMotorClient",
        "await AsyncIOMotorClient(uri).admin.command('ping')",
    ),
    "mongojet": (
        "from mongojet import create_client",
        "client = await create_client(uri)\nawait client.admin.run_command({'ping': 1})",
    ),
    "threads": (
        "from pymongo import MongoClient",
        "await asyncio.to_thread(MongoClient(uri).admin.command, 'ping')",
    ),
}

# No client is closed: the process ends as soon as it has told its times.
_PROGRAM = """\
import asyncio, json, os, sys, time
from importlib import import_module

async def main(uri, start, imported):
{operation}
    print(json.dumps([imported - start, time.perf_counter() - imported]), flush=True)
    os._exit(0)

loop = import_module(sys.argv[2])
start = time.perf_counter()
{imports}
imported = time.perf_counter()
asyncio.Runner(loop_factory=loop.new_event_loop).run(main(sys.argv[1], start, imported))
"""


class _FirstOperation(Task):
    name = "first_operation"
    summary = "import of the library, a client's making and its first ping"
    figures = (
        Figure("total", "ms in all", False),
        Figure("imports", "import ms", False),
        Figure("first", "first operation ms", False),
    )

    async def run(self, bench: Bench) -> dict[str, float]:
        if bench.peer.name not in _STEPS:
            raise Unavailable(f"tasks/startup.py does not know how {bench.peer.name} starts")
        imports, operation = _STEPS[bench.peer.name]
        program = _PROGRAM.format(imports=imports, operation=indent(operation, "    "))
        await self._start(program, bench)
        deadline = time.perf_counter() + bench.case.seconds
        times: list[tuple[float, float]] = []
        while len(times) < _FEWEST or time.perf_counter() < deadline:
            times.append(await self._start(program, bench))
        return {
            "total": median(imported + first for imported, first in times) * 1e3,
            "imports": median(imported for imported, _ in times) * 1e3,
            "first": median(first for _, first in times) * 1e3,
        }

    async def _start(self, program: str, bench: Bench) -> tuple[float, float]:
        """Return the seconds of the import and of the first operation."""
        arguments = ["-c", program, bench.case.uri, bench.case.loop]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()
        imported, first = json.loads(output)
        return imported, first


TASKS: tuple[Task, ...] = (_FirstOperation(),)
