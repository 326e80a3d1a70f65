"""Folds comm messages into the widget state that a notebook keeps, and outputs into Output widgets. Pure.

Source: ipywidgets "Model state" and "Low level widget explanation"; the stored form and the capture of outputs are
those of nbclient (``set_widgets_metadata``, ``OutputWidget``). Unlike nbclient nothing is sent back to the kernel,
so the kernel's own ``Output.outputs`` stays empty.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from colab_bridge.wire.outputs import CellOutputs, DisplayRegistry

__all__ = ["STATE_MIME", "WidgetState"]

STATE_MIME = "application/vnd.jupyter.widget-state+json"

_TARGET = "jupyter.widget"
_CAPTURED = frozenset({"stream", "display_data", "execute_result", "error", "clear_output"})

BufferPath = tuple[str | int, ...]


class WidgetState:
    """The models of a notebook's widgets."""

    def __init__(self) -> None:
        self._states: dict[str, dict[str, Any]] = {}
        self._buffers: dict[str, dict[BufferPath, bytes]] = {}
        self._foreign: set[str] = set()
        self._displays = DisplayRegistry()
        self._outputs: dict[str, CellOutputs] = {}  # captured so far, by the comm id of the Output widget
        self._msg_ids: dict[str, str] = {}  # request whose outputs a widget captures now, by comm id
        self._hooks: dict[str, list[str]] = {}  # comm ids of the capturing widgets, by request; the last one has it

    def apply(
        self, msg_type: str, content: Mapping[str, Any], buffers: Sequence[bytes] = (), parent_id: str = ""
    ) -> bool:
        """Take in one iopub message.

        Args:
            msg_type: Any type.
            content: From a kernel; what makes no sense in it is left out.
            buffers: The message's binary attachments.
            parent_id: Request that the message belongs to; without it no output is captured.

        Returns:
            Whether the message is dealt with: then it is no output of a cell.
        """
        if msg_type in ("comm_open", "comm_msg", "comm_close"):
            self._comm(msg_type, content, buffers)
            return True
        if msg_type == "update_display_data":
            self._update_display(msg_type, content)
            return False
        if msg_type not in _CAPTURED or not self._hooks.get(parent_id):
            return False
        self._outputs[self._hooks[parent_id][-1]].apply(msg_type, content)
        return True

    def metadata(self) -> dict[str, Any]:
        """Return the entry for the notebook's metadata, ``{}`` where there are no widgets."""
        if not self._states:
            return {}
        models = {comm_id: self._model(comm_id) for comm_id, state in self._states.items() if "_model_name" in state}
        return {"widgets": {STATE_MIME: {"state": models, "version_major": 2, "version_minor": 0}}}

    def _model(self, comm_id: str) -> dict[str, Any]:
        state = dict(self._states[comm_id])
        if comm_id in self._outputs:
            state["outputs"] = self._outputs[comm_id].outputs
        model = {
            "model_name": state.get("_model_name"),
            "model_module": state.get("_model_module"),
            "model_module_version": state.get("_model_module_version"),
            "state": state,
        }
        buffers = self._buffers.get(comm_id)
        if buffers:
            model["buffers"] = [
                {"data": base64.b64encode(data).decode("ascii"), "encoding": "base64", "path": list(path)}
                for path, data in buffers.items()
            ]
        return model

    def _comm(self, msg_type: str, content: Mapping[str, Any], buffers: Sequence[bytes]) -> None:
        comm_id, data = content.get("comm_id"), content.get("data")
        if not isinstance(comm_id, str):
            return
        if msg_type == "comm_close":
            # As in nbclient the state stays: a notebook shows closed widgets as they were.
            self._foreign.discard(comm_id)
            self._capture(comm_id, "")
            return
        if msg_type == "comm_open" and content.get("target_name") != _TARGET:
            self._foreign.add(comm_id)
        if comm_id in self._foreign or not isinstance(data, dict) or not isinstance(data.get("state"), dict):
            return
        state = data["state"]
        self._states.setdefault(comm_id, {}).update(state)
        self._keep_buffers(comm_id, data.get("buffer_paths"), buffers)
        if msg_type == "comm_open" and _is_output_widget(state):
            self._outputs[comm_id] = CellOutputs(self._displays)
        if comm_id in self._outputs:
            self._update_output_widget(comm_id, state)

    def _keep_buffers(self, comm_id: str, paths: Any, buffers: Sequence[bytes]) -> None:
        if not isinstance(paths, list):
            return
        for path, data in zip(paths, buffers, strict=False):
            if isinstance(path, list) and all(isinstance(step, str | int) for step in path):
                self._buffers.setdefault(comm_id, {})[tuple(path)] = data

    def _update_output_widget(self, comm_id: str, state: Mapping[str, Any]) -> None:
        if isinstance(state.get("outputs"), list):
            outputs = [output for output in state["outputs"] if isinstance(output, dict)]
            self._outputs[comm_id].apply("clear_output", {})  # lets go of the displays in the old ones
            self._outputs[comm_id] = CellOutputs(self._displays, outputs=outputs)
        msg_id = state.get("msg_id")
        if isinstance(msg_id, str):
            self._capture(comm_id, msg_id)

    def _capture(self, comm_id: str, msg_id: str) -> None:
        old = self._msg_ids.pop(comm_id, "")
        if old:
            self._hooks[old].remove(comm_id)
            if not self._hooks[old]:
                del self._hooks[old]
        if msg_id:
            self._msg_ids[comm_id] = msg_id
            self._hooks.setdefault(msg_id, []).append(comm_id)

    def _update_display(self, msg_type: str, content: Mapping[str, Any]) -> None:
        CellOutputs(self._displays).apply(msg_type, content)


def _is_output_widget(state: Mapping[str, Any]) -> bool:
    return state.get("_model_module") == "@jupyter-widgets/output" and state.get("_model_name") == "OutputModel"
