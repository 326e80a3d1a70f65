"""Numbers, what they are measured against, and whether a promise holds. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Figure", "Measure", "Row", "Target", "summarize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a series of measurements comes to.

    Attributes:
        median: Its median.
        p95: The value that 95 of 100 are not worse than.
        count: How many values there were.
    """

    median: float
    p95: float
    count: int


def summarize(values: Sequence[float], *, larger_is_better: bool = False) -> Figure:
    """Return the median and the 95th percentile (nearest rank) of a series.

    Args:
        values: In any order.
        larger_is_better: Whether the bad end is the lower one, as with megabytes a second.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values, reverse=larger_is_better)
    rank = math.ceil(0.95 * len(ordered)) - 1
    return Figure(median=statistics.median(ordered), p95=ordered[rank], count=len(ordered))


class Measure(StrEnum):
    """How our figure is held against another one, or against a number alone."""

    DIFFERENCE = "difference"  # ours minus the other's
    RATIO = "ratio"  # ours divided by the other's
    VALUE = "value"  # ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A promise.

    Attributes:
        measure: What is compared.
        limit: With what.
        at_least: Whether more is better; otherwise less is.
    """

    measure: Measure
    limit: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a compared value keeps the promise."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        item: Name of the benchmark that measured it.
        what: What was measured.
        unit: Unit of both figures.
        ours: Our figure.
        other: The alternative's, measured in turn with ours; None where there is none.
        against: What the alternative is.
        target: The promise; None for a number that is only shown.
        measure: How the two are held against each other where there is no target.
    """

    item: str
    what: str
    unit: str
    ours: Figure
    other: Figure | None = None
    against: str = ""
    target: Target | None = None
    measure: Measure = Measure.RATIO

    @property
    def compared(self) -> float | None:
        """The value that counts, of the medians; None when there is nothing to compare with."""
        measure = self.target.measure if self.target else self.measure
        if measure is Measure.VALUE:
            return self.ours.median
        if self.other is None:
            return None
        if measure is Measure.DIFFERENCE:
            return self.ours.median - self.other.median
        return self.ours.median / self.other.median if self.other.median else math.inf

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept; None when there is none, or nothing to compare with."""
        compared = self.compared
        return None if self.target is None or compared is None else self.target.holds(compared)

    def as_json(self) -> dict[str, Any]:
        """Return the row for a JSON document."""
        target = self.target
        return {
            "item": self.item,
            "what": self.what,
            "unit": self.unit,
            "ours": _figure_json(self.ours),
            "other": _figure_json(self.other) if self.other else None,
            "against": self.against or None,
            "compared": self.compared,
            "measure": str(target.measure if target else self.measure) if self.other or target else None,
            "target": {"limit": target.limit, "at_least": target.at_least} if target else None,
            "holds": self.holds,
        }


def _figure_json(figure: Figure) -> dict[str, Any]:
    return {"median": figure.median, "p95": figure.p95, "count": figure.count}
