"""Tell of an extension module whether it makes socket calls of its own.

`motorlike.green.importer` asks this of each one that a loaded package uses. A
stand-in cannot reach compiled code: where that connects and receives by
itself, it blocks the event loop.

Rule: only what is read from the file counts, never a list of known names. A
symbol that is imported is a call that is made; most extension modules import
none of these and are harmless.
"""

from __future__ import annotations

import functools
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["socket_calls"]

# Each of these waits for a peer. (What only reads or writes a file descriptor
# that Python gave it cannot be told from files.)
_BLOCKING = frozenset({"connect", "recv", "recvfrom", "recvmsg", "getaddrinfo", "gethostbyname"})

# The C runtime, which defines these calls; and what can connect, but is linked
# for its ciphers and hashes.
_INNOCENT_LIBRARIES = re.compile(r"ld-|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|crypto)[-.]")

_DYNAMIC_SYMBOLS, _DYNAMIC_LINKS = 11, 6  # kinds of sections
_NEEDED = 1  # a kind of link: the name of another library
_ELF64 = b"\x7fELF\x02"


@dataclass(frozen=True)
class _Section:
    kind: int
    content: bytes
    link: int


@functools.cache
def socket_calls(path: str) -> tuple[str, ...]:
    """Return what in the extension module at *path* calls sockets; nothing if none does.

    Its own calls, such as ``connect``, and those of the libraries that it is
    linked with, such as ``connect in libmariadb.so.3``. The module must have
    been imported, so that the libraries are known.
    """
    own, libraries = _imports_of(Path(path))
    found = sorted(own & _BLOCKING)
    for name in libraries:
        library = None if _INNOCENT_LIBRARIES.match(name) else _loaded_library(name)
        if library is not None:
            imported, _ = _imports_of(library)
            found += [f"{call} in {name}" for call in sorted(imported & _BLOCKING)]
    return tuple(found)


def _loaded_library(name: str) -> Path | None:
    """Return the file of a library that this process has loaded. Linux only."""
    with suppress(OSError):
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = {Path(line[line.index("/") :]) for line in lines if "/" in line}
        # Linked as libx.so.3, it may be a link to libx.so.3.1: that is loaded.
        for folder in {path.parent for path in paths}:
            if (folder / name).resolve() in paths:
                return folder / name
    return None


def _imports_of(path: Path) -> tuple[frozenset[str], list[str]]:
    """Return the symbols that a compiled file imports, and the libraries that it names."""
    try:
        content = path.read_bytes()
    except OSError:
        # Updated or removed since it was imported.
        return frozenset(), []
    with suppress(struct.error, IndexError, ValueError):
        if content.startswith(_ELF64):
            return _read_elf(content)
    # Another format than Linux': names stand in a table, each ended by a zero.
    symbols = [name for name in _BLOCKING if re.search(rb"\W_?%b\0" % name.encode(), content)]
    return frozenset(symbols), []


def _read_elf(content: bytes) -> tuple[frozenset[str], list[str]]:
    order = "<" if content[5] == 1 else ">"
    sections = list(_sections(content, order))
    symbols: set[str] = set()
    libraries: list[str] = []
    for section in sections:
        if section.kind == _DYNAMIC_SYMBOLS:
            names = sections[section.link].content
            symbols.update(_imported_symbols(section.content, names, order))
        elif section.kind == _DYNAMIC_LINKS:
            names = sections[section.link].content
            entries = struct.iter_unpack(order + "QQ", section.content)
            libraries += [_text(names, at) for tag, at in entries if tag == _NEEDED]
    return frozenset(symbols), libraries


def _sections(content: bytes, order: str) -> Iterator[_Section]:
    (start,) = struct.unpack_from(order + "Q", content, 0x28)
    size, count = struct.unpack_from(order + "HH", content, 0x3A)
    for at in range(start, start + size * count, size):
        _, kind, _, _, offset, length, link = struct.unpack_from(order + "IIQQQQI", content, at)
        yield _Section(kind, content[offset : offset + length], link)


def _imported_symbols(table: bytes, names: bytes, order: str) -> Iterator[str]:
    for name, _, _, defined_in, _, _ in struct.iter_unpack(order + "IBBHQQ", table):
        if defined_in == 0:
            yield _text(names, name)


def _text(names: bytes, at: int) -> str:
    return os.fsdecode(names[at : names.index(b"\0", at)])
