"""Starts of sessions and those who wait for them: lines for people, and a caller who hangs up."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, TypeVar

import anyio

from colab_bridge.errors import TransientError
from colab_bridge.ports.clock import Clock

__all__ = ["Line", "StartReports", "caller_is", "unless_caller_leaves"]

_T = TypeVar("_T")

# Belongs to the request that is being served, wherever in the layers it is.
_CALLER: Final[ContextVar[anyio.Event | None]] = ContextVar("colab_bridge_caller", default=None)


@contextlib.contextmanager
def caller_is(gone: anyio.Event) -> Iterator[None]:
    """Say that what is done within is for a caller, and what is set when that one hangs up."""
    token = _CALLER.set(gone)
    try:
        yield
    finally:
        _CALLER.reset(token)


async def unless_caller_leaves(work: Callable[[], Awaitable[_T]]) -> _T:
    """Do something, and cancel it when the caller hangs up; where there is no caller, nothing ends it.

    Raises:
        TransientError: the caller has gone, so that nobody sees this.
    """
    gone = _CALLER.get()
    if gone is None:
        return await work()
    found: list[_T] = []
    failure: list[Exception] = []

    async def cancel_when_gone() -> None:
        await gone.wait()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_gone)
        try:
            found.append(await work())
        # Raised again outside, because a task group would wrap it.
        except Exception as error:  # noqa: BLE001
            failure.append(error)
        tasks.cancel_scope.cancel()
    if failure:
        raise failure[0]
    if not found:
        raise TransientError("whoever asked for it has gone", hint="send the request again")
    return found[0]


#: What is kept of one start; a wait of a day says less.
_MOST_LINES = 1_000
#: Seconds that the lines of a start stay after its end, for who has not read the last ones yet.
_KEEP_S = 30.0
#: Seconds that the question itself may have taken; the first line of a start is said at once, and must not be missed.
_ON_THE_WAY_S = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """Something that was said.

    Attributes:
        number: Grows over all starts.
        text: One line for people.
        said_at: Seconds of a monotonic clock.
    """

    number: int
    text: str
    said_at: float


@dataclass(slots=True)
class _Start:
    lines: list[Line] = field(default_factory=list)
    ended_at: float | None = None


class StartReports:
    """The lines of the starts that are under way, and of those that have just ended.

    Args:
        clock: Time source.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._starts: dict[str, list[_Start]] = {}
        self._number = 0

    @contextlib.contextmanager
    def begin(self, project: str) -> Iterator[Callable[[str], None]]:
        """Take the lines of one start of a project's session until the context is left.

        Yields:
            What is to be called with each line.
        """
        start = _Start()
        self._drop_old()
        self._starts.setdefault(project, []).append(start)

        def report(text: str) -> None:
            self._number += 1
            start.lines.append(Line(self._number, text, self._clock.monotonic()))
            del start.lines[:-_MOST_LINES]

        try:
            yield report
        finally:
            start.ended_at = self._clock.monotonic()

    def _drop_old(self) -> None:
        limit = self._clock.monotonic() - _KEEP_S
        for project, starts in list(self._starts.items()):
            kept = [start for start in starts if start.ended_at is None or start.ended_at > limit]
            self._starts[project] = kept
            if not kept:
                del self._starts[project]

    def lines(self, project: str, after: int, within_s: float) -> list[Line]:
        """Return what was said since, in order.

        Args:
            project: Absolute path of its root.
            after: Number of the last line that the caller has.
            within_s: Seconds for which the caller waits; what was said before is not for it.
        """
        began = self._clock.monotonic() - within_s - _ON_THE_WAY_S
        starts = self._starts.get(project, ())
        found = [each for start in starts for each in start.lines if each.number > after and each.said_at >= began]
        return sorted(found, key=lambda line: line.number)
