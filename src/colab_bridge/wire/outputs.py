"""Folds the iopub messages of a cell into nbformat 4.5 outputs, the way nbclient does. Pure.

Source: Jupyter messaging protocol 5.4, "Messages on the IOPub channel"; the notebook format 4.5; nbclient's
``NotebookClient.process_message``. Unlike nbclient, streams of one name that follow each other become one output, as in
every front end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from colab_bridge.wire.terminal_text import collapse_carriage_returns, collapse_open_line

__all__ = ["CellOutputs", "DisplayRegistry", "collapse_carriage_returns"]

Output = dict[str, Any]

#: Characters of a stream that are collected before they are joined: few joins, and few small strings in memory.
_JOIN_AT = 65_536


class _Display:
    """What is shown under one ``display_id``, and in which cells; its outputs share it: an update is one step."""

    __slots__ = ("cells", "data", "metadata")

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.cells: dict[int, CellOutputs] = {}


class DisplayRegistry:
    """Where each ``display_id`` of a notebook is shown, across its cells."""

    def __init__(self) -> None:
        self._displays: dict[str, _Display] = {}

    def add(self, display_id: str, cell: CellOutputs) -> _Display:
        """Remember that a cell shows this display, and return it."""
        display = self._displays.setdefault(display_id, _Display())
        display.cells[id(cell)] = cell
        return display

    def update(self, display_id: str, data: dict[str, Any], metadata: dict[str, Any]) -> list[CellOutputs]:
        """Give new data to every output that shows a display.

        Returns:
            The cells that changed, each once.
        """
        display = self._displays.get(display_id)
        if display is None:
            return []
        display.data, display.metadata = data, metadata
        for cell in display.cells.values():
            cell.version += 1
        return list(display.cells.values())

    def forget(self, display_ids: Iterable[str], cell: CellOutputs) -> None:
        """Forget that a cell shows these displays."""
        for display_id in display_ids:
            display = self._displays.get(display_id)
            if display is not None:
                display.cells.pop(id(cell), None)
                if not display.cells:
                    del self._displays[display_id]


class _Shown:
    """An output that shows a display."""

    __slots__ = ("_display", "_own")

    def __init__(self, display: _Display, own: Output) -> None:
        self._display = display
        self._own = own

    def as_output(self) -> Output:
        return {**self._own, "data": self._display.data, "metadata": self._display.metadata}


class _Stream:
    """Text of one stream output, in pieces; ``_open`` begins at the start of a line when lines are collapsed."""

    __slots__ = ("_collapse", "_done", "_join_at", "_open", "_open_size", "name")

    def __init__(self, name: str, *, collapse: bool) -> None:
        self.name = name
        self._collapse = collapse
        self._done: list[str] = []
        self._open: list[str] = []
        self._open_size = 0
        self._join_at = _JOIN_AT

    def append(self, text: str) -> None:
        self._open.append(text)
        self._open_size += len(text)
        if self._open_size > self._join_at:
            self._join()

    def _join(self) -> None:
        text = "".join(self._open)
        self._open.clear()
        self._open_size = 0
        if not self._collapse:
            self._done.append(text)
            return
        end = text.rfind("\n") + 1
        whole, line = text[:end], text[end:]
        del text  # without carriage returns, which is how large texts come, nothing is copied
        if end:
            self._done.append(collapse_carriage_returns(whole[:-1]) + "\n" if "\r" in whole else whole)
        line = collapse_open_line(line)
        self._open.append(line)
        self._open_size = len(line)
        # Twice a long line before it is looked at again, so that a line of n characters costs O(n).
        self._join_at = max(_JOIN_AT, 2 * len(line))

    def as_output(self) -> Output:
        self._join()
        self._done = ["".join(self._done)]
        text = self._done[0] + collapse_carriage_returns("".join(self._open))
        return {"output_type": "stream", "name": self.name, "text": text}


class CellOutputs:
    """The outputs of one cell, built up message by message.

    Args:
        registry: Shared by the cells of a notebook.
        collapse_progress: Keep only what a terminal would show of lines that were overwritten by ``\\r``.
        outputs: nbformat outputs to begin with.

    Attributes:
        execution_count: The number in the brackets, None while unknown.
        version: Grows with every change of the outputs, also when another cell updates a display of this one.
    """

    def __init__(
        self, registry: DisplayRegistry, *, collapse_progress: bool = False, outputs: Sequence[Output] = ()
    ) -> None:
        self.execution_count: int | None = None
        self.version = 0
        self._registry = registry
        self._collapse = collapse_progress
        self._outputs: list[Output | _Stream | _Shown] = []
        self._display_ids: set[str] = set()
        self._clear_before_next = False
        for output in outputs:
            self._load(output)

    @property
    def outputs(self) -> list[Output]:
        """The outputs as nbformat has them, ready for JSON; a new list of new dictionaries."""
        return [dict(output) if isinstance(output, dict) else output.as_output() for output in self._outputs]

    def apply(self, msg_type: str, content: Mapping[str, Any], buffers: Sequence[bytes] = ()) -> bool:
        """Take in one iopub message of the cell's request.

        Args:
            msg_type: Messages that are no outputs change nothing.
            content: From a kernel; what makes no sense in it is left out.
            buffers: Outputs have none; accepted so that messages can be passed on as they are.

        Returns:
            Whether something changed that a notebook stores: outputs of this cell, or of another by a display update,
            or the number in the brackets.
        """
        count = content.get("execution_count")
        if isinstance(count, int) and not isinstance(count, bool):
            self.execution_count = count
        if msg_type == "execute_input":
            return self.execution_count is not None
        if msg_type == "stream":
            return self._add_stream(content)
        if msg_type == "clear_output":
            return self._clear(wait=bool(content.get("wait")))
        if msg_type == "error":
            self._append(_error_output(content))
            return True
        if msg_type in ("display_data", "execute_result", "update_display_data"):
            return self._add_bundle(msg_type, content)
        return False

    def _add_stream(self, content: Mapping[str, Any]) -> bool:
        text, name = content.get("text"), content.get("name")
        if not isinstance(text, str) or not isinstance(name, str):
            return False
        self._run_delayed_clear()
        last = self._outputs[-1] if self._outputs else None
        if not isinstance(last, _Stream) or last.name != name:
            last = _Stream(name, collapse=self._collapse)
            self._outputs.append(last)
        last.append(text)
        self.version += 1
        return True

    def _add_bundle(self, msg_type: str, content: Mapping[str, Any]) -> bool:
        raw_data, raw_metadata, transient = content.get("data"), content.get("metadata"), content.get("transient")
        if not isinstance(raw_data, dict):
            return False
        data = {mime: value for mime, value in raw_data.items() if _is_valid(mime, value)}
        metadata = raw_metadata if isinstance(raw_metadata, dict) else {}
        display_id = transient.get("display_id") if isinstance(transient, dict) else None
        display_id = display_id if isinstance(display_id, str) else ""
        changed = bool(display_id and self._registry.update(display_id, data, metadata))
        if msg_type == "update_display_data":
            return changed
        output: Output = {"output_type": msg_type, "data": data, "metadata": metadata}
        if msg_type == "execute_result":
            output["execution_count"] = self.execution_count
        self._run_delayed_clear()
        if display_id:
            self._display_ids.add(display_id)
            display = self._registry.add(display_id, self)
            display.data, display.metadata = data, metadata
            self._append(_Shown(display, output))
        else:
            self._append(output)
        return True

    def _append(self, output: Output | _Shown) -> None:
        self._run_delayed_clear()
        self._outputs.append(output)
        self.version += 1

    def _clear(self, *, wait: bool) -> bool:
        self._clear_before_next = wait
        if wait or not self._outputs:
            return False
        self._outputs.clear()
        self._registry.forget(self._display_ids, self)
        self._display_ids.clear()
        self.version += 1
        return True

    def _run_delayed_clear(self) -> None:
        if self._clear_before_next:
            self._clear(wait=False)

    def _load(self, output: Output) -> None:
        text, name = output.get("text"), output.get("name")
        if output.get("output_type") != "stream" or not isinstance(name, str):
            self._outputs.append(output)
            return
        stream = _Stream(name, collapse=self._collapse)
        stream.append("".join(str(line) for line in text) if isinstance(text, list) else str(text or ""))
        self._outputs.append(stream)


def _error_output(content: Mapping[str, Any]) -> Output:
    ename, evalue, traceback = content.get("ename"), content.get("evalue"), content.get("traceback")
    return {
        "output_type": "error",
        "ename": ename if isinstance(ename, str) else "",
        "evalue": evalue if isinstance(evalue, str) else "",
        "traceback": [line for line in traceback if isinstance(line, str)] if isinstance(traceback, list) else [],
    }


def _is_valid(mime: Any, value: Any) -> bool:
    """Whether nbformat's schema allows the value: any JSON for JSON types, else a text or a list of texts."""
    if not isinstance(mime, str):
        return False
    if mime == "application/json" or (mime.startswith("application/") and mime.endswith("+json")):
        return True
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value))
