"""What is promised and whether it holds, without measuring anything."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3]))  # the benchmarks are no part of the installed package

from benchmarks.figures import Figure, Measure, Row, Target, summarize


def figure(median: float) -> Figure:
    return Figure(median=median, p95=median, count=1)


def row(ours: float, other: float | None, target: Target | None) -> Row:
    return Row(
        item="x", what="y", unit="ms", ours=figure(ours), other=None if other is None else figure(other), target=target
    )


@pytest.mark.parametrize(
    ("measure", "limit", "at_least", "ours", "other", "holds"),
    [
        (Measure.DIFFERENCE, 3.0, False, 8.0, 5.0, True),
        (Measure.DIFFERENCE, 3.0, False, 8.1, 5.0, False),
        (Measure.RATIO, 12.0, False, 24.0, 2.0, True),
        (Measure.RATIO, 12.0, False, 25.0, 2.0, False),
        (Measure.RATIO, 0.5, True, 50.0, 100.0, True),
        (Measure.RATIO, 0.5, True, 49.0, 100.0, False),
        (Measure.VALUE, 80.0, False, 80.0, None, True),
        (Measure.VALUE, 80.0, False, 81.0, None, False),
    ],
)
def test_a_promise_holds_up_to_its_limit(
    measure: Measure, limit: float, at_least: bool, ours: float, other: float | None, holds: bool
) -> None:
    assert row(ours, other, Target(measure=measure, limit=limit, at_least=at_least)).holds is holds


def test_a_number_without_a_promise_neither_holds_nor_fails() -> None:
    assert row(1.0, 2.0, None).holds is None


def test_a_comparison_without_an_alternative_is_no_comparison() -> None:
    assert row(1.0, None, Target(measure=Measure.RATIO, limit=1.0)).compared is None


def test_an_alternative_of_nothing_is_infinitely_better() -> None:
    assert row(1.0, 0.0, Target(measure=Measure.RATIO, limit=1.0)).compared == math.inf


def test_the_bad_end_of_a_rate_is_its_lower_one() -> None:
    values = [float(number) for number in range(1, 101)]
    assert summarize(values).p95 == 95.0
    assert summarize(values, larger_is_better=True).p95 == 6.0


def test_an_empty_series_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        summarize([])


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=1))
def test_median_and_p95_lie_within_the_series_in_that_order(values: list[float]) -> None:
    found = summarize(values)
    assert min(values) <= found.median <= found.p95 <= max(values)
    assert found.count == len(values)


def test_a_row_survives_json_with_what_was_promised() -> None:
    found = row(6.0, 2.0, Target(measure=Measure.RATIO, limit=2.5)).as_json()
    assert json.loads(json.dumps(found)) == found
    assert (found["compared"], found["holds"], found["measure"]) == (3.0, False, "ratio")
    assert found["target"] == {"limit": 2.5, "at_least": False}
