"""Cells that a front end had executed and could not save: which they are, and what they show. Pure.

Front ends say in a request which cell it is: JupyterLab gives the cell's id of the notebook format, VS Code an address
that holds the file's path. What says neither is found by its source.

Source: JupyterLab's ``OutputArea.execute`` and VS Code's ``notebookcell`` request metadata (``cellId``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from colab_bridge.execution.assembler import NotebookAssembler
from colab_bridge.execution.notebook_file import CellResult, cell_source
from colab_bridge.kernels.hub import note_of
from colab_bridge.kernels.record import Entry, EntryKind
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["Executions", "Orphan", "OrphanAssembler", "at_home", "notebook_of", "places"]

_VSCODE_SCHEMES = ("vscode-notebook-cell", "vscode-notebook-cell-output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """One execution.

    Attributes:
        msg_id: Of its request.
        seq: Number of the request in the kernel's record.
        cell: What the front end calls the cell; empty when it says nothing.
        code: What is executed.
        ended_at: Unix seconds; None while it goes on.
    """

    msg_id: str
    seq: int
    cell: str
    code: str
    ended_at: float | None = None


class Executions:
    """Follows a record and knows at its end which executions go on, and which have ended."""

    def __init__(self) -> None:
        self._open: dict[str, Orphan] = {}
        self._ended: list[Orphan] = []
        self._half: dict[str, str] = {}
        self._sent_here: set[str] = set()
        self._sent_before: set[str] = set()

    def take(self, entry: Entry) -> None:
        """Take in the next entry."""
        if entry.kind is EntryKind.NOTE:
            if note_of(entry).get("type") in ("died", "restarted"):
                self._ended += [replace(orphan, ended_at=entry.time_s) for orphan in self._open.values()]
                self._open.clear()
                self._half.clear()
                self._sent_before.clear()
            return
        try:
            message = decode_v1(entry.body)
            if entry.kind is EntryKind.UP:
                self._sent(entry.seq, message)
            else:
                self._received(entry.time_s, message)
        except MessageError:
            return

    @property
    def reaches_further(self) -> bool:
        """Whether something goes on whose request lies before the first entry taken in."""
        return bool(self._sent_before)

    def _sent(self, seq: int, message: RawMessage) -> None:
        self._sent_here.add(message.msg_id)
        if message.msg_type != "execute_request":
            return
        content = message.content_fields()
        if content.get("silent"):
            return
        cell = message.metadata_fields().get("cellId")
        self._open.setdefault(
            message.msg_id,
            Orphan(
                msg_id=message.msg_id,
                seq=seq,
                cell=cell if isinstance(cell, str) else "",
                code=str(content.get("code", "")),
            ),
        )

    def _received(self, time_s: float, message: RawMessage) -> None:
        """Count an execution as ended when both its reply and its idle have come, in either order."""
        request = message.parent_id
        idle = message.msg_type == "status" and message.content_fields().get("execution_state") == "idle"
        if request not in self._sent_here:
            if idle or message.channel != "iopub":
                self._sent_before.discard(request)
            elif request:
                self._sent_before.add(request)
        if request in self._open and (idle or message.msg_type == "execute_reply"):
            half = "idle" if idle else "reply"
            if self._half.setdefault(request, half) != half:
                self._ended.append(replace(self._open.pop(request), ended_at=time_s))
                del self._half[request]

    def __contains__(self, msg_id: str) -> bool:
        return msg_id in self._open

    @property
    def going_on(self) -> list[Orphan]:
        """The executions that have not ended, oldest first."""
        return sorted(self._open.values(), key=lambda orphan: orphan.seq)

    def unsaved(self, saved_at: float) -> list[Orphan]:
        """Return, oldest first, the executions of which a file that was written at ``saved_at`` cannot hold all.

        Args:
            saved_at: Unix seconds.
        """
        late = [orphan for orphan in self._ended if orphan.ended_at is not None and orphan.ended_at > saved_at]
        return sorted([*late, *self._open.values()], key=lambda orphan: orphan.seq)


class OrphanAssembler(NotebookAssembler):
    r"""Folds messages into results by orphan, counted from 0.

    Args:
        orphans: The executions.
        collapse_progress: As for a run.
    """

    def __init__(self, orphans: Sequence[Orphan], *, collapse_progress: bool) -> None:
        super().__init__("", collapse_progress=collapse_progress)
        self._places = {orphan.msg_id: place for place, orphan in enumerate(orphans)}

    def place_of(self, msg_id: str) -> int | None:
        """Return the place of an orphan, None for a request that is none."""
        return self._places.get(msg_id)


def notebook_of(identity: Mapping[str, Any], orphans: Iterable[Orphan]) -> Path | None:
    """Return the notebook that a front end works on.

    Args:
        identity: What it told about itself.
        orphans: Its unfinished executions.

    Returns:
        An absolute path; None when it said nothing that tells.
    """
    if isinstance(named := identity.get("notebook"), str) and named:
        return Path(named)
    for orphan in orphans:
        address = _cell_address(orphan.cell)
        if address is not None:
            return address
    return None


def _cell_address(cell: str) -> Path | None:
    """Return the file in ``vscode-notebook-cell:/home/me/a.ipynb#W0sZmlsZQ``; None for other names of cells."""
    try:
        parts = urlsplit(cell)
    except ValueError:
        return None
    if parts.scheme not in _VSCODE_SCHEMES or not parts.path.endswith(".ipynb") or parts.netloc:
        return None
    path = unquote(parts.path)
    # Windows: "/c:/Users/me/a.ipynb"
    return Path(path[1:] if path[2:3] == ":" else path)


def places(cells: Sequence[dict[str, Any]], orphans: Sequence[Orphan]) -> dict[int, int]:
    """Find the cells of a notebook, as it is now, that orphans belong to.

    A cell that was edited meanwhile is still the cell when its id says so. Without an id the source decides, where
    exactly one code cell has it.

    Args:
        cells: The notebook's cells.
        orphans: What was executed.

    Returns:
        Position of the cell by the orphan's place; an orphan whose cell is gone is missing. Of several executions of
        one cell the last one counts.
    """
    by_id: dict[str, int | None] = {str(cell.get("id")): position for position, cell in enumerate(cells)}
    by_source: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        if cell.get("cell_type") == "code":
            by_source.setdefault(cell_source(cell), []).append(position)
    found: dict[int, int] = {}
    for place, orphan in enumerate(orphans):
        home = by_id.get(orphan.cell) if orphan.cell else None
        if home is None:
            alike = by_source.get(orphan.code, [])
            home = alike[0] if len(alike) == 1 else None
        if home is not None and cells[home].get("cell_type") == "code":
            found = {other: where for other, where in found.items() if where != home}
            found[place] = home
    return found


def at_home(results: Mapping[int, CellResult], found: Mapping[int, int]) -> dict[int, CellResult]:
    """Return results by the position of their cells."""
    return {found[place]: result for place, result in results.items() if place in found}
