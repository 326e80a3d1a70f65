"""What a call of the Python API returns."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from colab_bridge.errors import ColabBridgeError, RuntimeLostError

__all__ = ["CellError", "ExecutionFailed", "Result", "collect"]

Event = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellError:
    """An exception that user code raised.

    Attributes:
        ename: Class name.
        evalue: Text.
        traceback: Lines as the kernel formatted them, with ANSI colours.
    """

    ename: str
    evalue: str
    traceback: tuple[str, ...] = ()


class ExecutionFailed(ColabBridgeError):
    """User code raised; ``result`` holds everything up to there."""

    default_code = "CB-RUN-001"

    def __init__(self, result: Result) -> None:
        error = result.error
        text = f"{error.ename}: {error.evalue}" if error else f"exit status {result.exit_code}"
        super().__init__(text, hint=result.fix or "see .result.error.traceback")
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run went.

    Attributes:
        run_id: Id of the run, for ``colab-bridge logs``.
        status: ``ok``, ``error``, ``interrupted`` or ``lost``.
        exit_code: What the command line would end with.
        stdout: Everything printed.
        stderr: Everything printed to stderr.
        outputs: MIME bundles in order, as displayed; the value of the last expression is among them.
        value: ``text/plain`` of the value of the last expression; None without one.
        error: The exception; None without one.
        duration_s: Seconds from start to end.
        output_may_be_lost: Empty, or why output may be missing.
        files: Files that a notebook run wrote.
        notices: What the tool said of the run, such as ``sync: 1 up, 1 down: models/m.pkl, data/sales.csv``.
        fix: What helps against the error, where the tool knows it; empty otherwise.
    """

    run_id: str
    status: str
    exit_code: int
    stdout: str = ""
    stderr: str = ""
    outputs: tuple[dict[str, Any], ...] = ()
    value: str | None = None
    error: CellError | None = None
    duration_s: float = 0.0
    output_may_be_lost: str = ""
    files: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    fix: str = ""

    @property
    def ok(self) -> bool:
        """Whether the run ended without an error."""
        return self.status == "ok"

    @property
    def text(self) -> str:
        """What a terminal would show: stdout, then the value of the last expression."""
        return self.stdout + (self.value + "\n" if self.value is not None else "")

    def images(self) -> list[bytes]:
        """Return the PNG images that were displayed."""
        found = []
        for bundle in self.outputs:
            data = bundle.get("image/png")
            if isinstance(data, list):
                data = "".join(data)
            if isinstance(data, str):
                try:
                    found.append(base64.b64decode(data))
                except binascii.Error:
                    continue
        return found

    def raise_for_error(self) -> Result:
        """Return self, or raise where the run did not end well.

        Raises:
            ExecutionFailed: user code raised or exited with a status other than 0.
            RuntimeLostError: the machine or the kernel went away.
        """
        if self.status == "lost":
            raise RuntimeLostError(self.error.evalue if self.error else "the kernel was lost", hint="run it again")
        if not self.ok:
            raise ExecutionFailed(self)
        return self


@dataclass(slots=True)
class _Collector:
    run_id: str = ""
    streams: dict[str, list[str]] = field(default_factory=lambda: {"stdout": [], "stderr": []})
    outputs: list[dict[str, Any]] = field(default_factory=list)
    displays: dict[str, list[int]] = field(default_factory=dict)
    value: str | None = None
    error: CellError | None = None
    lost: str = ""
    notices: list[str] = field(default_factory=list)
    fix: str = ""
    clear_next: bool = False

    def take(self, event: Event) -> None:
        kind = event["type"]
        if kind == "started":
            self.run_id = str(event["run"]["id"])
        elif kind == "lost":
            self.lost = str(event.get("text", ""))
        elif kind == "notice":
            self.notices.append(f"{event.get('level') or 'note'}: {event.get('text')}")
            self.fix = str(event.get("fix") or self.fix)
        elif kind == "clear_output":
            self.clear_next = bool(event.get("wait"))
            if not self.clear_next:
                self.clear()
        elif kind == "update_display":
            for index in self.displays.get(str(event.get("display_id")), []):
                self.outputs[index] = event["data"]
        elif kind in ("stream", "display", "result", "error"):
            self.output(kind, event)

    def output(self, kind: str, event: Event) -> None:
        if self.clear_next:
            self.clear()
        if kind == "stream":
            self.streams.setdefault(event["name"], []).append(event["text"])
        elif kind == "error":
            self.error = CellError(ename=event["ename"], evalue=event["evalue"], traceback=tuple(event["traceback"]))
        else:
            if event.get("display_id"):
                self.displays.setdefault(str(event["display_id"]), []).append(len(self.outputs))
            self.outputs.append(event["data"])
            if kind == "result":
                text = event["data"].get("text/plain")
                self.value = "".join(text) if isinstance(text, list) else text

    def clear(self) -> None:
        self.clear_next = False
        self.outputs.clear()
        self.displays.clear()
        for parts in self.streams.values():
            parts.clear()


def collect(
    events: Iterable[Event],
    *,
    on_event: Callable[[Event], None] | None = None,
    answer: Callable[[str, Event], None] | None = None,
) -> Result:
    """Fold the events of a run into one result.

    Args:
        events: All events, up to ``finished``.
        on_event: Called with each of them, for progress.
        answer: Called with run id and event when the run asks for input.
    """
    collector = _Collector()
    last: Event = {}
    for event in events:
        collector.take(event)
        if on_event is not None:
            on_event(event)
        if event["type"] == "input_request" and answer is not None:
            answer(collector.run_id, event)
        if event["type"] == "finished":
            last = event
    error = collector.error
    if error is None and last.get("error"):
        error = CellError(ename=last["error"]["ename"], evalue=last["error"]["evalue"])
    return Result(
        run_id=collector.run_id,
        status=str(last.get("status", "lost")),
        exit_code=int(last.get("exit_code") or 0),
        stdout="".join(collector.streams["stdout"]),
        stderr="".join(collector.streams["stderr"]),
        outputs=tuple(collector.outputs),
        value=collector.value,
        error=error,
        duration_s=float(last.get("duration_s") or 0.0),
        output_may_be_lost=collector.lost,
        files=tuple(last.get("outputs") or ()),
        notices=tuple(collector.notices),
        fix=collector.fix,
    )
