"""The tables of the benchmarks, and their JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.benchmarks.suite import fill, module, peers, table

report = module("report")
options = module("options")


def rows(rendered: str) -> dict[str, list[str]]:
    """The cells of a Markdown table, by the first of each line."""
    lines = [line.strip("|").split("|") for line in rendered.splitlines() if line[:1] == "|"]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines}


def test_a_row_has_medians_spread_and_ratios() -> None:
    filled = table(["motorlike", "threads", "limit"])
    fill(filled, "motorlike", [2000, 2200, 1800], [20, 20, 20])
    fill(filled, "threads", [1000, 1100, 900], [40, 40, 40])
    for cpu in (10, 10, 10):
        list(filled.cells.values())[-1].succeed({"cpu": cpu})
    found = rows(report.render(filled))
    heading = ["ops/s", "CPU us/op", "ops/s ratio", "CPU us/op ratio", "CPU to limit"]
    assert found["client"] == heading
    assert found["motorlike"] == ["2,000 ±10%", "20.0 ±0%", "1.00", "1.00", "2.00"]
    assert found["threads"] == ["1,000 ±10%", "40.0 ±0%", "2.00", "0.50", "4.00"]
    assert found["limit"] == ["-", "10.0 ±0%", "-", "-", "1.00"]


def test_the_title_says_task_number_and_transport() -> None:
    title = report.render(table(["motorlike"])).splitlines()[0]
    assert title.strip("*").endswith("do nothing, 10 at a time, plain")


def test_columns_are_aligned() -> None:
    filled = table(["motorlike", "pymongo-async"])
    fill(filled, "motorlike", [123456], [1])
    fill(filled, "pymongo-async", [1], [1])
    lines = [line for line in report.render(filled).splitlines() if line[:1] == "|"]
    assert len({len(line) for line in lines}) == 1


def test_a_peer_that_is_missing_has_a_row_and_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(peers.PEERS["mongojet"], module="a_module_that_is_absent")
    monkeypatch.setitem(peers.PEERS, "mongojet", absent)
    filled = table(["motorlike", "mongojet"])
    fill(filled, "motorlike", [10], [1])
    rendered = report.render(filled)
    assert set(rows(rendered)["mongojet"]) == {"-"}
    assert "\n- mongojet: not installed: pip install mongojet\n" in rendered


def test_a_crash_in_some_rounds_is_told_beside_the_figures() -> None:
    filled = table(["motorlike"])
    fill(filled, "motorlike", [10, None, 12], [1, 1, 1])
    rendered = report.render(filled)
    assert rows(rendered)["motorlike"][0] == "11.0 ±9%"
    assert "- motorlike: 1 of 3 rounds failed: crashed with SIGSEGV" in rendered


def test_a_reason_that_several_share_is_told_once() -> None:
    filled = table(["motorlike", "motor", "threads"])
    for cell in filled.cells.values():
        cell.give_up("there is no data")
    notes = [line for line in report.render(filled).splitlines() if line[:2] == "- "]
    assert notes == ["- motorlike, motor, threads: there is no data"]


def test_a_figure_of_one_round_claims_no_spread() -> None:
    filled = table(["motorlike"])
    fill(filled, "motorlike", [10, None], [1, 1])
    assert rows(report.render(filled))["motorlike"][:2] == ["10.0", "1.00"]


def test_a_run_that_was_cut_short_says_so() -> None:
    made = report.circumstances(options.parse([], "bench"))
    assert not any("cut short" in line for line in made.lines())
    assert "cut short" in replace(made, was_cut_short=True).lines()[-1]


@pytest.mark.parametrize(
    "value, text",
    [(1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.0, "0.00")],
)
def test_numbers_keep_the_digits_that_mean_something(value: float, text: str) -> None:
    assert report.number(value) == text


def test_the_json_has_each_round_and_how_it_was_made() -> None:
    filled = table(["motorlike", "threads"])
    fill(filled, "motorlike", [10, None], [1, 1])
    fill(filled, "threads", [5, 5], [2, 2])
    made = report.circumstances(options.parse(["--rounds", "2", "--uri", "a b"], "bench"))
    read = json.loads(json.dumps(report.as_json([filled], made)))
    assert read["circumstances"]["command"] == "bench --rounds 2 --uri 'a b'"
    assert {"Python", "pymongo", "motorlike"} <= read["circumstances"]["versions"].keys()
    ours, theirs = read["tables"][0]["cells"]
    assert ours["rounds"] == [{"rate": 10, "cpu": 1}, None]
    assert ours["problem"] == "crashed with SIGSEGV"
    assert (theirs["medians"], theirs["ratios"]) == ({"rate": 5, "cpu": 2}, {"rate": 2, "cpu": 0.5})


def test_the_circumstances_name_command_machine_versions_and_amounts() -> None:
    given = options.parse(["--quick", "--pool-size", "7"], "python -m benchmarks")
    text = "\n".join(report.circumstances(given).lines())
    assert "`python -m benchmarks --quick --pool-size 7`" in text
    assert " cores, " in text
    assert "Python 3." in text
    assert "2 interleaved rounds of 0.2 s" in text
    assert "maxPoolSize 7" in text
    assert "quick run" in text
