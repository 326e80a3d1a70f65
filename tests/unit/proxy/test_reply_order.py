"""Replies of executions and what the executions publish, in the order that front ends rely on."""

from __future__ import annotations

import anyio
import pytest

from colab_bridge.kernels.proxy import reply_order as module
from colab_bridge.kernels.proxy.reply_order import ReplyOrder
from colab_bridge.wire.message import RawMessage

pytestmark = pytest.mark.anyio


class FrontEnds:
    """Takes what is passed on, and names each by its type and the cell that it belongs to."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.changed = anyio.Event()

    def take(self, message: RawMessage) -> None:
        state = message.content_fields().get("execution_state", "")
        self.got.append(f"{state or message.msg_type} {message.parent_id}")
        self.changed.set()


def cell(msg_id: str) -> dict[str, str]:
    return {"msg_id": msg_id, "msg_type": "execute_request"}


def reply(msg_id: str) -> RawMessage:
    return RawMessage.build("shell", "execute_reply", {"status": "ok"}, msg_id="r", session="s", parent=cell(msg_id))


def printed(msg_id: str) -> RawMessage:
    return RawMessage.build("iopub", "stream", {"text": "x"}, msg_id="p", session="s", parent=cell(msg_id))


def idle(parent: dict[str, str]) -> RawMessage:
    return RawMessage.build("iopub", "status", {"execution_state": "idle"}, msg_id="i", session="s", parent=parent)


@pytest.fixture
def front_ends() -> FrontEnds:
    return FrontEnds()


async def test_a_reply_that_overtakes_its_output_is_passed_on_behind_it(front_ends: FrontEnds) -> None:
    order = ReplyOrder(front_ends.take)
    for message in (reply("a"), printed("a"), idle(cell("a"))):
        order.take(message)
    assert front_ends.got == ["stream a", "idle a", "execute_reply a"]


async def test_a_reply_behind_its_idle_is_passed_on_at_once(front_ends: FrontEnds) -> None:
    order = ReplyOrder(front_ends.take)
    for message in (printed("a"), idle(cell("a")), reply("a")):
        order.take(message)
    assert front_ends.got == ["stream a", "idle a", "execute_reply a"]


async def test_a_reply_waits_for_no_other_cell(front_ends: FrontEnds) -> None:
    order = ReplyOrder(front_ends.take)
    for message in (idle(cell("a")), reply("b"), reply("a"), idle(cell("b"))):
        order.take(message)
    assert front_ends.got == ["idle a", "execute_reply a", "idle b", "execute_reply b"]


async def test_other_replies_do_not_wait(front_ends: FrontEnds) -> None:
    order = ReplyOrder(front_ends.take)
    order.take(RawMessage.build("shell", "complete_reply", {}, msg_id="r", session="s", parent={"msg_id": "c"}))
    assert front_ends.got == ["complete_reply c"]


async def test_a_reply_whose_idle_was_lost_is_passed_on_in_the_end(
    front_ends: FrontEnds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    order = ReplyOrder(front_ends.take)
    order.take(reply("a"))
    assert front_ends.got == []
    with anyio.fail_after(5):
        await front_ends.changed.wait()
    order.take(idle(cell("a")))
    assert front_ends.got == ["execute_reply a", "idle a"]


async def test_at_the_end_no_reply_is_left_behind(front_ends: FrontEnds) -> None:
    order = ReplyOrder(front_ends.take)
    order.take(reply("a"))
    order.close()
    assert front_ends.got == ["execute_reply a"]
