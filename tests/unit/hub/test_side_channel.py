"""What code on a runtime asks of the user's machine: taken out of the messages, answered past the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.ports.side import SideLine
from colab_bridge.wire.colab_side import DownloadOffer, SideRequest
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.masking import MASK
from colab_bridge.wire.message import RawMessage
from scripted_upstream import Scene, from_kernel, idle, reply, request, stream


class Desk:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.requests: list[SideRequest] = []
        self.offers: list[DownloadOffer] = []
        self.comms: list[RawMessage] = []
        self.lines: list[SideLine] = []

    def asked(self, line: SideLine, request: SideRequest) -> None:
        self.lines.append(line)
        self.requests.append(request)

    def offered(self, line: SideLine, offer: DownloadOffer) -> bool:
        self.lines.append(line)
        self.offers.append(offer)
        return True

    def heard(self, line: SideLine, message: RawMessage) -> bool:
        mine = message.content_fields().get("comm_id") == "ours"
        if mine:
            self.comms.append(message)
        return mine


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def scene(tmp_path: Path, desk: Desk) -> Scene:
    made = Scene(tmp_path / "record")
    made.connect()
    made.hub.set_side(desk)
    return made


def asks(kind: str, number: int | None, parent: str = "cell", **fields: Any) -> RawMessage:
    metadata = {"colab_request_type": kind, **({} if number is None else {"colab_msg_id": number})}
    return from_kernel("iopub", "colab_request", {"request": fields}, parent, metadata=metadata)


async def test_a_request_reaches_the_desk_and_no_viewer(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("GetSecret", 1, key="HF"))
    assert [(r.kind, r.reply_id) for r in desk.requests] == [("GetSecret", 1)]
    assert scene.down() == []


async def test_an_answer_goes_to_the_kernel_and_into_no_file(scene: Scene, desk: Desk, tmp_path: Path) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("GetSecret", 1, key="HF"))
    desk.lines[0].answer(desk.requests[0], {"payload": "hf_geheim"})
    sent = scene.upstream.sent[-1]
    assert sent.content_fields()["value"] == {
        "type": "colab_reply",
        "colab_msg_id": 1,
        "data": {"payload": "hf_geheim"},
    }
    assert sent.parent_id == "cell"
    scene.hub.close()
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and b"hf_geheim" in f.read_bytes()]


async def test_a_request_that_waits_for_no_answer_gets_none(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("cell_display_stdin", None))
    desk.lines[0].answer(desk.requests[0], None)
    desk.lines[0].fail(desk.requests[0], "no")
    assert [m.msg_id for m in scene.upstream.sent] == ["cell"]


async def test_what_the_kernel_says_later_hides_what_was_handed_out(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("GetSecret", 1, key="HF"))
    desk.lines[0].hide("hf_geheim")
    scene.say(stream("cell", "token: hf_geheim\n"))
    assert scene.down()[-1].content_fields()["text"] == f"token: {MASK}\n"


async def test_a_question_is_shown_in_the_cell_and_its_answer_stays_here(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("cell_javascript_eval", 2))
    answers: list[str | None] = []

    async def ask() -> None:
        answers.append(await desk.lines[0].ask("file? "))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        question = scene.down()[-1]
        assert (question.channel, question.msg_type, question.parent_id) == ("stdin", "input_request", "cell")
        assert question.content_fields() == {"prompt": "file? ", "password": False}
        scene.hub.submit(RawMessage.build("stdin", "input_reply", {"value": "a.csv"}, msg_id="r", session="front"))
    assert answers == ["a.csv"]
    assert [m.msg_id for m in scene.upstream.sent] == ["cell"]


async def test_nobody_is_asked_where_the_cell_takes_no_input(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell", allow_stdin=False))
    scene.say(asks("cell_javascript_eval", 2))
    assert await desk.lines[0].ask("file? ") is None
    assert scene.down() == []


async def test_a_question_ends_with_the_kernel(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("cell_javascript_eval", 2))
    answers: list[str | None] = []

    async def ask() -> None:
        answers.append(await desk.lines[0].ask("file? "))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            scene.hub.fail("gone")
    assert answers == [None]


async def test_a_word_of_ours_stands_in_the_cell(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("request_auth", 3, authType="dfs_ephemeral"))
    desk.lines[0].say("open this page")
    shown = scene.down()[-1]
    assert (shown.msg_type, shown.parent_id) == ("stream", "cell")
    assert shown.content_fields() == {"name": "stderr", "text": "open this page\n"}


async def test_comm_messages_of_ours_are_no_outputs(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("GetSecret", 1))
    opened = RawMessage.build("shell", "comm_open", {"comm_id": "ours"}, msg_id="open", session="side")
    desk.lines[0].send(opened)
    scene.say(from_kernel("iopub", "comm_msg", {"comm_id": "ours", "data": {}}, "open"), idle("open"))
    scene.say(from_kernel("iopub", "comm_msg", {"comm_id": "widget", "data": {}}, "cell"))
    assert len(desk.comms) == 1
    assert [m.content_fields().get("comm_id") for m in scene.down()] == ["widget"]


async def test_an_offered_file_is_not_shown_as_javascript(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    script = 'download("download_1", "a.csv", 3)'
    scene.say(from_kernel("iopub", "display_data", {"data": {"application/javascript": script}}, "cell"))
    assert [(o.target, o.name) for o in desk.offers] == [("download_1", "a.csv")]
    assert scene.down() == []


async def test_other_displays_pass(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(from_kernel("iopub", "display_data", {"data": {"text/plain": "x"}}, "cell"))
    assert [m.msg_type for m in scene.down()] == ["display_data"]


async def test_after_the_end_of_the_kernel_nothing_is_sent(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("GetSecret", 1))
    scene.hub.close()
    desk.lines[0].answer(desk.requests[0], {})
    assert [m.msg_id for m in scene.upstream.sent] == ["cell"]


async def test_what_a_user_types_is_sent_and_stands_in_no_file(scene: Scene, tmp_path: Path) -> None:
    scene.hub.submit(request("cell"))
    scene.say(from_kernel("stdin", "input_request", {"prompt": "pw", "password": True}, "cell"))
    scene.hub.submit(RawMessage.build("stdin", "input_reply", {"value": "geheim-1"}, msg_id="r", session="front"))
    assert scene.upstream.sent[-1].content_fields() == {"value": "geheim-1"}
    scene.hub.close()
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and b"geheim-1" in f.read_bytes()]


async def test_a_new_daemon_knows_an_answer_and_does_not_send_it_again(tmp_path: Path) -> None:
    first = Scene(tmp_path / "record")
    first.connect()
    first.hub.submit(request("cell"))
    first.say(from_kernel("stdin", "input_request", {"prompt": "name"}, "cell"))
    answer = RawMessage.build("stdin", "input_reply", {"value": "Ada"}, msg_id="r", session="front")
    first.hub.submit(answer)
    first.record.close()
    second = Scene(tmp_path / "record", record=MessageRecord.open(tmp_path / "record"))
    second.upstream.reliable = True
    second.hub.adopt(after=None, server_says_busy=True)
    second.connect()
    second.hub.submit(answer)
    assert "input_reply" not in second.upstream.types()
    ups = [decode_v1(entry.body) for entry in second.entries() if entry.kind is EntryKind.UP]
    assert [m.msg_type for m in ups] == ["execute_request", "input_reply"]


async def test_an_answer_without_an_object_is_one_without_data(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("request_auth", 4))
    scene.say(reply("cell"), idle("cell"))
    desk.lines[0].answer(desk.requests[0], None)
    assert scene.upstream.sent[-1].parent_id == ""


async def test_a_secret_is_hidden_in_an_error_that_is_put_back_from_its_reply(scene: Scene, desk: Desk) -> None:
    scene.hub.submit(request("cell"))
    scene.say(asks("GetSecret", 1))
    desk.lines[0].hide("geheim-2")
    failed = {"ename": "ValueError", "evalue": "geheim-2", "traceback": ["token geheim-2 is not valid"]}
    scene.say(idle("cell"), reply("cell", "error", **failed))
    assert [m.msg_type for m in scene.down()][-2:] == ["error", "execute_reply"]
    assert not [m for m in scene.down() if b"geheim-2" in m.content]
