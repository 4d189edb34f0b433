"""Encryption is imported by those who use it, and found where it always was."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import motorlike

NAMES = {
    "motorlike": "MotorClientEncryption",
    "motorlike.core": "AgnosticClientEncryption",
    "motorlike.motor_asyncio": "AsyncIOMotorClientEncryption",
    "motorlike.motor_tornado": "MotorClientEncryption",
}

IMPORTED = """
import importlib, sys
{do}
names = ("pymongocrypt", "pymongo.encryption_options", "motorlike.wrappers.encryption")
print([name for name in names if name in sys.modules])
"""


def imported_by(do: str) -> list[str]:
    """Run *do* in a new process, and return which modules of encryption that imports."""
    source = IMPORTED.format(do=do)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True
    )
    return [each.strip("'") for each in done.stdout.strip("[]\n").split(", ") if each]


@pytest.mark.parametrize("module", [*NAMES, "motorlike.web", "motorlike.libraries"])
def test_who_encrypts_nothing_imports_no_encryption(module: str) -> None:
    pytest.importorskip("pymongocrypt")
    assert imported_by(f"importlib.import_module({module!r})") == []


def test_a_client_without_encryption_imports_none() -> None:
    pytest.importorskip("pymongocrypt")
    assert imported_by("from motorlike import MotorClient; MotorClient()") == []


@pytest.mark.parametrize(("module", "name"), NAMES.items())
def test_who_asks_for_the_name_gets_the_class_and_its_imports(module: str, name: str) -> None:
    pytest.importorskip("pymongocrypt")
    modules = ["pymongocrypt", "pymongo.encryption_options", "motorlike.wrappers.encryption"]
    assert imported_by(f"from {module} import {name}") == modules
    assert imported_by(f"from {module} import *; {name}") == modules


@pytest.mark.parametrize(("module", "name"), NAMES.items())
def test_the_name_is_listed_and_stays(module: str, name: str) -> None:
    home = importlib.import_module(module)
    assert name in dir(home)
    assert dir(home) == sorted(set(dir(home)))
    found = getattr(home, name)
    assert vars(home)[name] is found
    assert getattr(home, name) is found


def test_both_families_have_a_class_of_their_own() -> None:
    ours = importlib.import_module("motorlike.motor_asyncio").AsyncIOMotorClientEncryption
    assert ours is not motorlike.MotorClientEncryption
    assert issubclass(ours, motorlike.core.AgnosticClientEncryption)
    assert ours.__name__ == "AsyncIOMotorClientEncryption"


@pytest.mark.parametrize("module", NAMES)
def test_a_name_that_is_nowhere_is_an_attribute_error(module: str) -> None:
    home = importlib.import_module(module)
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'MotorCleint'"):
        _ = home.MotorCleint
    with pytest.raises(ImportError, match="MotorCleint"):
        exec(f"from {module} import MotorCleint")


def test_options_that_are_none_are_refused_as_pymongo_does() -> None:
    with pytest.raises(TypeError, match="auto_encryption_opts must be an instance"):
        motorlike.MotorClient(auto_encryption_opts={"kms_providers": {}})
