"""Which large files stay at home."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .tree import Why

__all__ = ["Budget", "Candidate", "left_out"]

_DAY_NS = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits in bytes.

    Attributes:
        file: For one file.
        git_file: For one file that Git ignores.
        git_total: For all files that Git ignores, together.
    """

    file: int = 512 * 2**20
    git_file: int = 100 * 2**20
    git_total: int = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may travel.

    Attributes:
        path: Where.
        size: Bytes.
        mtime_ns: Last change, nanoseconds since 1970.
        git_ignored: Its standing is ``BUDGET``; a path that was asked for by name is no candidate at all.
    """

    path: str
    size: int
    mtime_ns: int
    git_ignored: bool


def left_out(candidates: Iterable[Candidate], budget: Budget | None = None) -> dict[str, Why]:
    """Return the paths that stay at home, with the reason.

    Among the files that Git ignores the newest day comes first and within a day the smallest file; one that does not
    fit is passed over, smaller ones after it may still fit.
    """
    limits = budget or Budget()
    out: dict[str, Why] = {}
    ranked: list[tuple[int, int, str]] = []
    for item in candidates:
        if item.size > (limits.git_file if item.git_ignored else limits.file):
            out[item.path] = Why.TOO_BIG
        elif item.git_ignored:
            ranked.append((-(item.mtime_ns // _DAY_NS), item.size, item.path))
    used = 0
    for _, size, path in sorted(ranked):
        if used + size > limits.git_total:
            out[path] = Why.OVER_BUDGET
        else:
            used += size
    return out
