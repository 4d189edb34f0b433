"""Django's commands, on the green database: ``python manage.py migrate``, and the rest.

A command runs in a greenlet, as the ORM needs it here. Those that would serve
requests themselves (``runserver``) have no place: `server.py` serves.
"""

from __future__ import annotations

import asyncio
import os
import sys

from motorlike import green


async def main() -> None:
    """Run the command of the command line."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "website.settings")
    from django.core.management import execute_from_command_line
    from green_django.mysql import close_pools

    try:
        await green.spawn(execute_from_command_line, sys.argv)
    finally:
        await close_pools()


if __name__ == "__main__":
    asyncio.run(main())
