"""What a terminal would show of lines that were overwritten with carriage returns. Pure."""

from __future__ import annotations

import re

__all__ = ["collapse_carriage_returns", "collapse_open_line"]

_CSI = re.compile(r"\x1b\[([0-?]*[ -/]*)([@-~])")


def collapse_carriage_returns(text: str) -> str:
    r"""Drop what was overwritten after ``\r`` inside a line, as a progress bar does it; everything else stays as it is.

    A shorter text leaves the end of a longer one standing, as on a terminal. Colours and "erase line" are
    understood; a line with cursor movements is left alone. A ``\r`` at the end of a line overwrites nothing and is
    kept (once).

    Args:
        text: For example the whole stdout of a cell.
    """
    if "\r" not in text:
        return text
    return "\n".join([_closed(line) if "\r" in line else line for line in text.split("\n")])


def collapse_open_line(line: str) -> str:
    r"""Shorten a line that may go on: what is appended later shows the same as with the whole line.

    Args:
        line: Text without a newline.
    """
    if "\r" not in line:
        return line
    if "\x1b" in line:
        return _with_escapes(line)
    segments = line.split("\r")
    full = _overlay(segments)
    last = segments[-1]
    return full if last and len(full) == len(last) else f"{full}\r{last}"


def _closed(line: str) -> str:
    if "\x1b" in line:
        return _with_escapes(line)
    segments = line.split("\r")
    full = _overlay(segments)
    return full + "\r" if not segments[-1] else full


def _overlay(segments: list[str]) -> str:
    # From the last to the first: each column shows the last segment that reaches it. One pass, however many segments.
    pieces: list[str] = []
    width = 0
    for segment in reversed(segments):
        if len(segment) > width:
            pieces.append(segment[width:])
            width = len(segment)
    return "".join(pieces)


def _with_escapes(line: str) -> str:
    segments = line.split("\r")
    kept: list[str] = [segments[-1]]
    measured = _measure(segments[-1])
    for segment in reversed(segments[:-1]):
        if measured is None:
            return line
        width, erases = measured
        if erases:
            break
        measured = _measure(segment)
        if measured is None or not _colours_closed(segment):
            return line
        if measured[0] > width:
            kept.append(segment)
        else:
            measured = (width, measured[1])
    return "\r".join(reversed(kept))


def _measure(segment: str) -> tuple[int, bool] | None:
    """Return the visible width and whether the rest of the line is erased; None for what is more than colours."""
    erases = False
    for parameters, final in _CSI.findall(segment):
        if final == "K" and parameters in ("", "0", "2"):
            erases = True
        elif final != "m":
            return None
    visible = _CSI.sub("", segment)
    return None if "\x1b" in visible else (len(visible), erases)


def _colours_closed(segment: str) -> bool:
    colours = [parameters for parameters, final in _CSI.findall(segment) if final == "m"]
    return not colours or colours[-1] in ("", "0")
