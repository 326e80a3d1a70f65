"""Writes the outputs of a notebook run from its record, long after the run and without its kernel."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread

from colab_bridge.errors import UserError
from colab_bridge.execution.assembler import NotebookAssembler, cell_of
from colab_bridge.execution.events import recorded_entries
from colab_bridge.execution.notebook_file import CellResult, NotebookFile, cell_source
from colab_bridge.execution.plan import inject_parameters
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.kernels.record import Entry, EntryKind
from colab_bridge.model.records import Run
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["rebuild_notebook"]


async def rebuild_notebook(records: Path, run: Run, target: Path | None, hub: HubKernel | None = None) -> Path:
    """Put everything that the record holds of a notebook run into the notebook.

    Args:
        records: Folder of the records.
        run: The run.
        target: File to write; the run's own when None.
        hub: The hub of the run's kernel, where it lives.

    Returns:
        The file that was written.

    Raises:
        UserError: the record is gone, or the notebook cannot be read or written.
    """
    part = run.spec.get("notebook") or {}
    own = Path(str(part.get("output_path") or part["path"]))
    file = await anyio.to_thread.run_sync(NotebookFile.load, Path(str(part["path"])), target or own)
    inject_parameters(file.content, part.get("parameters") or {})
    folder = records / run.kernel
    if not folder.is_dir():
        raise UserError(
            f"the record of run {run.id} is not kept any more", hint="run the notebook again", code="CB-USER-042"
        )
    assembler = NotebookAssembler(run.id, collapse_progress=bool(run.spec.get("collapse_progress", True)))
    requests: dict[int, RawMessage] = {}
    async for batch in recorded_entries(folder, run.first_seq, hub):
        for entry in batch:
            _take(assembler, requests, entry)
        await anyio.lowlevel.checkpoint()
    results = _at_home(file, assembler.results(), requests)
    report = await anyio.to_thread.run_sync(file.save, results, assembler.metadata())
    if report.problem:
        raise UserError(f"{report.path} cannot be written: {report.problem}", hint="give another file with --save PATH")
    return report.path


def _at_home(
    file: NotebookFile, results: dict[int, CellResult], requests: dict[int, RawMessage]
) -> dict[int, CellResult]:
    """Return the results by where their cells are now: the notebook may have been edited since the run.

    A cell is known by its id, without one by its place and source. Those of cells that are gone are left out.
    """
    by_id = {cell["id"]: position for position, cell in enumerate(file.cells) if isinstance(cell.get("id"), str)}
    found: dict[int, CellResult] = {}
    for position, result in results.items():
        cell_id, code = _identity(requests.get(position))
        here = by_id.get(cell_id, -1) if cell_id else position
        if not 0 <= here < len(file.cells) or file.cells[here].get("cell_type") != "code":
            continue
        if cell_id or code == cell_source(file.cells[here]):
            found[here] = result
    return found


def _identity(request: RawMessage | None) -> tuple[str, str | None]:
    if request is None:
        return "", None
    try:
        cell_id = request.metadata_fields().get("cellId")
        code = request.content_fields().get("code")
    except MessageError:
        return "", None
    return cell_id if isinstance(cell_id, str) else "", code if isinstance(code, str) else None


def _take(assembler: NotebookAssembler, requests: dict[int, RawMessage], entry: Entry) -> None:
    if entry.kind is EntryKind.NOTE:
        return
    try:
        message = decode_v1(entry.body)
        if entry.kind is EntryKind.UP:
            position = cell_of(assembler.run_id, message.msg_id)
            if position is not None and message.msg_type == "execute_request":
                requests[position] = message
        elif cell_of(assembler.run_id, message.parent_id) is not None:
            assembler.apply(message)
    except MessageError:
        return
