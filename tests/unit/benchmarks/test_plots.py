"""The plots of the benchmarks: which files there are, and what is in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.benchmarks.suite import fill, module, table

pytest.importorskip("matplotlib")
plots = module("plots")


def tables() -> list[Any]:
    made = [table(["motorlike", "pymongo", "limit"], at_once) for at_once in (1, 10)]
    for each in made:
        fill(each, "motorlike", [10, 12], [1, 1])
        fill(each, "pymongo", [5, None], [2, 2])
        list(each.cells.values())[-1].succeed({"cpu": 0.5})
    return made


def test_tables_that_differ_in_the_number_at_a_time_share_a_plot(tmp_path: Path) -> None:
    written = plots.draw(tables(), tmp_path / "new", ["svg", "png"])
    assert [path.suffix for path in written] == [".svg", ".png"]
    assert sorted(written) == sorted((tmp_path / "new").iterdir())
    assert written[1].read_bytes().startswith(b"\x89PNG")


def test_a_plot_names_the_clients_and_the_limit(tmp_path: Path) -> None:
    (written,) = plots.draw(tables(), tmp_path, ["svg"])
    # Text is drawn as shapes; what it says is in the comments.
    told = re.findall(r"<!-- (.*?) -->", written.read_text())
    assert {"motorlike", "limit", "ops/s", "CPU us/op", "1", "10"} <= set(told)
    assert "do nothing (plain)" in told


def test_tables_without_figures_are_not_drawn(tmp_path: Path) -> None:
    assert plots.draw([table(["motorlike"])], tmp_path, ["svg"]) == []


def test_a_peer_without_figures_leaves_a_gap(tmp_path: Path) -> None:
    made = table(["motorlike", "threads"])
    fill(made, "motorlike", [10, 12], [1, 1])
    assert len(plots.draw([made], tmp_path, ["svg"])) == 1
