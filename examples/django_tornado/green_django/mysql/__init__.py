"""A Django database backend for MariaDB and MySQL, green and pooled.

Name it in the settings: ``"ENGINE": "green_django.mysql"``. Beside Django's
own options for MySQL, ``OPTIONS["pool"]`` takes those of
`motorlike.pool.ConnectionPool`, such as ``max_size``.

A program awaits `close_pools` before its event loop ends.
"""

from __future__ import annotations

from green_django.mysql.pools import close_pools, open_pools

__all__ = ["close_pools", "open_pools"]
