"""Notebook files: read with checks, filled with outputs, saved without losing what somebody else wrote meanwhile.

The file is handled as JSON. Reading it through nbformat would cost the daemon 22 MB for a check that a dozen lines
do as well; that what is written is valid is tested against nbformat.

Source: the notebook format 4.5, nbformat's ``v4/rwbase.py`` for how texts are split into lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colab_bridge._util.atomic import write_atomic
from colab_bridge.errors import UserError
from colab_bridge.execution.notebook_json import notebook_pieces

__all__ = ["CATCH_UP_S", "CellResult", "NotebookFile", "SaveReport", "cell_source", "parse_notebook"]

#: So long a save waits for what was said while no daemon ran; it comes within a second once the runtime is reached.
CATCH_UP_S = 3.0

Notebook = dict[str, Any]


@dataclass(slots=True)
class CellResult:
    """What a run knows about one cell.

    Attributes:
        outputs: nbformat outputs.
        execution_count: Number in the brackets; None while the cell runs.
    """

    outputs: list[dict[str, Any]] = field(default_factory=list)
    execution_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReport:
    """How a save went.

    Attributes:
        path: Where the outputs are now.
        merged: Whether somebody else had changed the file since we read or wrote it.
        homeless: How many executed cells are not in the file any more; their outputs stay in the record.
        problem: Empty, or why the file itself could not be written.
    """

    path: Path
    merged: bool = False
    homeless: int = 0
    problem: str = ""


def cell_source(cell: dict[str, Any]) -> str:
    """Return the source of a cell as one text."""
    source = cell.get("source", "")
    return "".join(str(line) for line in source) if isinstance(source, list) else str(source)


def parse_notebook(data: bytes, name: str) -> Notebook:
    """Decode a notebook file.

    Args:
        data: The file's bytes.
        name: How to call the file in errors.

    Raises:
        UserError: it is no notebook that can be run; the hint says what to do.
    """
    if not data.strip():
        raise UserError(
            f"{name} is empty", hint="restore it, for example with: git checkout -- " + name, code="CB-NB-001"
        )
    try:
        notebook = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{name} is no notebook: not valid JSON ({str(error)[:80]})",
            hint="restore it from a backup or from version control; nothing was changed",
            code="CB-NB-002",
        ) from error
    version = notebook.get("nbformat") if isinstance(notebook, dict) else None
    if not isinstance(version, int):
        raise UserError(
            f"{name} is JSON but no notebook: it has no 'nbformat'", hint="give an .ipynb file", code="CB-NB-003"
        )
    if version != 4:
        raise UserError(
            f"{name} has notebook format {version}; format 4 is needed",
            hint=f"convert it: jupyter nbconvert --to notebook --nbformat 4 --inplace {name}",
            code="CB-NB-004",
        )
    _check_cells(notebook, name)
    return dict(notebook)


def _check_cells(notebook: Notebook, name: str) -> None:
    cells = notebook.get("cells")
    sound = isinstance(cells, list) and all(
        isinstance(cell, dict) and isinstance(cell.get("source", ""), str | list) and cell.get("cell_type")
        for cell in cells
    )
    minor = notebook.setdefault("nbformat_minor", 0)
    if not sound or not isinstance(notebook.setdefault("metadata", {}), dict) or not isinstance(minor, int):
        raise UserError(
            f"{name} is damaged: its cells are not what the notebook format says",
            hint="restore it from a backup or from version control; nothing was changed",
            code="CB-NB-005",
        )


class NotebookFile:
    """A notebook that a run fills.

    Args:
        path: The file that is read.
        target: The file that is written; the same unless the caller wants a copy.
    """

    def __init__(self, path: Path, target: Path, content: Notebook, digest: bytes) -> None:
        self.path = path
        self.target = target
        self.content = content
        self._digest = digest if path == target else b""
        self._mode = None if path != target and target.exists() else path.stat().st_mode & 0o777

    @classmethod
    def load(cls, path: Path, target: Path | None = None) -> NotebookFile:
        """Read a notebook.

        Raises:
            UserError: the file is missing, a folder, unreadable or no notebook.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"there is no file {path}", hint="check the path", code="CB-USER-001") from error
        except OSError as error:
            if path.is_dir():  # which Windows reports as a lack of permission
                raise UserError(f"{path} is a folder", hint="name the notebook in it", code="CB-USER-002") from error
            raise UserError(
                f"{path} cannot be read: {error.strerror}", hint="check its permissions", code="CB-USER-003"
            ) from error
        return cls(path, target or path, parse_notebook(data, path.name), hashlib.sha256(data).digest())

    @property
    def cells(self) -> list[dict[str, Any]]:
        """All cells, in order."""
        cells: list[dict[str, Any]] = self.content["cells"]
        return cells

    def check_writable(self) -> None:
        """Make sure that outputs can be saved before anything is run.

        Raises:
            UserError: the folder or the file does not allow it.
        """
        probe = self.target.parent / f".{self.target.name[:40]}.colab-bridge-probe"
        try:
            probe.touch(mode=0o600)
            probe.unlink()
            if self.target.exists():
                with self.target.open("r+b"):
                    pass
        except OSError as error:
            raise UserError(
                f"outputs cannot be written to {self.target}: {error.strerror}",
                hint="write the executed notebook elsewhere with -o PATH",
                code="CB-USER-004",
            ) from error

    def restore_order(self, keys: list[str]) -> None:
        """Put the cells where they were when the run began, after somebody changed the file while no daemon looked.

        From then on outputs are merged into the file by cell, and its own order stays.

        Args:
            keys: What :meth:`cell_keys` returned then. A cell that is gone becomes an empty one.
        """
        if keys == self.cell_keys():
            return
        left: dict[str, list[dict[str, Any]]] = {}
        for cell in self.cells:
            left.setdefault(_key(cell), []).append(cell)
        gone: Notebook = {"cell_type": "code", "source": "", "metadata": {}, "outputs": [], "execution_count": None}
        self.content = {**self.content, "cells": [left[key].pop(0) if left.get(key) else dict(gone) for key in keys]}
        if self._digest:
            self._digest = b"merged"

    def cell_keys(self) -> list[str]:
        """Return what tells the cells apart: their ids, where there are none their sources."""
        return [_key(cell) for cell in self.cells]

    def apply(self, results: dict[int, CellResult], metadata: dict[str, Any] | None = None) -> None:
        """Put results into the cells, by position."""
        for position, result in results.items():
            _fill(self.cells[position], result)
        if metadata:
            self.content["metadata"].update(metadata)

    def save(self, results: dict[int, CellResult], metadata: dict[str, Any] | None = None) -> SaveReport:
        """Write the results into the target, atomically.

        Where the file has changed since it was read or written by us, the new content is kept and only the outputs
        of the cells that ran are put into it, found by cell id (in notebooks without ids: by position and equal
        source).

        Args:
            results: By position in :attr:`cells`.
            metadata: Entries of the notebook's metadata to set.

        Returns:
            Where the outputs went. A file that cannot be merged (unreadable now) is left alone; see ``problem``.
        """
        self.apply(results, metadata)
        merged, homeless, content = False, 0, self.content
        current = self._read_changed()
        if current is not None:
            try:
                content = parse_notebook(current, self.target.name)
            except UserError as error:
                return SaveReport(path=self.target, problem=error.message)
            merged, homeless = True, self._merge_into(content, results, metadata)
        digest = hashlib.sha256()
        try:
            write_atomic(self.target, _hashed(notebook_pieces(content), digest), mode=self._mode)
        except OSError as error:
            return SaveReport(path=self.target, merged=merged, problem=error.strerror or str(error))
        self._mode = None
        # The digest of a merged file is not remembered as ours would be: the next save merges again, by id.
        self._digest = digest.digest() if not merged else b"merged"
        return SaveReport(path=self.target, merged=merged, homeless=homeless)

    def save_aside(self, suffix: str) -> Path:
        """Write our version beside the target and return where; for a target that cannot be merged or written.

        Raises:
            OSError: that does not work either.
        """
        path = self.target.with_name(f"{self.target.stem}.{suffix}.ipynb")
        write_atomic(path, notebook_pieces(self.content), mode=0o644)
        return path

    def _read_changed(self) -> bytes | None:
        """Return the file if somebody else has changed it since we read or wrote it."""
        if not self._digest:
            return None
        try:
            with self.target.open("rb") as file:
                if hashlib.file_digest(file, "sha256").digest() == self._digest:
                    return None
            return self.target.read_bytes()
        except OSError:
            return None

    def _merge_into(self, other: Notebook, results: dict[int, CellResult], metadata: dict[str, Any] | None) -> int:
        by_id = {cell["id"]: cell for cell in other["cells"] if isinstance(cell.get("id"), str)}
        homeless = 0
        for position, result in results.items():
            mine = self.cells[position]
            cell = by_id.get(str(mine.get("id", ""))) or _same_cell(other["cells"], position, mine)
            if cell is None or cell.get("cell_type") != "code":
                homeless += 1
            else:
                _fill(cell, result)
        if metadata:
            other["metadata"].update(metadata)
        return homeless


def _hashed(pieces: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _same_cell(cells: list[dict[str, Any]], position: int, mine: dict[str, Any]) -> dict[str, Any] | None:
    if "id" in mine or position >= len(cells):
        return None
    return cells[position] if cell_source(cells[position]) == cell_source(mine) else None


def _key(cell: dict[str, Any]) -> str:
    if isinstance(cell.get("id"), str):
        return f"id:{cell['id']}"
    return "source:" + hashlib.sha256(cell_source(cell).encode("utf-8", "surrogatepass")).hexdigest()


def _fill(cell: dict[str, Any], result: CellResult) -> None:
    cell["outputs"] = result.outputs
    cell["execution_count"] = result.execution_count
