"""The version of motorlike.

Rule: imports nothing; packaging reads it without installing the requirements.
"""

from __future__ import annotations

__all__ = ["__version__", "get_version_string", "version", "version_tuple"]

__version__ = "0.1.0"

# As Motor has them.
version = __version__
version_tuple = (0, 1, 0)


def get_version_string() -> str:
    """Return the version of motorlike."""
    return version
