"""What PyMongo calls out to and cannot run green: it goes to the executor.

Kerberos, AWS and OIDC libraries, OCSP's HTTP requests and DNS block the thread
they run on. The green driver sees stand-ins of them whose calls run in the
loop's executor, while the greenlet waits.

Rule: a call is offloaded whole, with its result complete: nothing that it
returns may block later.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

__all__ = ["stand_ins"]


def stand_ins() -> Mapping[str, ModuleType | str]:
    """Return the stand-ins by the name of the module whose place they take."""
    return {}
