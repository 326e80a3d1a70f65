"""What overtakes the record on its way to a viewer."""

from __future__ import annotations

import base64
import json

import anyio
import pytest

from colab_bridge.api.channels import EarlyLane
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import RawMessage

pytestmark = pytest.mark.anyio


class Viewer:
    """Takes texts when the test lets it."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.texts: list[str] = []

    async def send_text(self, text: str) -> None:
        await self.ready.wait()
        self.texts.append(text)


def answer(msg_id: str, text: str = "") -> RawMessage:
    return RawMessage.build("shell", "complete_reply", {"text": text}, msg_id=msg_id, session="s")


async def test_a_message_is_sent_byte_for_byte() -> None:
    viewer = Viewer()
    viewer.ready.set()
    async with anyio.create_task_group() as tasks:
        EarlyLane(viewer, tasks).show(answer("a"))  # type: ignore[arg-type]
    (sent,) = map(json.loads, viewer.texts)
    assert sent["type"] == "early"
    assert decode_v1(base64.b64decode(sent["message"])).msg_id == "a"


async def test_a_viewer_that_reads_nothing_costs_a_few_messages_and_later_gets_the_next_ones() -> None:
    viewer = Viewer()
    async with anyio.create_task_group() as tasks:
        lane = EarlyLane(viewer, tasks)  # type: ignore[arg-type]
        for number in range(1000):
            lane.show(answer(str(number)))
        lane.show(answer("large", "x" * 2_000_000))
        viewer.ready.set()
        await anyio.wait_all_tasks_blocked()
        assert len(viewer.texts) == 16
        lane.show(answer("next"))
    assert len(viewer.texts) == 17
