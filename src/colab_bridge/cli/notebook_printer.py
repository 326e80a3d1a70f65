"""A notebook run in a terminal: one line per cell, and at the end where everything is."""

from __future__ import annotations

import os
import time
from typing import Any

from colab_bridge.cli.artifacts import has_picture
from colab_bridge.cli.console import Console
from colab_bridge.cli.printer import ByType, say_link, say_notice

__all__ = ["NotebookPrinter"]

Event = dict[str, Any]

_QUIET_S = 1.0
_PLOTS = (".png", ".jpg", ".jpeg", ".svg", ".pdf", ".gif", ".webp", ".html")
_MAX_FILES_SHOWN = 10


class NotebookPrinter(ByType):
    """Shows progress cell by cell on stderr; the outputs themselves go into the notebook.

    Args:
        console: The terminal.
        notebook: Where the outputs are written.
        cwd: Folder that shown paths are relative to.
        starting: What is being waited for before the first cell.
    """

    def __init__(self, console: Console, notebook: str, cwd: str, *, starting: str = "") -> None:
        self._console = console
        self._notebook = notebook
        self._cwd = cwd
        self._doing = starting
        self._since = time.monotonic()
        self._running = False
        self._pictures = 0
        self._errors = 0

    def tick(self) -> None:
        """Show how long the cell in hand has taken."""
        waited = time.monotonic() - self._since
        if self._doing and (self._running or waited >= _QUIET_S):
            self._console.progress(f"{self._doing} ... {waited:.0f} s")

    def end(self) -> None:
        """Remove the line of the cell in hand."""
        self._console.clear_progress()

    def _on_started(self, event: Event) -> None:
        begun_here, self._doing = bool(self._doing), ""
        run = event.get("run")
        if isinstance(run, dict):
            self._notebook = str(run.get("notebook") or self._notebook)
            if begun_here:
                self._console.account(run.get("account"))
        self._console.hint(f"{_count(event.get('cells'), 'cell')} to run in {self._shown(self._notebook)}")

    def _on_cell_started(self, event: Event) -> None:
        self._doing = f"[{event.get('index')}/{event.get('total')}] {event.get('line') or ''}".rstrip()
        self._since = time.monotonic()
        self._running = True
        self.tick()

    def _on_cell_finished(self, event: Event) -> None:
        width = self._console.columns - 18 if self._console.err_tty else 80
        duration = event.get("duration_s")
        took = f"{duration:6.1f} s" if isinstance(duration, (int, float)) else ""
        doing = self._doing or f"[{event.get('index')}/{event.get('total')}]"
        self._doing = ""
        self._running = False
        self._console.note(
            f"{doing[:width]:<{width if self._console.err_tty else 0}}  {event.get('status')} {took}".rstrip()
        )

    def _on_display(self, event: Event) -> None:
        data = event.get("data")
        if isinstance(data, dict) and has_picture(data):
            self._pictures += 1

    _on_result = _on_display

    def _on_error(self, event: Event) -> None:
        self._errors += 1
        self._console.traceback(event.get("traceback") or [f"{event.get('ename') or 'error'}: {event.get('evalue')}"])

    def _on_notice(self, event: Event) -> None:
        say_notice(self._console, event)

    def _on_link(self, event: Event) -> None:
        say_link(self._console, event)

    def _on_lost(self, event: Event) -> None:
        self._console.note(f"warning: output may be missing here: {event.get('text')}")

    def _on_finished(self, event: Event) -> None:
        self._doing = ""
        error = event.get("error")
        if isinstance(error, dict) and error.get("ename") and not self._errors:
            self._console.note(f"{error.get('ename')}: {error.get('evalue')}")
        files = [str(path) for path in event.get("outputs") or [] if str(path) != self._notebook]
        for path in files[:_MAX_FILES_SHOWN]:
            kind = "plot" if path.lower().endswith(_PLOTS) else "file"
            self._console.note(f"{kind}: {self._shown(path)}")
        if len(files) > _MAX_FILES_SHOWN:
            self._console.note(f"and {len(files) - _MAX_FILES_SHOWN} more files")
        self._console.note(self._last_line(event))

    def _last_line(self, event: Event) -> str:
        inside = f", with {_count(self._pictures, 'plot')} in it" if self._pictures else ""
        duration = event.get("duration_s")
        took = f" after {duration:.1f} s" if isinstance(duration, (int, float)) else ""
        where = self._shown(self._notebook)
        if event.get("status") == "ok":
            return f"done{took}: {where}{inside}"
        return f"{event.get('status')}{took}: {where}{inside}; go on with: colab-bridge run {where} --resume"

    def _shown(self, path: str) -> str:
        try:
            relative = os.path.relpath(path, self._cwd)
        except ValueError:  # another drive on Windows
            return path
        return path if relative.startswith("..") else relative


def _count(number: object, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
