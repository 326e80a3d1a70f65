"""What is said while sessions start: lines for people, by project, for whoever waits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Line", "StartReports"]

#: What is kept of one start; a wait of a day says less.
_MOST_LINES = 1_000


@dataclass(frozen=True, slots=True)
class Line:
    """Something that was said; numbers grow over all starts."""

    number: int
    text: str


@dataclass(slots=True)
class _Start:
    lines: list[Line] = field(default_factory=list)


class StartReports:
    """The lines of the starts that are under way."""

    def __init__(self) -> None:
        self._starts: dict[str, list[_Start]] = {}
        self._number = 0

    @contextlib.contextmanager
    def begin(self, project: str) -> Iterator[Callable[[str], None]]:
        """Take the lines of one start of a project's session until the context is left.

        Yields:
            What is to be called with each line.
        """
        start = _Start()
        starts = self._starts.setdefault(project, [])
        starts.append(start)

        def report(text: str) -> None:
            self._number += 1
            start.lines.append(Line(self._number, text))
            del start.lines[:-_MOST_LINES]

        try:
            yield report
        finally:
            starts.remove(start)
            if not starts:
                self._starts.pop(project, None)

    @property
    def last(self) -> int:
        """Number of the latest line of all."""
        return self._number

    def lines(self, project: str, after: int) -> list[Line]:
        """Return what was said since, in order.

        Args:
            project: Absolute path of its root.
            after: Number of the last line that the caller has.
        """
        found = [line for start in self._starts.get(project, ()) for line in start.lines if line.number > after]
        return sorted(found, key=lambda line: line.number)
