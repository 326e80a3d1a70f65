"""What goes to the terminal: the program's own output to stdout, everything that the tool says to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

__all__ = ["Console", "plain"]

_DEFAULT_COLUMNS = 80
_CLEAR_LINE = "\r\x1b[2K"


class Console:
    """Standard input and output of this process.

    Attributes:
        in_tty: Whether a person types into stdin.
        out_tty: Whether a person sees stdout.
        err_tty: Whether a person sees stderr.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.in_tty = _is_tty(sys.stdin)
        self.out_tty = _is_tty(sys.stdout)
        self.err_tty = _is_tty(sys.stderr)
        plain_wanted = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        self._err_colour = self.err_tty and not plain_wanted
        self._progress = ""
        self._noted: set[str] = set()
        for stream in (sys.stdout, sys.stderr):
            # A kernel may send any character; one that the terminal cannot show must not end the command.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked something."""
        return self.in_tty and self.err_tty

    def out(self, text: str) -> None:
        """Write output of the program, as it is."""
        self.clear_progress()
        sys.stdout.write(text)
        sys.stdout.flush()

    def err(self, text: str) -> None:
        """Write the program's own words for stderr, as they are."""
        self.clear_progress()
        sys.stderr.write(text)
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """Say something to the user: one line on stderr."""
        self._noted.add(text)
        self.err(plain(text).replace("\n", " ") + "\n")

    def account(self, value: object) -> None:
        """Say which account pays, once in a command; nothing where none does, or nobody knows.

        Args:
            value: Its e-mail address, as the daemon's API gives it.
        """
        if value and (text := f"account {value}") not in self._noted:
            self.note(text)

    def hint(self, text: str) -> None:
        """Say something only to a person who watches; nothing where stderr is a file."""
        if self.err_tty:
            self.note(text)

    def traceback(self, lines: Sequence[object]) -> None:
        """Write a traceback; its colours stay only where a person sees them."""
        text = "\n".join(str(line) for line in lines)
        self.err((text if self._err_colour else plain(text)).rstrip("\n") + "\n")

    def progress(self, text: str) -> None:
        """Show a line that the next output replaces; only on a terminal."""
        if not self.err_tty:
            return
        line = plain(text).replace("\n", " ")[: self.columns - 1]
        if line != self._progress:
            self._progress = line
            sys.stderr.write(f"{_CLEAR_LINE}{line}" if self._can_clear else f"\r{line}")
            sys.stderr.flush()

    def clear_progress(self) -> None:
        """Remove the line that :meth:`progress` has left."""
        if self._progress:
            blank = _CLEAR_LINE if self._can_clear else "\r" + " " * len(self._progress) + "\r"
            self._progress = ""
            sys.stderr.write(blank)
            sys.stderr.flush()

    @property
    def _can_clear(self) -> bool:
        return os.environ.get("TERM") != "dumb"

    @property
    def columns(self) -> int:
        """Width of the terminal."""
        with contextlib.suppress(OSError, ValueError):
            return max(20, os.get_terminal_size(sys.stderr.fileno()).columns or _DEFAULT_COLUMNS)
        return _DEFAULT_COLUMNS

    def json(self, value: Any) -> None:
        """Print one JSON document on stdout."""
        self.out(json.dumps(value, indent=2, ensure_ascii=not self._utf8) + "\n")

    @property
    def _utf8(self) -> bool:
        return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table on stdout: columns as wide as they must be, two blanks between them."""
        cells = [[plain(str(cell)).replace("\n", " ") for cell in row] for row in [head, *rows]]
        widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
        for row in cells:
            self.out("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _is_tty(stream: TextIO | None) -> bool:
    # Windows gives a process without a console no streams at all.
    return stream is not None and not stream.closed and stream.isatty()


def plain(text: str) -> str:
    """Return a text without terminal control sequences."""
    if "\x1b" not in text:
        return text
    import re  # here because most texts have none and this is on the path of every command

    # Source: ECMA-48, 5.4 (control sequences), 8.3.89 (operating system commands); ECMA-35, 13.2 (other escapes).
    return re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]+[0-~]|[0-~])?", "", text)
