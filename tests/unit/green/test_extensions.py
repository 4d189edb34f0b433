"""Reading from a compiled file which socket calls it makes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from motorlike.green import extensions
from motorlike.green.extensions import socket_calls


def elf(imports: list[str], defines: list[str], needs: list[str], order: str = "<") -> bytes:
    """Return a 64-bit ELF file with a symbol table, and no code."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*imports, *defines, *needs])

    def at(name: str) -> int:
        return names.index(b"\0" + name.encode() + b"\0") + 1

    symbols = bytes(24)
    for name in [*imports, *defines]:
        defined_in = 1 if name in defines else 0
        symbols += struct.pack(order + "IBBHQQ", at(name), 0x12, 0, defined_in, 0, 0)
    links = b"".join(struct.pack(order + "QQ", 1, at(name)) for name in needs)
    links += struct.pack(order + "QQ", 0, 0)
    parts = [(0, b"", 0), (3, names, 0), (11, symbols, 1), (6, links, 1)]
    body, table = b"", b""
    for kind, content, link in parts:
        fields = (0, kind, 0, 0, 64 + len(body), len(content), link, 0, 0, 0)
        table += struct.pack(order + "IIQQQQIIQQ", *fields)
        body += content
    start = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + bytes(10)
    fields = (3, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(parts), 1)
    return start + struct.pack(order + "HHIQQQIHHHHHH", *fields) + body + table


@pytest.mark.parametrize("order", ["<", ">"])
def test_calls_that_are_imported_count(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(elf(["malloc", "recv", "connect"], [], [], order))
    assert socket_calls(str(path)) == ("connect", "recv")


def test_calls_of_the_same_name_that_it_defines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(elf(["malloc", "mysql_real_connect"], ["connect"], []))
    assert socket_calls(str(path)) == ()


def test_calls_of_the_libraries_that_it_needs_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libdb.so.3.1").write_bytes(elf(["connect"], [], ["libc.so.6"]))
    (tmp_path / "libdb.so.3").symlink_to("libdb.so.3.1")
    maps = f"7f00-7f01 r--p 00000000 08:01 1234   {tmp_path}/libdb.so.3.1\n7f02 rw-p 0 00:00 0\n"
    read_text = Path.read_text

    def read(path: Path, *args: Any, **kwargs: Any) -> str:
        return maps if path == Path("/proc/self/maps") else read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read)
    path = tmp_path / "a.so"
    path.write_bytes(elf([], [], ["libdb.so.3", "libnot_loaded.so.1"]))
    assert socket_calls(str(path)) == ("connect in libdb.so.3",)


@pytest.mark.parametrize("library", ["libc.so.6", "libpthread.so.0", "libcrypto.so.3"])
def test_the_runtime_and_ciphers_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setattr(extensions, "_loaded_library", lambda name: tmp_path / name)
    (tmp_path / library).write_bytes(elf(["connect"], [], []))
    path = tmp_path / "a.so"
    path.write_bytes(elf([], [], [library]))
    assert socket_calls(str(path)) == ()


@pytest.mark.parametrize(
    "names, calls",
    [
        (b"\0_malloc\0_connect\0", ("connect",)),
        (b"\0recv\0", ("recv",)),
        (b"\0_mysql_real_connect\0_connector\0", ()),
    ],
)
def test_in_other_formats_the_table_of_names_counts(
    tmp_path: Path, names: bytes, calls: tuple[str, ...]
) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(b"\xcf\xfa\xed\xfe" + names)
    assert socket_calls(str(path)) == calls


def test_a_file_that_has_gone_is_no_error(tmp_path: Path) -> None:
    assert socket_calls(str(tmp_path / "gone.so")) == ()


def test_a_damaged_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(elf(["connect"], [], [])[:70])
    assert socket_calls(str(path)) == ()
