"""Keeping the memory of large blocks for the next ones.

Files in GridFS go through blocks of megabytes. glibc gives such blocks back to
the system when they are freed, and the system clears the next one anew, page by
page, which takes longer than to copy it. It stops doing so by itself once a block
of that size was freed (``mallopt(3)``, "Dynamic adjustment of the mmap threshold"),
and from then on keeps twice as much at the end of its heap.

Rule: settings are left alone. Who has made any, such as the environment's
``MALLOC_TRIM_THRESHOLD_``, has switched that adjustment off, and this with it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache

__all__ = ["keep_large_blocks"]

# glibc adjusts itself to blocks of less than 32 MB, their header included.
_LARGEST_BYTES = 32 * 1024 * 1024 - 64 * 1024


@cache
def keep_large_blocks() -> None:
    """Let glibc keep what is freed of blocks of up to 32 MB. Other libcs do as ever."""
    # Nobody writes to it, so the system never has to find memory for it.
    with suppress(MemoryError):
        bytes(_LARGEST_BYTES)
