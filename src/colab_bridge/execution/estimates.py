"""How far runs are and how long they still take: from their progress bars, and from how long the same code took before.

Times are kept by a hash of the code and of the project, so a cell that is edited begins anew, and the same line in
another project is another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from colab_bridge.errors import ColabBridgeError
from colab_bridge.execution.assembler import cell_of
from colab_bridge.execution.estimates_bars import BarReader
from colab_bridge.execution.executor import LONGEST_S, kernel_time
from colab_bridge.execution.outcome import Outcome
from colab_bridge.model.records import Run
from colab_bridge.ports.clock import Clock
from colab_bridge.store.store import Store
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["NOTHING_KNOWN", "Estimates", "code_key", "program_key", "time_left"]

#: The members of a run's progress that only a running one can have.
NOTHING_KNOWN: Mapping[str, Any] = {
    "label": None,
    "fraction": None,
    "n": None,
    "of": None,
    "rate": None,
    "unit": None,
    "elapsed_s": None,
    "cell_eta_s": None,
    "eta_s": None,
}

#: How far the clock of a runtime may be off before its times are not believed.
_CLOCK_SLACK_S = 5.0
#: What the JSON of a text with a progress bar holds; without one of them, the text need not even be decoded.
_BAR_MARKS = (rb"\r", rb"\b", b"%|")
_PROGRAM_PARTS = ("kind", "code", "source", "module", "command", "argv")


def code_key(project: str, source: str) -> str:
    """Return the name under which the times of a piece of code are kept."""
    return hashlib.sha256(f"{project}\0{source}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def program_key(spec: Mapping[str, Any]) -> str:
    """Return the same for a program with its arguments, from a run's request as it is stored."""
    parts = {name: spec.get(name) for name in _PROGRAM_PARTS}
    return code_key(str(spec.get("project")), json.dumps(parts, sort_keys=True, default=str))


def time_left(past: Iterable[float], elapsed_s: float) -> float | None:
    """Return how many seconds code still takes that has run for a while, judging by how long it took before.

    Only times longer than what has passed already can be those of this run.

    Returns:
        None when it never ran, or never this long.
    """
    longer = [seconds for seconds in past if seconds > elapsed_s]
    return statistics.median(longer) - elapsed_s if longer else None


@dataclass(slots=True)
class _Live:
    """What is known of one run while it runs.

    Attributes:
        past: Earlier times of each cell in order; one entry for a program.
        cells: Positions of the cells in order; a program counts as a cell at position 0.
    """

    run: Run
    keys: list[str]
    cells: list[int]
    past: list[list[float]]
    current: int | None = None
    started: float = 0.0
    begun_at: datetime | None = None
    reply_ok: bool | None = None
    idle_at: datetime | None = None
    bars: BarReader = field(default_factory=BarReader)


class Estimates:
    """Implements :class:`~colab_bridge.execution.jobs_observer.RunObserver`.

    Args:
        store: Where times are kept.
        clock: Time source.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._live: dict[str, _Live] = {}

    # -- what runs tell --------------------------------------------------------------------------------------

    def began(self, run: Run, *, resumed: bool) -> None:
        """Look up how long the code of a run took before."""
        planned, kept = run.progress.get("cells"), run.spec.get("code_keys")
        cells = [int(cell) for cell in planned] if isinstance(planned, list) else [0]
        keys = [str(key) for key in kept] if isinstance(kept, list) else [program_key(run.spec)]
        past: list[list[float]] = []
        with contextlib.suppress(ColabBridgeError):  # an estimate is no reason to fail
            past = [self._store.durations(key) for key in keys]
        self._live[run.id] = _Live(run=run, keys=keys, cells=cells, past=past)

    def message(self, run_id: str, message: RawMessage) -> None:
        """Follow the cells of a run and the bars in their output."""
        live = self._live.get(run_id)
        if live is None:
            return
        with contextlib.suppress(MessageError):
            kind = message.msg_type
            if kind == "stream" and any(mark in message.content for mark in _BAR_MARKS):
                text = message.content_fields().get("text")
                if isinstance(text, str):
                    live.bars.feed(text, self._clock.monotonic())
            elif kind in ("status", "execute_reply"):
                position = cell_of(run_id, message.parent_id)
                if position in live.cells:
                    self._step(live, live.cells.index(position), message)

    def _step(self, live: _Live, index: int, message: RawMessage) -> None:
        content = message.content_fields()
        if message.msg_type == "execute_reply":
            if index == live.current:
                live.reply_ok = content.get("status") == "ok"
        elif content.get("execution_state") == "busy":
            self._begin_cell(live, index, message)
        elif content.get("execution_state") == "idle" and index == live.current:
            live.idle_at = kernel_time(message)
        if live.reply_ok is not None and live.idle_at is not None:
            self._end_cell(live)

    def _begin_cell(self, live: _Live, index: int, message: RawMessage) -> None:
        now, said = self._clock.time(), kernel_time(message)
        live.current, live.begun_at = index, said
        live.reply_ok, live.idle_at, live.bars = None, None, BarReader()
        # After a take-over the message is old; its own time is right if the runtime's clock is.
        believable = said is not None and live.run.created_at - _CLOCK_SLACK_S <= said.timestamp() <= now
        live.started = said.timestamp() if said is not None and believable else now

    def _end_cell(self, live: _Live) -> None:
        index, live.current = live.current, None
        if index is None or not live.reply_ok or live.begun_at is None or live.idle_at is None:
            return
        # Two times of one clock, whatever that clock says; right also when both were read long afterwards.
        seconds = (live.idle_at - live.begun_at).total_seconds()
        if index < len(live.keys) and 0 <= seconds <= LONGEST_S:
            with contextlib.suppress(ColabBridgeError):
                self._store.add_duration(live.keys[index], seconds)

    def answered(self, run_id: str) -> None:
        """Nothing: the time that a person takes is part of the time that a cell takes."""

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Forget a run."""
        self._live.pop(run.id, None)

    # -- what is asked ---------------------------------------------------------------------------------------

    def progress(self, run_id: str) -> dict[str, Any]:
        """Return how far a run is: the members of :data:`NOTHING_KNOWN`, None where something is not known."""
        live = self._live.get(run_id)
        if live is None or live.current is None:
            return dict(NOTHING_KNOWN)
        elapsed = max(0.0, self._clock.time() - live.started)
        bar = live.bars.current(self._clock.monotonic())
        known = live.past[live.current] if live.current < len(live.past) else []
        left = bar.eta_s if bar is not None and bar.eta_s is not None else time_left(known, elapsed)
        found = dict(NOTHING_KNOWN)
        if bar is not None:
            found |= {"label": bar.label or None, "fraction": _rounded(bar.fraction, 4), "n": bar.n, "of": bar.of}
            found |= {"rate": _rounded(bar.rate, 3), "unit": bar.unit or None}
        found |= {"elapsed_s": round(elapsed, 1), "cell_eta_s": _rounded(left, 1)}
        if len(live.past) == len(live.cells):
            found["eta_s"] = _rounded(_whole(left, live.past[live.current + 1 :]), 1)
        return found


def _whole(left: float | None, following: list[list[float]]) -> float | None:
    """Return the time left of a whole run; None unless that of each of its cells is known."""
    if left is None or not all(following):
        return None
    return left + sum(statistics.median(past) for past in following)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
