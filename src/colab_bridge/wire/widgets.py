"""Folds widget messages into the state that a notebook stores, so that widgets show without a kernel. Pure.

Source: ipywidgets, "Jupyter widget messaging protocol" 2.1; the notebook metadata schema
``application/vnd.jupyter.widget-state+json`` 2.0.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["WidgetState"]

STATE_MIME = "application/vnd.jupyter.widget-state+json"


class WidgetState:
    """The state of all widgets of one notebook, and which of them capture outputs."""

    def __init__(self) -> None:
        self._state: dict[str, dict[str, Any]] = {}
        self._buffers: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}

    def apply(self, msg_type: str, content: Mapping[str, Any], buffers: Sequence[bytes]) -> bool:
        """Take in one comm message.

        Returns:
            Whether it was one, and changed the state.
        """
        data = content.get("data")
        comm_id = content.get("comm_id")
        if msg_type not in ("comm_open", "comm_msg") or not isinstance(data, Mapping) or not isinstance(comm_id, str):
            return False
        state = data.get("state")
        if not isinstance(state, Mapping):
            return False
        if msg_type == "comm_open" and content.get("target_name") != "jupyter.widget":
            return False
        if msg_type == "comm_msg" and comm_id not in self._state:
            return False
        self._state.setdefault(comm_id, {}).update(state)
        self._keep_buffers(comm_id, data.get("buffer_paths"), buffers)
        return True

    def _keep_buffers(self, comm_id: str, paths: Any, buffers: Sequence[bytes]) -> None:
        if not isinstance(paths, list):
            return
        for path, buffer in zip(paths, buffers, strict=False):
            if isinstance(path, list):
                encoded = base64.b64encode(buffer).decode("ascii")
                self._buffers.setdefault(comm_id, {})[tuple(map(str, path))] = {
                    "data": encoded,
                    "encoding": "base64",
                    "path": path,
                }

    def metadata(self) -> dict[str, Any]:
        """Return the entry for the notebook's metadata; empty when there are no widgets."""
        models = {}
        for comm_id, state in self._state.items():
            model = {
                "model_name": state.get("_model_name"),
                "model_module": state.get("_model_module"),
                "model_module_version": state.get("_model_module_version"),
                "state": dict(state),
            }
            if comm_id in self._buffers:
                model["buffers"] = list(self._buffers[comm_id].values())
            if model["model_name"]:
                models[comm_id] = model
        if not models:
            return {}
        return {"widgets": {STATE_MIME: {"state": models, "version_major": 2, "version_minor": 0}}}
