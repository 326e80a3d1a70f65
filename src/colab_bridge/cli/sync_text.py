"""How the answers of the file sync look on a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colab_bridge.cli.console import Console
from colab_bridge.cli.listing import age

__all__ = ["amount", "show_conflict", "show_diff", "show_report", "show_status"]

_ARROWS = {"remote": "up  ", "local": "down"}
_MOST_TEXT = 1 << 20
_MOST_HELD = 5
_MOST_LEFT_OUT = 20
_SIZES = frozenset({"blocked", "stays-there"})


def amount(count: object) -> str:
    """Return a number of bytes for people."""
    if not isinstance(count, (int, float)):
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def show_report(console: Console, report: Mapping[str, Any]) -> None:
    """Show what one sync has done and what is left."""
    up, down = report.get("up") or [], report.get("down") or []
    if up or down:
        words = [f"{len(paths)} {word}" for paths, word in ((up, "up"), (down, "down")) if paths]
        names = [*down, *(path for path in up if path not in down)]
        console.note(f"{', '.join(words)}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")
    else:
        console.note("in step, but for what is held:" if report.get("holds") else "in step")
    for notice in report.get("notices") or []:
        lead = "take it along" if notice.get("kind") in _SIZES else "see"
        command = f"; {lead}: {notice['command']}" if notice.get("command") else ""
        console.note(f"{notice.get('path')}: {notice.get('sentence')}{command}")
    for item in report.get("failed") or []:
        console.note(f"not done: {item.get('path')}: {item.get('sentence')}")
    for item in report.get("deferred") or []:
        console.note(f"follows in the background: {item.get('path')} ({amount(item.get('size'))})")
    _show_holds(console, report.get("holds") or [])


def _show_holds(console: Console, holds: list[dict[str, Any]]) -> None:
    for hold in holds:
        for line in hold.get("lines") or []:
            console.note(str(line))
        paths = hold.get("paths") or []
        if len(paths) > 1:
            more = hold["count"] - _MOST_HELD
            console.note(f"  {', '.join(paths[:_MOST_HELD])}{f' and {more} more' if more > 0 else ''}")


def show_status(console: Console, status: Mapping[str, Any]) -> None:
    """Show how the two folders stand."""
    console.out(f"{status.get('session')}: {status.get('state')}\n")
    console.out(f"here      {status.get('project')}\n")
    console.out(f"there     {status.get('workspace') or '-'}\n")
    files = status.get("files")
    console.out(f"agreed    {files} {'file' if files == 1 else 'files'}, {amount(status.get('bytes'))}\n")
    for sentence in status.get("degraded") or []:
        console.out(f"degraded  {sentence}\n")
    for item in status.get("under_way") or []:
        console.out(f"under way {item.get('path')}: {amount(item.get('done'))} of {amount(item.get('size'))}\n")
    for copy in status.get("conflicts") or []:
        console.out(f"conflict  {copy.get('path')}: colab-bridge sync conflicts {copy.get('id')}\n")
    _show_holds(console, status.get("holds") or [])
    for notice in (status.get("last") or {}).get("notices") or []:
        if notice.get("kind") in _SIZES:
            command = f"; take it along: {notice['command']}" if notice.get("command") else ""
            console.out(f"blocked   {notice.get('path')}: {notice.get('sentence')}{command}\n")
    left = status.get("left_out") or []
    count = status.get("left_out_count", len(left))
    if left:
        console.out(f"stays here ({count}):\n")
    for item in left[:_MOST_LEFT_OUT]:
        console.out(f"  {amount(item['size']) if item.get('size') else '':>10}  {item.get('line')}\n")
    if count > _MOST_LEFT_OUT:
        console.out(f"  and {count - _MOST_LEFT_OUT} more: colab-bridge sync status --json\n")


def show_diff(console: Console, diff: Mapping[str, Any]) -> None:
    """Show the plan of a sync, one line for each file."""
    for change in diff.get("changes") or []:
        old = f"  (was {change['old_path']})" if change.get("old_path") else ""
        arrow = _ARROWS.get(str(change.get("to")), "")
        size = amount(change.get("size")) if change.get("size") else ""
        console.out(f"{arrow}  {change.get('kind'):<10} {change.get('path')}{old}  {size}\n")
    if not diff.get("changes"):
        console.note("nothing to do")
    _show_holds(console, diff.get("holds") or [])


def show_conflict(console: Console, copy: Mapping[str, Any]) -> None:
    """Show both versions of a file that lost its place to another one: where they are, and how they differ."""
    kept, current = Path(str(copy.get("kept"))), Path(str(copy.get("current")))
    console.out(f"{copy.get('id')}  {copy.get('path')}  ({copy.get('kind')}, {age(copy.get('at'))} ago)\n")
    console.out(f"  kept     {kept}  ({amount(copy.get('size'))}, from {copy.get('side')})\n")
    console.out(f"  current  {current}{'' if current.exists() else '  (nothing there)'}\n")
    before, after = _lines(current), _lines(kept)
    if before is not None and after is not None:
        for line in difflib.unified_diff(before, after, "current", "kept", lineterm="", n=2):
            console.out(f"  {line}\n")
    console.out(f"  keep what stands there:  colab-bridge sync resolve {copy.get('id')} --take current\n")
    console.out(f"  take the kept version:   colab-bridge sync resolve {copy.get('id')} --take kept\n")


def _lines(path: Path) -> list[str] | None:
    try:
        if path.stat().st_size > _MOST_TEXT:
            return None
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    # It came from a runtime: nothing in it may act on the terminal.
    return ["".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in lines]
