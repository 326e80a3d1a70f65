"""Puts the messages of a notebook run into the cells they belong to. Pure."""

from __future__ import annotations

from typing import Any

from colab_bridge.execution.notebook_file import CellResult
from colab_bridge.wire.message import RawMessage
from colab_bridge.wire.outputs import CellOutputs, DisplayRegistry
from colab_bridge.wire.widgets import WidgetState

__all__ = ["NotebookAssembler", "cell_of", "request_id"]


def request_id(run_id: str, position: int) -> str:
    """Return the ``msg_id`` of the request that executes a cell; from it alone the record can be read again."""
    return f"{run_id}.{position}"


def cell_of(run_id: str, msg_id: str) -> int | None:
    """Return the position of the cell that a request executes, None when it is not of this run."""
    prefix, _, position = msg_id.rpartition(".")
    return int(position) if prefix == run_id and position.isdecimal() and len(position) < 8 else None


class NotebookAssembler:
    r"""Folds the messages of one run into results by cell.

    Args:
        run_id: The run.
        collapse_progress: Keep only what a terminal would show of lines that were overwritten by ``\r``.
    """

    def __init__(self, run_id: str, *, collapse_progress: bool) -> None:
        self.run_id = run_id
        self._collapse = collapse_progress
        self._displays = DisplayRegistry()
        self._widgets = WidgetState()
        self._cells: dict[int, CellOutputs] = {}

    def place_of(self, msg_id: str) -> int | None:
        """Return the position of the cell that a request executes, None for one that is not of this run."""
        return cell_of(self.run_id, msg_id)

    def has(self, position: int | None) -> bool:
        """Whether a cell was begun."""
        return position in self._cells

    def begin(self, position: int) -> None:
        """Start a cell with no outputs."""
        self._cells[position] = CellOutputs(self._displays, collapse_progress=self._collapse)

    def apply(self, message: RawMessage) -> bool:
        """Take in one message of the run.

        Returns:
            Whether the outputs of a cell changed.
        """
        position = self.place_of(message.parent_id)
        if position is None or message.channel != "iopub":
            return False
        if position not in self._cells:
            self.begin(position)
        msg_type = message.msg_type
        if msg_type == "status":
            return False
        content = message.content_fields()
        if self._widgets.apply(message.msg_type, content, message.buffers, message.parent_id):
            return True
        return self._cells[position].apply(msg_type, content)

    def results(self) -> dict[int, CellResult]:
        """Return what is known, by cell position; a copy that later messages do not change."""
        return {
            position: CellResult(
                outputs=[dict(output) for output in cell.outputs], execution_count=cell.execution_count
            )
            for position, cell in self._cells.items()
        }

    def metadata(self) -> dict[str, Any]:
        """Return the entries for the notebook's metadata: the state of its widgets, where it has any."""
        return self._widgets.metadata()
