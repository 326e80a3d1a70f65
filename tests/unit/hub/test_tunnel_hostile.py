"""An agent that lies about its journal: nothing crashes, nothing grows without end, nothing of others stands still."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from agent_in_memory import DOWN, MemoryLink
from colab_bridge.agent.events import StreamData
from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.kernels.upstream_tunnel import MAX_MESSAGE_BYTES
from scripted_upstream import busy, idle, reply, request, stream
from test_tunnel import Tunnelled, tunnelled

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def piece(scene: Tunnelled, number: int, payload: bytes, *, first: bool, final: bool) -> None:
    link_stream = scene.link.stream
    link_stream.seq += 1
    header = {"k": DOWN} if first else None
    data = StreamData(stream=2, seq=link_stream.seq, number=number, header=header, payload=payload, final=final)
    link_stream.handler.data(data)


async def test_an_endless_journal_fills_no_more_than_the_records_limit(tmp_path: Path) -> None:
    limit = 8 * MIB
    async with tunnelled(tmp_path) as scene:
        scene.record.close()
        scene.record = scene.hub.record = MessageRecord.open(tmp_path, max_bytes=limit)
        scene.up()
        text = "x" * 100_000
        for _ in range(10):
            scene.link.say(*(stream("a", text) for _ in range(50)))
            scene.link.deliver()
        assert scene.link.stream.consumed_seq == 500
        assert folder_bytes(tmp_path) < 2 * limit


async def test_a_message_without_an_end_is_not_kept_and_the_next_one_arrives(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        part = bytes(8 * MIB)  # one object, so that the test itself needs no memory
        count = MAX_MESSAGE_BYTES // len(part) + 2
        for number in range(count):
            piece(scene, 1, part, first=number == 0, final=number == count - 1)
        scene.link.stream.following = 2
        scene.link.journal.append((DOWN, b""))
        scene.link.say(stream("a", "next"))
        scene.link.deliver()
        assert scene.texts() == ["next"]
        assert [note["type"] for note in scene.notes()] == ["lost"]
        assert scene.link.stream.consumed_seq == scene.link.stream.seq


@pytest.mark.parametrize("end", [2**70, -5, 0, True])
async def test_a_lie_about_the_end_of_the_journal_stops_no_execution(tmp_path: Path, end: int) -> None:
    link = MemoryLink()
    link.end = end
    async with tunnelled(tmp_path, link, adopt=True) as scene:
        scene.up()
        await anyio.wait_all_tasks_blocked()
        scene.hub.submit(request("r1"))
        link.say(busy("r1"), stream("r1", "done\n"), reply("r1"), idle("r1"))
        link.deliver()
        assert scene.texts() == ["done\n"]
        assert [m.msg_id for m in scene.messages(EntryKind.UP)] == ["r1"]


@pytest.mark.parametrize("number", [2**31, 2**63 - 1, 2**63, 2**64 - 1])
async def test_numbers_that_jump_are_recorded_and_what_falls_back_is_dropped(tmp_path: Path, number: int) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.link.say(stream("a", "first"))
        scene.link.deliver()
        body = scene.link.journal[0][1]
        piece(scene, number, body, first=True, final=True)
        piece(scene, 2, body, first=True, final=True)
        assert scene.texts() == ["first", "first"]
        assert scene.link.stream.consumed_seq == scene.link.stream.seq
        assert scene.hub.state.value != "dead"
