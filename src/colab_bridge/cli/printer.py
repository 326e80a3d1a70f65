"""The events of a run as a terminal shows them, or as one JSON document."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from colab_bridge.cli.artifacts import Artifacts, has_picture
from colab_bridge.cli.console import Console, plain

__all__ = ["ByType", "JsonPrinter", "Printer", "ProgramPrinter"]

Event = dict[str, Any]

_QUIET_S = 1.0


class Printer(Protocol):
    """Shows the events of one run."""

    def show(self, event: Event) -> None:
        """Show one event."""
        ...

    def tick(self) -> None:
        """Called about once a second, also while nothing happens."""
        ...

    def end(self) -> None:
        """Called after the last event."""
        ...


class ByType:
    """Hands each event to the method named after its type, where there is one."""

    def show(self, event: Event) -> None:
        """Show one event."""
        handler = getattr(self, f"_on_{event['type']}", None)
        if handler is not None:
            handler(event)


class ProgramPrinter(ByType):
    """Shows a program's output as if it ran here.

    Args:
        console: The terminal.
        outputs: Folder in which pictures are kept.
        run_id: The run, if it is known already.
        starting: What is being waited for before the run begins.
    """

    def __init__(self, console: Console, outputs: Path, run_id: str = "", *, starting: str = "") -> None:
        self._console = console
        self._outputs = outputs
        self._artifacts = Artifacts(outputs, run_id)
        self._starting = starting
        self._begun = time.monotonic()
        self._names: dict[str, str] = {}  # display id to file name, for updates in place
        self._texts: dict[str, str] = {}  # display id to the text shown last
        self._error_shown = False

    def tick(self) -> None:
        """Say what is waited for, when it takes more than a moment."""
        waited = time.monotonic() - self._begun
        if self._starting and waited >= _QUIET_S:
            self._console.progress(f"{self._starting} ... {waited:.0f} s")

    def end(self) -> None:
        """Nothing is left to say after a program."""
        self._console.clear_progress()

    def _on_started(self, event: Event) -> None:
        begun_here, self._starting = bool(self._starting), ""
        self._console.clear_progress()
        run = event.get("run")
        if isinstance(run, dict):
            if begun_here:
                self._console.account(run.get("account"))
            self._artifacts = Artifacts(self._outputs, str(run.get("id")))

    def _on_stream(self, event: Event) -> None:
        text = str(event.get("text", ""))
        if event.get("name") == "stderr":
            self._console.err(text)
        else:
            self._console.out(text)

    def _on_result(self, event: Event) -> None:
        data = _bundle(event)
        if "text/plain" in data:
            self._console.out(_text(data["text/plain"]) + "\n")
        self._save(event, data)

    def _on_display(self, event: Event) -> None:
        data = _bundle(event)
        if "text/plain" in data and not has_picture(data):
            text = _text(data["text/plain"])
            identity = str(event.get("display_id") or "")
            if not identity or self._texts.get(identity) != text:
                self._console.out(text + "\n")
                self._texts[identity] = text
        self._save(event, data)

    _on_update_display = _on_display

    def _save(self, event: Event, data: dict[str, Any]) -> None:
        identity = str(event.get("display_id") or "")
        name = self._names.get(identity) if identity else None
        new = name is None
        if name is None:
            name = f"output-{event.get('seq', 0)}"
            if identity:
                self._names[identity] = name
        try:
            path = self._artifacts.save(data, name)
        except OSError as error:
            self._console.note(f"an image could not be saved: {error.strerror or error}")
            return
        if path is not None and new:
            self._console.note(f"saved: {path}")

    def _on_error(self, event: Event) -> None:
        self._error_shown = True
        lines = event.get("traceback")
        if isinstance(lines, list) and lines:
            self._console.traceback(lines)
        else:
            self._console.note(f"{event.get('ename') or 'error'}: {event.get('evalue')}")

    def _on_clear_output(self, event: Event) -> None:
        # What has scrolled by cannot be taken back; the line in hand can.
        if self._console.out_tty and not event.get("wait"):
            self._console.out("\r\x1b[2K")

    def _on_cell_started(self, event: Event) -> None:
        self._console.note(f"[{event.get('index')}/{event.get('total')}] {event.get('line') or ''}".rstrip())

    def _on_notice(self, event: Event) -> None:
        say_notice(self._console, event)

    def _on_link(self, event: Event) -> None:
        say_link(self._console, event)

    def _on_lost(self, event: Event) -> None:
        self._console.note(f"warning: output may be missing here: {event.get('text')}")

    def _on_finished(self, event: Event) -> None:
        error = event.get("error")
        interrupted_quietly = event.get("status") == "interrupted"
        if isinstance(error, dict) and error.get("ename") and not self._error_shown and not interrupted_quietly:
            self._console.note(f"{error.get('ename')}: {error.get('evalue')}")
        if event.get("status") == "lost" and not error:
            self._console.note("the run was lost: its kernel is gone")


class JsonPrinter:
    """Collects a run and prints it as one document at its end.

    Args:
        console: The terminal.
        outputs: Folder in which pictures are kept.
        run_id: The run, if it is known already.
    """

    def __init__(self, console: Console, outputs: Path, run_id: str = "") -> None:
        self._console = console
        self._outputs = outputs
        self._artifacts = Artifacts(outputs, run_id)
        self._run: dict[str, Any] = {"id": run_id or None}
        self._text: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._result: str | None = None
        self._error: dict[str, Any] | None = None
        self._lost: list[str] = []
        self._finished: Event = {}

    def tick(self) -> None:
        """Show nothing: stdout is for the document alone."""

    def show(self, event: Event) -> None:
        """Collect one event."""
        kind = event["type"]
        if kind == "started" and isinstance(event.get("run"), dict):
            self._run = event["run"]
            self._artifacts = Artifacts(self._outputs, str(self._run.get("id")))
        elif kind == "stream":
            self._text["stderr" if event.get("name") == "stderr" else "stdout"].append(str(event.get("text", "")))
        elif kind in ("result", "display", "update_display"):
            self._bundle(event)
        elif kind == "error":
            lines = [plain(str(line)) for line in event.get("traceback") or []]
            self._error = {"ename": event.get("ename"), "evalue": event.get("evalue"), "traceback": lines}
        elif kind == "lost":
            self._lost.append(str(event.get("text")))
        elif kind == "notice" and event.get("level") != "info":
            say_notice(self._console, event)
        elif kind == "finished":
            self._finished = event

    def _bundle(self, event: Event) -> None:
        data = _bundle(event)
        if event["type"] == "result" and "text/plain" in data:
            self._result = _text(data["text/plain"])
        try:
            self._artifacts.save(data, f"output-{event.get('seq', 0)}")
        except OSError as error:
            self._console.note(f"an image could not be saved: {error.strerror or error}")

    def end(self) -> None:
        """Print the document."""
        final, run = self._finished, self._run
        self._console.json(
            {
                "run": run.get("id"),
                "session": run.get("session"),
                "kind": run.get("kind"),
                "title": run.get("title"),
                "status": final.get("status") or run.get("status") or "running",
                "exit_code": final.get("exit_code"),
                "duration_s": final.get("duration_s"),
                "stdout": "".join(self._text["stdout"]),
                "stderr": "".join(self._text["stderr"]),
                "result": self._result,
                "error": self._error or final.get("error"),
                "files": self._artifacts.paths,
                "notebook": run.get("notebook"),
                "outputs": final.get("outputs") or [],
                "output_may_be_lost": "; ".join(self._lost),
            }
        )


def say_notice(console: Console, event: Event) -> None:
    """Show words of the tool: what is only information, to a person alone."""
    text = str(event.get("text", ""))
    if event.get("level") == "info":
        console.hint(text)
    else:
        console.note(f"{event.get('level') or 'note'}: {text}")


def say_link(console: Console, event: Event) -> None:
    """Show that the way to the runtime is not what it was."""
    if event.get("state") == "connected":
        console.hint(str(event.get("text") or "connected again"))
    else:
        console.note(str(event.get("text") or event.get("state")))


def _bundle(event: Event) -> dict[str, Any]:
    data = event.get("data")
    return data if isinstance(data, dict) else {}


def _text(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)
