"""Writes the outputs of a notebook run from its record, long after the run and without its kernel."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread

from colab_bridge.errors import UserError
from colab_bridge.execution.assembler import NotebookAssembler, cell_of
from colab_bridge.execution.events import recorded_entries
from colab_bridge.execution.notebook_file import NotebookFile
from colab_bridge.execution.plan import inject_parameters
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.kernels.record import Entry, EntryKind
from colab_bridge.model.records import Run
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError

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
    async for batch in recorded_entries(folder, run.first_seq, hub):
        for entry in batch:
            _take(assembler, entry)
        await anyio.lowlevel.checkpoint()
    results = {position: result for position, result in assembler.results().items() if position < len(file.cells)}
    report = await anyio.to_thread.run_sync(file.save, results, assembler.metadata())
    if report.problem:
        raise UserError(f"{report.path} cannot be written: {report.problem}", hint="give another file with --save PATH")
    return report.path


def _take(assembler: NotebookAssembler, entry: Entry) -> None:
    if entry.kind is not EntryKind.DOWN:
        return
    try:
        message = decode_v1(entry.body)
        if cell_of(assembler.run_id, message.parent_id) is not None:
            assembler.apply(message)
    except MessageError:
        return
