"""What is packed into a wheel: every package, the benchmarks among them."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def packages_below(folder: str) -> set[str]:
    found = (ROOT / folder).rglob("__init__.py")
    return {".".join(path.parent.relative_to(ROOT).parts) for path in found}


def test_every_package_is_in_the_list_of_setup_cfg() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    benchmarks = {
        name.replace("benchmarks", "motorlike._benchmarks", 1)
        for name in packages_below("benchmarks")
    }
    assert listed == packages_below("motorlike") | benchmarks
