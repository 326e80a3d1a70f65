"""The table that people read."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # the benchmarks are no part of the installed package

from benchmarks.figures import Figure, Measure, Row, Target
from benchmarks.table import render, verdict


def row(ours: float, other: float | None, target: Target | None, *, what: str = "cell", count: int = 3) -> Row:
    return Row(
        item="x",
        what=what,
        unit="ms",
        ours=Figure(median=ours, p95=ours * 2, count=count),
        other=None if other is None else Figure(median=other, p95=other * 2, count=count),
        against="direct",
        target=target,
        measure=Measure.DIFFERENCE,
    )


KEPT = row(6.0, 4.0, Target(measure=Measure.DIFFERENCE, limit=3.0))
MISSED = row(50.0, 2.0, Target(measure=Measure.RATIO, limit=12.0), what="command")


def test_a_line_says_both_figures_the_comparison_the_target_and_the_verdict() -> None:
    line = render([KEPT]).splitlines()[2]
    assert line.split("  ")[0] == "cell"
    for part in ("6.00 ms", "12.0 ms", "4.00 ms (direct)", "8.00 ms", "+2.00 ms", "<= +3 ms", "yes"):
        assert part in line


def test_a_missed_target_stands_out() -> None:
    line = render([MISSED]).splitlines()[2]
    assert line.endswith("NO")
    assert "25.00 x" in line


def test_columns_line_up_and_no_line_ends_with_blanks() -> None:
    lines = render([KEPT, MISSED]).splitlines()
    at = lines[0].index("ours")
    assert [line[at - 1] for line in lines] == [" "] * 4
    assert all(line == line.rstrip() for line in lines)


def test_a_single_measurement_shows_no_spread() -> None:
    assert "12.0 ms" not in render([row(6.0, None, None, count=1)])


def test_a_number_alone_shows_neither_comparison_nor_verdict() -> None:
    assert render([row(1234.5, None, None, count=1)]).splitlines()[2].split() == ["cell", "1,234", "ms"]


def test_the_verdict_names_what_was_missed() -> None:
    assert verdict([KEPT, MISSED]) == "1 of 2 targets hold; missed: command"


def test_the_verdict_counts_only_promises() -> None:
    assert verdict([KEPT, row(1.0, None, None)]) == "all 1 targets hold"
    assert verdict([row(1.0, None, None)]) == "no targets among these"
