"""The progress bar: on stderr while a run works, if that is a terminal.

`__main__` puts the steps of `schedule.run` through `steps`.

Rule: nothing but the bar goes to stderr from here, and nothing at all to
stdout: tables may be piped into a file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

__all__ = ["steps"]


def steps(names: Iterator[str], total: int) -> None:
    """Take *names* one by one, showing each as what is being done.

    Args:
        total: How many there will be.
    """
    if not sys.stderr.isatty():
        for _ in names:
            pass
        return
    try:
        from tqdm import tqdm
    except ImportError:
        _plain(names, total)
        return
    with tqdm(total=total, unit="cell", leave=False, dynamic_ncols=True) as bar:
        for done, name in enumerate(names):
            bar.update(done - bar.n)
            bar.set_description(name)


def _plain(names: Iterator[str], total: int) -> None:
    for done, name in enumerate(names, 1):
        # Over the line before it, to the end of which is cleared.
        sys.stderr.write(f"\r[{done}/{total}] {name}\x1b[K")
        sys.stderr.flush()
    sys.stderr.write("\r\x1b[K")
