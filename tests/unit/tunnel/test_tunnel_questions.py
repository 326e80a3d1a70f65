"""Which messages of a kernel may overtake output that is under way."""

from __future__ import annotations

import json

import pytest

from colab_bridge.agent.tunnel.kernel import is_interactive


def parts(msg_type: str, parent_type: str) -> list[bytes]:
    header, parent = ({"msg_id": "m", "msg_type": name} for name in (msg_type, parent_type))
    return [json.dumps(header).encode(), json.dumps(parent).encode(), b"{}", b"{}"]


@pytest.mark.parametrize("question", ["complete", "inspect", "is_complete", "history", "kernel_info", "comm_info"])
def test_the_answer_to_a_question_and_its_states_may(question: str) -> None:
    assert is_interactive("shell", parts(f"{question}_reply", f"{question}_request"))
    assert is_interactive("iopub", parts("status", f"{question}_request"))


def test_the_answer_to_an_interrupt_may() -> None:
    assert is_interactive("control", parts("interrupt_reply", "interrupt_request"))


@pytest.mark.parametrize("request_type", ["execute_request", "comm_open", "comm_msg", "debug_request"])
def test_the_state_of_what_publishes_output_may_not(request_type: str) -> None:
    # A front end takes no more output of a request once it has its idle state.
    assert not is_interactive("iopub", parts("status", request_type))


def test_what_is_published_may_not() -> None:
    assert not is_interactive("iopub", parts("comm_msg", "complete_request"))
    assert not is_interactive("stdin", parts("input_request", "complete_request"))
