"""The tunnel under a hub: every entry of the journal once, every request once, whatever is cut or killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_in_memory import MemoryLink
from colab_bridge.agent.events import StreamData
from colab_bridge.errors import UserError
from colab_bridge.kernels.hub import HubKernel, note_of
from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.kernels.upstream_tunnel import MAX_QUEUED_BYTES, MAX_REQUEST_BYTES, TunnelError, TunnelUpstream
from colab_bridge.model.records import KernelState
from colab_bridge.ports.upstream import LinkState
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import RawMessage
from scripted_upstream import ManualClock, busy, from_kernel, idle, reply, request, stream

pytestmark = pytest.mark.anyio


class Tunnelled:
    """A hub with a real record over a tunnel to an agent in memory."""

    def __init__(self, folder: Path, link: MemoryLink, *, adopt: bool = False) -> None:
        self.link = link
        self.clock = ManualClock()
        self.record = MessageRecord.open(folder)
        self.upstream = TunnelUpstream(link, "remote-1", lambda: self.record.last_origin)  # type: ignore[arg-type]
        self.hub = HubKernel("kernel-1", self.record, self.upstream, self.clock, lambda hub: None)
        if adopt:
            self.hub.adopt(after=0, server_says_busy=None)
            self.hub.declare_takeover()

    def up(self) -> None:
        self.upstream.link_changed(LinkState.CONNECTED, "")
        self.link.open()

    def cut(self) -> None:
        self.upstream.link_changed(LinkState.RECONNECTING, "nothing was heard for 5 s")

    def entries(self) -> list[Any]:
        found: list[Any] = []
        while batch := self.record.read(found[-1].seq if found else 0):
            found += batch
        return found

    def messages(self, kind: EntryKind = EntryKind.DOWN) -> list[RawMessage]:
        return [decode_v1(entry.body) for entry in self.entries() if entry.kind is kind]

    def notes(self) -> list[dict[str, Any]]:
        return [note_of(entry) for entry in self.entries() if entry.kind is EntryKind.NOTE]

    def texts(self) -> list[str]:
        return [m.content_fields()["text"] for m in self.messages() if m.msg_type == "stream"]


@contextlib.asynccontextmanager
async def tunnelled(folder: Path, link: MemoryLink | None = None, *, adopt: bool = False) -> AsyncIterator[Tunnelled]:
    scene = Tunnelled(folder, link or MemoryLink(), adopt=adopt)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.hub.run)
        await _turn()
        yield scene
        tasks.cancel_scope.cancel()
    scene.hub.close()


async def _turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_every_entry_is_recorded_with_its_number_and_acknowledged(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.link.say(busy("a"), stream("a", "1\n"), idle("a"))
        scene.link.deliver()
        assert [entry.origin for entry in scene.entries()] == [1, 2, 3]
        assert scene.link.stream.consumed_seq == 3


async def test_a_request_of_our_own_that_comes_back_leaves_a_small_note_and_is_not_recorded_twice(
    tmp_path: Path,
) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.hub.submit(request("r1"))
        scene.link.deliver()
        assert [m.msg_id for m in scene.messages(EntryKind.UP)] == ["r1"]
        assert scene.notes() == [{"type": "sent", "msg_id": "r1"}]
        assert scene.record.last_origin == 1


async def test_a_request_of_somebody_else_is_recorded_and_makes_the_kernel_busy(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.link.foreign(request("job-1"))
        scene.link.deliver()
        assert [m.msg_id for m in scene.messages(EntryKind.UP)] == ["job-1"]
        assert scene.hub.busy
        assert scene.hub.knows("job-1")
        scene.link.say(reply("job-1"), idle("job-1"))
        scene.link.deliver()
        assert not scene.hub.busy


async def test_a_cut_declares_nothing_lost_and_asks_the_kernel_nothing(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.hub.submit(request("r1"))
        scene.link.say(busy("r1"), stream("r1", "1\n"))
        scene.link.deliver()
        scene.cut()
        assert scene.hub.state is KernelState.RECONNECTING
        scene.link.say(stream("r1", "2\n"), reply("r1"), idle("r1"))
        scene.up()
        scene.link.deliver()
        assert scene.texts() == ["1\n", "2\n"]
        assert [m.msg_id for m in scene.link.received] == ["r1"]
        assert [note for note in scene.notes() if note["type"] == "lost"] == []
        assert scene.hub.state is KernelState.IDLE


async def test_a_kernel_that_comes_to_a_link_that_is_up_already_is_connected_at_once(tmp_path: Path) -> None:
    scene = Tunnelled(tmp_path, MemoryLink())
    scene.upstream.link_changed(LinkState.CONNECTED, "")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.hub.run)
        await _turn()
        assert scene.hub.state is KernelState.IDLE
        tasks.cancel_scope.cancel()
    scene.hub.close()


async def test_a_request_that_is_sent_while_the_link_is_down_arrives(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.cut()
        scene.link.stream.room = 0
        scene.hub.submit(request("r1"))
        scene.hub.submit(request("r2"))
        assert scene.link.received == []
        scene.link.stream.room = 1 << 20
        scene.link.stream.handler.writable()
        assert [m.msg_id for m in scene.link.received] == ["r1", "r2"]


async def test_after_a_reset_of_the_agent_only_what_its_journal_has_not_shown_is_sent_again(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.hub.submit(request("r1"))
        scene.link.deliver()
        scene.link.listening = False
        scene.hub.submit(request("r2"))
        scene.hub.submit(request("r3"))
        scene.link.inbox.clear()
        scene.link.listening = True
        scene.link.reset()
        scene.up()
        scene.link.deliver()
        assert [m.msg_id for m in scene.link.received] == ["r1", "r2", "r3"]
        assert scene.link.stream.resume_from == 2
        assert [note["msg_id"] for note in scene.notes() if note["type"] == "sent"] == ["r1", "r2", "r3"]


async def test_a_reset_in_the_middle_of_a_large_message_brings_it_whole(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.link.chunk = 1000
        scene.link.say(stream("a", "x" * 5000))
        number = scene.link.stream
        scene.link.deliver()
        scene.link.say(stream("a", "y" * 5000), stream("a", "end"))
        scene.link.stream.following += 1  # the pieces of the second one are delivered by hand
        body = scene.link.journal[1][1]
        number.handler.data(
            StreamData(stream=2, seq=900, number=2, header={"k": 0, "t": 1.0}, payload=body[:1000], final=False)
        )
        scene.link.reset()
        assert scene.link.stream.resume_from == 2
        scene.up()
        scene.link.deliver()
        assert scene.texts() == ["x" * 5000, "y" * 5000, "end"]


async def test_a_new_daemon_goes_on_at_the_cursor_and_declares_nothing_lost(tmp_path: Path) -> None:
    link = MemoryLink()
    async with tunnelled(tmp_path, link) as first:
        first.up()
        first.hub.submit(request("r1"))
        link.say(busy("r1"), stream("r1", "1\n"))
        link.deliver()
    link.say(stream("r1", "2\n"), reply("r1"), idle("r1"))
    async with tunnelled(tmp_path, link, adopt=True) as second:
        assert link.stream.resume_from == 4
        second.up()
        link.deliver()
        await _turn()
        assert second.texts() == ["1\n", "2\n"]
        assert [note for note in second.notes() if note["type"] == "lost"] == []
        assert not second.hub.busy
        assert [m.msg_id for m in link.received] == ["r1"]


async def test_a_kernel_counts_as_busy_until_the_journal_is_read_up_to_its_end(tmp_path: Path) -> None:
    link = MemoryLink()
    link.say(stream("other", "1\n"), stream("other", "2\n"))
    async with tunnelled(tmp_path, link, adopt=True) as scene:
        assert scene.hub.busy
        scene.up()
        link.deliver(1)
        await _turn()
        assert scene.hub.busy
        link.deliver()
        assert not scene.hub.busy
        assert scene.hub.state is KernelState.IDLE


async def test_an_empty_journal_is_caught_up_at_once(tmp_path: Path) -> None:
    async with tunnelled(tmp_path, adopt=True) as scene:
        scene.up()
        await _turn()
        assert not scene.hub.busy


async def test_a_recorded_request_that_never_left_the_killed_daemon_is_sent_by_the_next_one(tmp_path: Path) -> None:
    link = MemoryLink()
    async with tunnelled(tmp_path, link) as first:
        first.up()
        first.hub.submit(request("r1"))
        link.say(busy("r1"), reply("r1"), idle("r1"))
        link.deliver()
        link.listening = False
        first.hub.submit(request("r2"))
        first.hub.submit(RawMessage.build("control", "interrupt_request", {}, msg_id="stop", session="front"))
        first.hub.submit(request("r3"))
        link.inbox.clear()
    link.listening = True
    async with tunnelled(tmp_path, link, adopt=True) as second:
        second.up()
        assert [m.msg_id for m in link.received] == ["r1", "r2", "r3"]


async def test_a_request_whose_arrival_is_on_record_is_not_sent_again_by_the_next_daemon(tmp_path: Path) -> None:
    link = MemoryLink()
    async with tunnelled(tmp_path, link) as first:
        first.up()
        first.hub.submit(request("r1"))
        link.deliver()
    link.received.clear()  # an agent that has forgotten everything would run it a second time
    async with tunnelled(tmp_path, link, adopt=True) as second:
        second.up()
        assert link.received == []
        assert second.hub.knows("r1")


async def test_entries_that_the_journal_does_not_keep_are_declared_lost_once(tmp_path: Path) -> None:
    link = MemoryLink()
    async with tunnelled(tmp_path, link) as first:
        first.up()
        first.link.stream.handler.gap(1, 7)
        assert [note["type"] for note in first.notes()] == ["lost"]
        assert "1 to 7" in first.notes()[0]["text"]
    async with tunnelled(tmp_path, link, adopt=True):
        assert link.stream.resume_from == 8


async def test_the_death_of_a_kernel_comes_out_of_the_journal(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.hub.submit(request("r1"))
        scene.link.say(busy("r1"))
        scene.link.note(type="died", text="the kernel process has ended (signal 9)")
        scene.link.deliver()
        assert scene.hub.state is KernelState.DEAD
        assert "signal 9" in scene.hub.died


async def test_a_restart_on_purpose_is_no_death(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        with scene.hub.restarting():
            scene.link.note(type="died", text="the process has ended")
        scene.link.note(type="restarted", text="another process")
        scene.link.deliver()
        assert scene.hub.state is KernelState.IDLE
        assert [note["type"] for note in scene.notes()] == ["restarted"]
        scene.link.note(type="died", text="the process has ended")
        scene.link.deliver()
        assert scene.hub.state is KernelState.DEAD


async def test_a_forged_note_does_not_reach_the_record(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.link.note(type="finished", run="run-1", exit_code=0)
        scene.link.note(type="job", job="j", event="next", index=2, msg_id="m", extra="x" * 1000)
        scene.link.deliver()
        assert scene.notes() == [{"type": "job", "job": "j", "event": "next", "index": 2, "msg_id": "m"}]


async def test_garbage_in_the_journal_is_said_and_the_rest_arrives(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.link.journal += [(0, b"no frame"), (1, b""), (2, b"[" * 5000), (77, b"{}"), (0, b"\xff" * 100)]
        scene.link.say(stream("a", "after"))
        scene.link.deliver()
        assert scene.texts() == ["after"]
        assert scene.link.stream.consumed_seq == scene.link.stream.seq


async def test_a_request_larger_than_a_server_takes_goes_up_in_pieces(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.link.stream.room = 5 * 2**20
        big = request("big", code="x" * 12 * 2**20)
        scene.hub.submit(big)
        assert scene.link.received == []
        scene.link.stream.room = 20 * 2**20
        scene.link.stream.handler.writable()
        assert scene.link.received == [big]


async def test_what_waits_for_the_link_is_bounded(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.link.stream.room = 0
        big = b"x" * (MAX_REQUEST_BYTES - 1000)
        messages = [
            RawMessage.build("shell", "comm_msg", {}, msg_id=f"m{number}", session="front", buffers=[big])
            for number in range(MAX_QUEUED_BYTES // len(big) + 1)
        ]
        for message in messages[:-1]:
            scene.upstream.send(message)
        with pytest.raises(UserError, match="too much"):
            scene.upstream.send(messages[-1])


async def test_a_request_that_the_agent_could_not_take_is_refused_with_a_way_out(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        buffers = [b"x" * MAX_REQUEST_BYTES]
        message = RawMessage.build("shell", "comm_msg", {}, msg_id="m", session="front", buffers=buffers)
        with pytest.raises(UserError, match="too large"):
            scene.upstream.send(message)


async def test_a_kernel_that_the_agent_cannot_reach_gives_back_what_was_sent(tmp_path: Path) -> None:
    link = MemoryLink()
    record = MessageRecord.open(tmp_path)
    upstream = TunnelUpstream(link, "remote-1", lambda: 0)  # type: ignore[arg-type]
    hub = HubKernel("kernel-1", record, upstream, ManualClock(), lambda hub: None)
    link.listening = False
    upstream.send(request("r1"))

    async def refuse() -> None:
        await _turn()
        upstream.link_changed(LinkState.CONNECTED, "")
        link.open()
        link.stream.handler.closed("unreachable", "the kernel's connection file cannot be read")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refuse)
        with pytest.raises(TunnelError, match="connection file") as caught:
            await upstream.run(hub.events())
    assert caught.value.untouched
    assert [m.msg_id for m in upstream.take_unsent(untouched=True)] == ["r1"]
    record.close()


async def test_a_reply_that_overtakes_goes_to_viewers_at_once_and_into_the_record_in_its_place(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as scene:
        scene.up()
        scene.hub.submit(RawMessage.build("shell", "complete_request", {}, msg_id="c", session="front"))
        shown: list[RawMessage] = []
        overtaking, stranger = (from_kernel("shell", "complete_reply", {}, parent) for parent in "cx")
        with scene.hub.showing_early(shown.append):
            for kernel, message in (("remote-1", overtaking), ("remote-1", stranger), ("remote-2", overtaking)):
                scene.link.tell("tunnel.early", {"kernel": kernel}, encode_v1(message))
            scene.link.tell("tunnel.early", {"kernel": "remote-1"}, b"no message")
        scene.link.tell("tunnel.early", {"kernel": "remote-1"}, encode_v1(overtaking))
        assert shown == [overtaking]
        assert scene.messages(EntryKind.DOWN) == []
        scene.link.say(stream("a", "before"), overtaking)
        scene.link.deliver()
        assert scene.messages(EntryKind.DOWN)[-1] == overtaking
    assert scene.link.subscribers == []
