"""The data sets of MongoDB's published driver benchmark.

`tasks/published.py` has them unpacked, each task into its own folder. They are
not part of the project: they lie in ``benchmarking/`` of the folder that
`MOTORLIKE_DATA` names, else of ``../shared/data`` beside the checkout.

Rule: what is unpacked goes below the folder that is given, and nowhere else.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from .task import Unavailable

__all__ = ["archive", "unpack"]

_CHECKOUT = Path(__file__).resolve().parent.parent


def archive(name: str) -> Path:
    """Return the path of the archive *name*.

    Raises:
        Unavailable: It is not on this machine.
    """
    data = Path(os.environ.get("MOTORLIKE_DATA") or _CHECKOUT.parent / "shared" / "data")
    path = data / "benchmarking" / f"{name}.tgz"
    if not path.is_file():
        raise Unavailable(
            f"no published data: {path} does not exist; MOTORLIKE_DATA may name "
            "the folder that has benchmarking/"
        )
    return path


def unpack(path: str, folder: Path) -> None:
    """Unpack ``archive/file``, or all files below ``archive/folder``, into *folder*.

    Raises:
        Unavailable: The archive is not on this machine, or has no such file.
    """
    source = archive(path.partition("/")[0])
    with tarfile.open(source) as tar:
        wanted = [member for member in tar if _is_in(member.name, path)]
        if not wanted:
            raise Unavailable(f"{source} has no {path}")
        tar.extractall(folder, wanted, filter="data")


def _is_in(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")
