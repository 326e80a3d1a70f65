"""Folds iopub messages into the outputs of notebook cells. Pure.

Source: the notebook format 4.5, "Code cell outputs"; Jupyter messaging protocol 5.4, "Messages on the IOPub channel".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CellOutputs", "DisplayRegistry", "collapse_carriage_returns"]

Output = dict[str, Any]


class DisplayRegistry:
    """Which outputs of a notebook carry which ``display_id``."""

    def __init__(self) -> None:
        self._places: dict[str, list[Output]] = {}

    def add(self, display_id: str, output: Output) -> None:
        """Remember an output under its id."""
        self._places.setdefault(display_id, []).append(output)

    def update(self, display_id: str, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
        """Give every output with this id new content; False when there is none."""
        places = self._places.get(display_id, [])
        for output in places:
            output["data"] = dict(data)
            output["metadata"] = dict(metadata)
        return bool(places)


class CellOutputs:
    """The outputs of one cell.

    Args:
        registry: Shared by the cells of a notebook.
        collapse_progress: Keep only what a terminal would show of lines that were overwritten by ``\\r``.
    """

    def __init__(self, registry: DisplayRegistry, *, collapse_progress: bool = False) -> None:
        self._registry = registry
        self._collapse = collapse_progress
        self._outputs: list[Output] = []
        self._texts: dict[int, list[str]] = {}
        self._clear_next = False
        self.execution_count: int | None = None

    @property
    def outputs(self) -> list[Output]:
        """The outputs as nbformat has them; the list and its members are a copy, their data is not."""
        found = []
        for output in self._outputs:
            parts = self._texts.get(id(output))
            if parts is not None:
                text = "".join(parts)
                # Joined once: the next call finds one part, so many small pieces cost linear time.
                parts[:] = [collapse_carriage_returns(text) if self._collapse else text]
                output["text"] = parts[0]
            found.append(dict(output))
        return found

    def apply(self, msg_type: str, content: Mapping[str, Any]) -> bool:
        """Take in one iopub message.

        Args:
            msg_type: Its type; other types than outputs are ignored.
            content: Its content, not trusted.

        Returns:
            Whether something that a notebook stores has changed.
        """
        if msg_type in ("execute_input", "execute_result"):
            count = content.get("execution_count")
            self.execution_count = count if isinstance(count, int) else self.execution_count
            if msg_type == "execute_input":
                return True
        if msg_type == "clear_output":
            return self._clear(wait=content.get("wait") is True)
        if msg_type == "update_display_data":
            display_id = _display_id(content)
            return display_id is not None and self._registry.update(display_id, *_bundle(content))
        if msg_type == "stream":
            return self._stream(content)
        output = _output(msg_type, content)
        if output is None:
            return False
        self._add(output)
        display_id = _display_id(content)
        if display_id is not None:
            self._registry.add(display_id, output)
            if msg_type == "display_data":
                # A display with a known id updates the earlier ones too, as front ends do.
                self._registry.update(display_id, output["data"], output["metadata"])
        return True

    def _clear(self, *, wait: bool) -> bool:
        if wait:
            self._clear_next = True
            return False
        self._drop_all()
        return True

    def _drop_all(self) -> None:
        self._clear_next = False
        self._outputs.clear()
        self._texts.clear()

    def _add(self, output: Output) -> None:
        if self._clear_next:
            self._drop_all()
        self._outputs.append(output)

    def _stream(self, content: Mapping[str, Any]) -> bool:
        text = content.get("text")
        if not isinstance(text, str) or not text:
            return False
        name = "stderr" if content.get("name") == "stderr" else "stdout"
        if self._clear_next:
            self._drop_all()
        last = self._outputs[-1] if self._outputs else None
        if last is None or last["output_type"] != "stream" or last["name"] != name:
            last = {"output_type": "stream", "name": name, "text": ""}
            self._outputs.append(last)
            self._texts[id(last)] = []
        self._texts[id(last)].append(text)
        return True


def _output(msg_type: str, content: Mapping[str, Any]) -> Output | None:
    if msg_type == "error":
        lines = content.get("traceback")
        return {
            "output_type": "error",
            "ename": str(content.get("ename", "")),
            "evalue": str(content.get("evalue", "")),
            "traceback": [str(line) for line in lines] if isinstance(lines, list) else [],
        }
    if msg_type not in ("display_data", "execute_result"):
        return None
    data, metadata = _bundle(content)
    output: Output = {"output_type": msg_type, "data": dict(data), "metadata": dict(metadata)}
    if msg_type == "execute_result":
        count = content.get("execution_count")
        output["execution_count"] = count if isinstance(count, int) else None
    return output


def _bundle(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    data, metadata = content.get("data"), content.get("metadata")
    return (data if isinstance(data, Mapping) else {}, metadata if isinstance(metadata, Mapping) else {})


def _display_id(content: Mapping[str, Any]) -> str | None:
    transient = content.get("transient")
    value = transient.get("display_id") if isinstance(transient, Mapping) else None
    return value if isinstance(value, str) else None


def collapse_carriage_returns(text: str) -> str:
    """Return what a terminal would show of a text in which ``\\r`` goes back to the start of the line.

    A ``\\r`` that is the last character of the text, or that stands before a line's end, is kept in its effect: later text
    may still overwrite the line, so the open last line keeps one leading ``\\r``-free version and its ``\\r``.
    """
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(_shown(line, last=index == len(lines) - 1) for index, line in enumerate(lines))


def _shown(line: str, *, last: bool) -> str:
    if "\r" not in line:
        return line
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    # An open line that ends in a carriage return must go on overwriting when the next piece comes.
    return shown + "\r" if last and line.endswith("\r") else shown
