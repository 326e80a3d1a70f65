"""How far a run is, in one line."""

from __future__ import annotations

from typing import Any

from colab_bridge.cli.listing import span

__all__ = ["progress_text"]


def progress_text(progress: object) -> str:
    """Return the progress of a run as the API gives it in a few words; empty when nothing is known.

    For example ``cell 3 of 12, 45 % (450/1000), about 4 min left``.
    """
    if not isinstance(progress, dict):
        return ""
    parts: list[str] = []
    if progress.get("total"):
        done, total = int(progress.get("done") or 0), int(progress["total"])
        parts.append(f"cell {min(done + 1, total)} of {total}")
    if bar := _bar(progress):
        parts.append(bar)
    left, of_cell = progress.get("eta_s"), progress.get("cell_eta_s")
    if isinstance(left, (int, float)):
        parts.append(f"about {span(left)} left")
    elif isinstance(of_cell, (int, float)):
        parts.append(f"about {span(of_cell)} left in this cell")
    return ", ".join(parts)


def _bar(progress: dict[str, Any]) -> str:
    fraction, count, of = progress.get("fraction"), progress.get("n"), progress.get("of")
    percent = f"{100 * fraction:.0f} %" if isinstance(fraction, (int, float)) else ""
    both = isinstance(count, (int, float)) and isinstance(of, (int, float))
    numbers = f"{_short(float(count))}/{_short(float(of))}" if both else ""  # type: ignore[arg-type]  # both are numbers
    return f"{percent} ({numbers})" if percent and numbers else percent or numbers


def _short(number: float) -> str:
    """Return a number in at most six characters: ``1250``, ``3.2M``."""
    for limit, divisor, unit in ((1e5, 1.0, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "G")):
        if number < limit:
            return f"{number / divisor:.4g}{unit}" if unit else f"{number:.5g}"
    return f"{number / 1e12:.4g}T"
