"""Widget state, against nbclient on the same messages."""

from __future__ import annotations

from typing import Any

import nbformat
from nbclient import NotebookClient

from colab_bridge.wire.widgets import STATE_MIME, WidgetState

OUTPUT = {"_model_module": "@jupyter-widgets/output", "_model_name": "OutputModel", "outputs": [], "msg_id": ""}
SLIDER = {
    "_model_module": "@jupyter-widgets/controls",
    "_model_name": "IntSliderModel",
    "_model_module_version": "2",
    "value": 1,
}


def opened(comm_id: str, state: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    return "comm_open", {"comm_id": comm_id, "target_name": "jupyter.widget", "data": {"state": state, **more}}


def update(comm_id: str, state: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    return "comm_msg", {"comm_id": comm_id, "data": {"method": "update", "state": state, **more}}


def stream(text: str) -> tuple[str, dict[str, Any]]:
    return "stream", {"name": "stdout", "text": text}


class _Silent:
    """Stands for the kernel to which nbclient reports an Output widget's state."""

    class session:
        @staticmethod
        def msg(*_: Any, **__: Any) -> None: ...

    class shell_channel:
        @staticmethod
        def send(_: Any) -> None: ...


def both(messages: list[tuple[Any, ...]]) -> tuple[Any, Any, WidgetState]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell()])
    client = NotebookClient(notebook)
    client.kc = _Silent()
    client.clear_before_next_output = False
    mine = WidgetState()
    for msg_type, content, *buffers in messages:
        content = nbformat.from_dict(content)
        message = {"msg_type": msg_type, "header": {"msg_type": msg_type}, "parent_header": {"msg_id": "p"}}
        client.process_message({**message, "content": content, "buffers": buffers}, notebook.cells[0], 0)
        mine.apply(msg_type, content, buffers, "p")
    client.set_widgets_metadata()
    return notebook.metadata.get("widgets"), mine.metadata().get("widgets"), mine


def test_state_and_buffers_are_stored_as_nbclient_stores_them() -> None:
    theirs, mine, _ = both(
        [
            opened("c1", dict(SLIDER)),
            (*opened("c2", dict(SLIDER), buffer_paths=[["a", 0], ["b"]]), b"one", b"two"),
            update("c1", {"value": 7}),
            (*update("c2", {}, buffer_paths=[["b"]]), b"three"),
            ("comm_close", {"comm_id": "c1", "data": {}}),
        ]
    )
    assert mine == theirs
    assert mine[STATE_MIME]["state"]["c1"]["state"]["value"] == 7


def test_an_output_widget_captures_what_nbclient_lets_it_capture() -> None:
    theirs, mine, _ = both(
        [
            opened("o", dict(OUTPUT)),
            stream("before"),
            update("o", {"msg_id": "p"}),
            stream("in "),
            stream("side"),
            ("clear_output", {"wait": True}),
            ("display_data", {"data": {"text/plain": "x"}, "metadata": {}}),
            update("o", {"msg_id": ""}),
            stream("after"),
        ]
    )
    assert mine == theirs
    assert [output["output_type"] for output in mine[STATE_MIME]["state"]["o"]["state"]["outputs"]] == ["display_data"]


def test_only_outputs_of_the_named_request_are_captured() -> None:
    state = WidgetState()
    state.apply(*opened("o", {**OUTPUT, "msg_id": "p"}))
    assert state.apply(*stream("x"), (), "p")
    assert not state.apply(*stream("x"), (), "q")


def test_the_innermost_of_nested_output_widgets_captures() -> None:
    state = WidgetState()
    for name in ("outer", "inner"):
        state.apply(*opened(name, dict(OUTPUT)))
        state.apply(*update(name, {"msg_id": "p"}))
    state.apply(*stream("deep"), (), "p")
    state.apply(*update("inner", {"msg_id": ""}))
    state.apply(*stream("shallow"), (), "p")
    models = state.metadata()["widgets"][STATE_MIME]["state"]
    texts = {name: models[name]["state"]["outputs"][0]["text"] for name in models}
    assert texts == {"outer": "shallow", "inner": "deep"}


def test_a_closed_output_widget_captures_no_more() -> None:
    state = WidgetState()
    state.apply(*opened("o", {**OUTPUT, "msg_id": "p"}))
    state.apply("comm_close", {"comm_id": "o", "data": {}})
    assert not state.apply(*stream("x"), (), "p")


def test_outputs_that_the_kernel_sets_replace_the_captured_ones() -> None:
    state = WidgetState()
    state.apply(*opened("o", {**OUTPUT, "msg_id": "p"}))
    state.apply(*stream("old"), (), "p")
    state.apply(*update("o", {"outputs": [{"output_type": "stream", "name": "stdout", "text": "new "}]}))
    state.apply(*stream("text"), (), "p")
    outputs = state.metadata()["widgets"][STATE_MIME]["state"]["o"]["state"]["outputs"]
    assert outputs == [{"output_type": "stream", "name": "stdout", "text": "new text"}]


def test_comms_of_other_targets_leave_no_state() -> None:
    state = WidgetState()
    state.apply("comm_open", {"comm_id": "x", "target_name": "other", "data": {"state": dict(SLIDER)}})
    state.apply(*update("x", {"value": 2}))
    assert state.metadata() == {}


def test_hostile_comm_messages_are_ignored() -> None:
    state = WidgetState()
    for content in ({}, {"comm_id": []}, {"comm_id": "a", "data": []}, {"comm_id": "a", "data": {"state": 1}}):
        for msg_type in ("comm_open", "comm_msg", "comm_close"):
            state.apply(msg_type, {"target_name": "jupyter.widget", **content})
    state.apply(*opened("a", dict(SLIDER), buffer_paths=[{}, [[]], ["ok"]]), [b"1", b"2", b"3"])
    model = state.metadata()["widgets"][STATE_MIME]["state"]["a"]
    assert [buffer["path"] for buffer in model["buffers"]] == [["ok"]]
