"""Which large files stay at home."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .tree import Why

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Budget", "Candidate", "left_out"]

_DAY_NS = 86_400_000_000_000
_MOST_BYTES = 2**63


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

    def to_json(self) -> list[int]:
        """Return the wire form."""
        return [self.file, self.git_file, self.git_total]

    @classmethod
    def from_json(cls, row: list[object]) -> Self:
        """Check and read the wire form.

        Raises:
            ValueError: it is none.
        """
        numbers = [number for number in row if type(number) is int and 0 <= number < _MOST_BYTES]
        if len(row) != 3 or len(numbers) != 3:
            raise ValueError("these are no limits")
        return cls(*numbers)


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
