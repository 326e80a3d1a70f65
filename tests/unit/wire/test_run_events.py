"""Kernel messages as run events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.wire.events import event_from_message, traceback_text
from colab_bridge.wire.message import MessageError, RawMessage

BUNDLE = {"data": {"text/plain": "x"}, "metadata": {}}


def message(msg_type: str, content: Any, channel: str = "iopub") -> RawMessage:
    return RawMessage(channel, json.dumps({"msg_type": msg_type}).encode(), b"{}", b"{}", json.dumps(content).encode())


@pytest.mark.parametrize(
    ("msg_type", "content", "event"),
    [
        ("stream", {"name": "stderr", "text": "t"}, {"type": "stream", "name": "stderr", "text": "t"}),
        ("display_data", BUNDLE, {"type": "display", **BUNDLE, "display_id": None}),
        (
            "update_display_data",
            {**BUNDLE, "transient": {"display_id": "d"}},
            {"type": "update_display", **BUNDLE, "display_id": "d"},
        ),
        ("execute_result", {**BUNDLE, "execution_count": 4}, {"type": "result", **BUNDLE, "execution_count": 4}),
        (
            "error",
            {"ename": "E", "evalue": "v", "traceback": ["a"]},
            {"type": "error", "ename": "E", "evalue": "v", "traceback": ["a"]},
        ),
        ("clear_output", {"wait": True}, {"type": "clear_output", "wait": True}),
    ],
)
def test_an_output_message_becomes_its_event(msg_type: str, content: Any, event: Any) -> None:
    assert event_from_message(7, message(msg_type, content)) == {"seq": 7, **event}


def test_a_question_on_stdin_becomes_an_event() -> None:
    asked = message("input_request", {"prompt": "? ", "password": True}, "stdin")
    assert event_from_message(1, asked) == {"seq": 1, "type": "input_request", "prompt": "? ", "password": True}


@pytest.mark.parametrize("msg_type", ["status", "execute_input", "comm_msg", "unheard_of"])
def test_other_iopub_messages_are_no_events(msg_type: str) -> None:
    assert event_from_message(1, message(msg_type, {})) is None


def test_replies_are_no_events() -> None:
    assert event_from_message(1, message("error", {"ename": "E"}, "shell")) is None


def test_content_that_is_no_object_raises_a_message_error() -> None:
    with pytest.raises(MessageError):
        event_from_message(1, message("stream", [1]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda kids: st.lists(kids, max_size=3) | st.dictionaries(st.text(max_size=4), kids, max_size=3),
    max_leaves=6,
)
KEYS = ["data", "metadata", "transient", "name", "text", "ename", "evalue", "traceback", "wait", "prompt", "password"]
KINDS = ["stream", "display_data", "execute_result", "update_display_data", "error", "clear_output", "input_request"]


@given(st.sampled_from(KINDS), st.sampled_from(["iopub", "stdin"]), st.dictionaries(st.sampled_from(KEYS), JSON))
def test_hostile_content_gives_none_or_an_event_that_json_can_carry(kind: str, channel: str, content: Any) -> None:
    event = event_from_message(1, message(kind, content, channel))
    assert event is None or json.loads(json.dumps(event)) == event
    assert event is None or all(isinstance(line, str) for line in event.get("traceback", []))


def test_a_traceback_is_given_without_colours_and_links() -> None:
    content = {"traceback": ["\x1b[0;31mValueError\x1b[0m: no", "\x1b]8;;http://x\x1b\\here\x1b]8;;\x07"]}
    assert traceback_text(content) == "ValueError: no\nhere"


def test_without_a_traceback_there_is_name_and_value() -> None:
    assert traceback_text({"ename": "Error", "evalue": "broken", "traceback": []}) == "Error: broken"


def test_a_traceback_of_the_wrong_type_is_no_error() -> None:
    assert traceback_text({"ename": 3, "traceback": {"a": 1}}) == ""
