"""The table that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import Figure, Measure, Row

__all__ = ["render", "verdict"]

_TITLES = ("what", "ours", "p95", "alternative", "its p95", "compared", "target", "holds")
_GAP = "  "


def render(rows: Iterable[Row]) -> str:
    """Return the table as text, without a line end behind the last line."""
    lines = [_TITLES, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    text = [_line(line, widths) for line in lines]
    text.insert(1, _GAP.join("-" * width for width in widths))
    return "\n".join(text)


def verdict(rows: Sequence[Row]) -> str:
    """Return one sentence about the promises among the rows."""
    promised = [row for row in rows if row.target is not None]
    missed = [row.what for row in promised if not row.holds]
    if missed:
        return f"{len(promised) - len(missed)} of {len(promised)} targets hold; missed: {', '.join(missed)}"
    return f"all {len(promised)} targets hold" if promised else "no targets among these"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.what,
        _number(row.ours.median, row.unit),
        _spread(row.ours, row.unit),
        f"{_number(row.other.median, row.unit)} ({row.against})" if row.other else "",
        _spread(row.other, row.unit) if row.other else "",
        _compared(row),
        _target(row),
        {True: "yes", False: "NO", None: ""}[row.holds],
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _spread(figure: Figure, unit: str) -> str:
    return _number(figure.p95, unit) if figure.count > 1 else ""


def _number(value: float, unit: str) -> str:
    """Write a number with about three digits that mean something."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def _measure(row: Row) -> Measure:
    return row.target.measure if row.target else row.measure


def _compared(row: Row) -> str:
    value = row.compared
    if value is None or _measure(row) is Measure.VALUE:
        return ""
    return (
        f"{value:.2f} x" if _measure(row) is Measure.RATIO else f"{'+' if value >= 0 else ''}{_number(value, row.unit)}"
    )


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    sign = ">=" if row.target.at_least else "<="
    if row.target.measure is Measure.RATIO:
        return f"{sign} {row.target.limit:g} x"
    plus = "+" if row.target.measure is Measure.DIFFERENCE else ""
    return f"{sign} {plus}{row.target.limit:g} {row.unit}"
