"""Anything may come from a runtime: the hub, the events and the notebook take it without an exception."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colab_bridge.execution.assembler import NotebookAssembler, request_id
from colab_bridge.execution.events import event_of
from colab_bridge.execution.notebook_json import notebook_pieces
from colab_bridge.kernels.record import EntryKind
from colab_bridge.wire.message import MessageError, RawMessage, dump_json
from scripted_upstream import Scene, request

RUN = "run-1"
CELL = request_id(RUN, 0)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    [
        *(
            "execution_state",
            "status",
            "execution_count",
            "name",
            "text",
            "data",
            "metadata",
            "transient",
            "display_id",
        ),
        *("ename", "evalue", "traceback", "wait", "comm_id", "target_name", "state", "buffer_paths", "prompt"),
        *("user_expressions", "password", "code"),
    ]
)
words = st.sampled_from(["idle", "busy", "restarting", "dead", "error", "ok", "stdout", "d1", "jupyter.widget", ""])
widget = st.fixed_dictionaries(
    {
        "state": st.dictionaries(
            st.sampled_from(["msg_id", "outputs", "_model_name", "_model_module"]), json_values | words
        )
    }
)
bundles = st.dictionaries(st.sampled_from(["text/plain", "image/png", "application/json"]), json_values)
contents = st.dictionaries(fields, json_values | words | widget | bundles, max_size=5)
types = st.sampled_from(
    [
        *("status", "stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"),
        *("execute_reply", "execute_input", "comm_open", "comm_msg", "comm_close", "input_request", "shutdown_reply"),
        *("", "nonsense"),
    ]
)
parents = st.sampled_from([CELL, f"{RUN}.1", f"{RUN}.99999999", f"{RUN}.٣", "other", ""])
raw = st.sampled_from([b"", b"[]", b"null", b"{", b'{"msg_id": [1]}', b'{"msg_type": {}}', b"\xff\xfe", b"1" * 5000])


@st.composite
def messages(draw: st.DrawFn) -> RawMessage:
    content: Any = draw(contents)
    message = RawMessage.build(
        draw(st.sampled_from(["shell", "iopub", "stdin", "control"])),
        draw(types),
        content,
        msg_id=draw(st.text(max_size=5)),
        session="k",
        parent={"msg_id": draw(parents)},
        buffers=draw(st.lists(st.binary(max_size=4), max_size=2)),
    )
    if draw(st.integers(0, 9)) == 0:
        setattr(message, draw(st.sampled_from(["header", "parent", "metadata", "content"])), draw(raw))
    return RawMessage(
        message.channel, message.header, message.parent, message.metadata, message.content, message.buffers
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages(), max_size=25))
def test_no_message_of_a_kernel_breaks_the_hub_the_events_or_the_notebook(sequence: list[RawMessage]) -> None:
    anyio.run(_pass_all_through, sequence)


async def _pass_all_through(sequence: list[RawMessage]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder) / "record")
        scene.connect()
        scene.hub.submit(request(CELL))
        for message in sequence:
            scene.events.message(message)
        assembler = NotebookAssembler(RUN, collapse_progress=True)
        assembler.begin(0)
        for entry in scene.entries():
            event = event_of(entry, RUN)
            assert event is None or (event["seq"] == entry.seq and isinstance(event["type"], str))
            dump_json(event)
        for message in scene.down():
            try:
                assembler.apply(message)
            except MessageError:
                continue
        cells = [{"cell_type": "code", "source": "", "outputs": r.outputs} for r in assembler.results().values()]
        notebook = {"cells": cells, "metadata": assembler.metadata(), "nbformat": 4, "nbformat_minor": 5}
        json.loads(b"".join(notebook_pieces(notebook)))
        scene.hub.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(messages(), max_size=15))
def test_every_message_that_the_hub_took_can_be_read_back(sequence: list[RawMessage]) -> None:
    anyio.run(_record_all, sequence)


async def _record_all(sequence: list[RawMessage]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder) / "record")
        scene.connect()
        for message in sequence:
            scene.events.message(message)
        numbers = [entry.seq for entry in scene.entries()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert all(entry.kind is not EntryKind.UP for entry in scene.entries())
        scene.hub.close()
