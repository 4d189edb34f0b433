"""The example that was written for Motor runs on both, with only its imports changed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from motorlike.testing.mongod import Deployment

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "orders.py"

IMPORTS = {
    "import motor\n": "import motorlike as motor\n",
    "from motor.motor_tornado import": "from motorlike.motor_tornado import",
    "from motor.web import": "from motorlike.web import",
}


def on_motorlike(source: str) -> str:
    for theirs, ours in IMPORTS.items():
        assert source.count(theirs) == 1
        source = source.replace(theirs, ours)
    return source


def output_of(path: Path, uri: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, str(path), uri, path.stem],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_imports_are_changed() -> None:
    before = EXAMPLE.read_text().splitlines()
    after = on_motorlike(EXAMPLE.read_text()).splitlines()
    changed = [line for line, new in zip(before, after, strict=True) if line != new]
    assert len(changed) == len(IMPORTS)
    assert all(re.match(r"(from|import) motor\b", line) for line in changed)


def test_example_prints_the_same_on_motor_and_on_motorlike(
    replica_set: Deployment, tmp_path: Path
) -> None:
    pytest.importorskip("motor")
    ours = tmp_path / "orders_on_motorlike.py"
    ours.write_text(on_motorlike(EXAMPLE.read_text()))
    theirs = output_of(EXAMPLE, replica_set.uri)
    assert "sold out: fig" in theirs
    assert output_of(ours, replica_set.uri, "-X", "dev", "-W", "error") == theirs
