"""Who asked what, and what must be sent again."""

from __future__ import annotations

import pytest

from colab_bridge.kernels.proxy import outbox as module
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.wire.message import RawMessage


def sent(msg_id: str, msg_type: str = "execute_request", channel: str = "shell", size: int = 0) -> RawMessage:
    return RawMessage.build(channel, msg_type, {}, msg_id=msg_id, session="front", buffers=[bytes(size)])


def answer(msg_type: str, parent: str, channel: str = "shell") -> RawMessage:
    return RawMessage.build(channel, msg_type, {}, msg_id="k", session="kernel", parent={"msg_id": parent})


def ids(outbox: Outbox) -> list[str]:
    return [message.msg_id for message in outbox.unanswered()]


def test_a_reply_goes_to_whoever_asked_and_ends_the_request() -> None:
    outbox = Outbox()
    outbox.add(sent("a"), [b"one"])
    outbox.add(sent("b"), [b"two"])
    assert outbox.asker(answer("execute_reply", "b")) == [b"two"]
    assert outbox.asker(answer("execute_reply", "b")) is None
    assert ids(outbox) == ["a"]


def test_a_question_goes_to_whoever_runs_the_cell_and_leaves_it_running() -> None:
    outbox = Outbox()
    outbox.add(sent("a"), [b"one"])
    assert outbox.asker(answer("input_request", "a", "stdin")) == [b"one"]
    assert ids(outbox) == ["a"]


def test_a_reply_to_somebody_else_belongs_to_nobody_here() -> None:
    assert Outbox().asker(answer("execute_reply", "unknown")) is None


def test_what_is_sent_again_keeps_its_order_over_both_kinds() -> None:
    outbox = Outbox()
    for msg_id, msg_type in [
        ("a", "comm_msg"),
        ("b", "execute_request"),
        ("c", "input_reply"),
        ("d", "complete_request"),
    ]:
        outbox.add(sent(msg_id, msg_type), [])
    assert ids(outbox) == ["a", "b", "c", "d"]


def test_an_answer_to_a_later_message_proves_that_earlier_ones_arrived() -> None:
    outbox = Outbox()
    for msg_id, msg_type in [("a", "comm_msg"), ("b", "execute_request"), ("c", "comm_msg")]:
        outbox.add(sent(msg_id, msg_type), [])
    outbox.settle(answer("status", "b", "iopub"))
    assert ids(outbox) == ["b", "c"]
    outbox.settle(answer("status", "c", "iopub"))
    assert ids(outbox) == ["b"]


def test_an_answer_to_an_earlier_message_proves_nothing_about_later_ones() -> None:
    outbox = Outbox()
    outbox.add(sent("a"), [])
    outbox.add(sent("b", "input_reply", "stdin"), [])
    outbox.settle(answer("stream", "a", "iopub"))
    assert ids(outbox) == ["a", "b"]


def test_requests_that_are_never_answered_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REQUESTS", 3)
    outbox = Outbox()
    for number in range(5):
        outbox.add(sent(str(number)), [])
    assert ids(outbox) == ["2", "3", "4"]


def test_one_way_messages_are_bounded_by_number_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ONE_WAY", 3)
    monkeypatch.setattr(module, "MAX_ONE_WAY_BYTES", 5_000)
    outbox = Outbox()
    for number in range(5):
        outbox.add(sent(str(number), "comm_msg"), [])
    assert ids(outbox) == ["2", "3", "4"]
    outbox.add(sent("big", "comm_msg", size=10_000), [])
    assert ids(outbox) == ["big"]


def test_the_oldest_execution_without_a_reply_is_the_running_one() -> None:
    outbox = Outbox()
    assert outbox.last_execute is None
    for msg_id in ("a", "b"):
        outbox.add(sent(msg_id), [])
    assert (outbox.executing or {})["msg_id"] == "a"
    outbox.asker(answer("execute_reply", "a"))
    outbox.asker(answer("execute_reply", "b"))
    assert outbox.executing is None
    assert (outbox.last_execute or {})["msg_id"] == "b"


def test_requests_of_one_kind_can_be_taken_out() -> None:
    outbox = Outbox()
    outbox.add(sent("a"), [b"x"])
    outbox.add(sent("b", "kernel_info_request"), [b"y"])
    assert [(m.msg_id, who) for m, who in outbox.take("kernel_info_request")] == [("b", [b"y"])]
    assert ids(outbox) == ["a"]
    assert [m.msg_id for m, _ in outbox.take()] == ["a"]
    assert ids(outbox) == []
