"""motorlike beside other MongoDB clients: ``python -m benchmarks --help``.

A wheel has this folder as `motorlike._benchmarks`, for ``python -m motorlike
bench``; so imports among its modules are relative. docs/benchmarks.md says
what is measured, and how.

Rule: figures are compared within one run only, in which the clients took turns.
"""

from __future__ import annotations

__all__: list[str] = []
