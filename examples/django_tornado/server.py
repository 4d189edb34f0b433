"""The bank on Tornado: a JSON API on Django's ORM, and Django's admin beside it.

    GET  /accounts     all accounts
    POST /transfers    {"source": 1, "target": 2, "amount": 30}
    /admin/            Django's admin

Run it with ``python server.py [PORT]``, after the commands in README.md.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import django
from tornado.log import enable_pretty_logging


async def main(port: int) -> None:
    """Serve until a signal comes."""
    # Django can import models once it is set up, and not before.
    from green_django.mysql import close_pools
    from website.application import make_application

    stop = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    server = make_application().listen(port, "127.0.0.1")
    print(f"http://127.0.0.1:{port}/admin/", flush=True)
    await stop.wait()
    server.stop()
    await server.close_all_connections()
    await close_pools()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "website.settings")
    enable_pretty_logging()
    django.setup()
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 8888))
