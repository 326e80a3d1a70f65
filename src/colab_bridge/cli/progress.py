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
    numbers = f"{count:g}/{of:g}" if isinstance(count, (int, float)) and isinstance(of, (int, float)) else ""
    return f"{percent} ({numbers})" if percent and numbers else percent or numbers
