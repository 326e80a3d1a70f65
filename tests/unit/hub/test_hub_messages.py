"""The hub over a scripted link and a real record."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from colab_bridge.kernels import idle_watch
from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.model.records import KernelState
from colab_bridge.ports.upstream import LinkState
from colab_bridge.wire.message import MessageError, RawMessage
from scripted_upstream import Scene, busy, from_kernel, idle, reply, request, stream


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path / "record")
    made.connect()
    return made


async def test_everything_that_passes_is_in_the_record_in_order(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(busy("a"), stream("a", "x"), reply("a"), idle("a"))
    kinds = [(entry.seq, entry.kind) for entry in scene.entries()]
    assert kinds == [(1, EntryKind.UP), *((n, EntryKind.DOWN) for n in range(2, 6))]
    assert [m.msg_type for m in scene.down()] == ["status", "stream", "execute_reply", "status"]


async def test_a_request_that_comes_twice_is_sent_once(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.hub.submit(request("a"))
    assert [m.msg_id for m in scene.upstream.sent] == ["a"]


async def test_the_kernel_is_busy_until_both_reply_and_idle_were_seen(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    assert scene.hub.state is KernelState.BUSY
    scene.say(idle("a"))
    assert scene.hub.busy
    scene.say(reply("a"))
    assert not scene.hub.busy
    assert scene.upstream.busy is False


async def test_an_idle_of_another_request_does_not_end_an_execution(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(idle("other"), reply("a"))
    assert scene.hub.busy


async def test_an_error_that_the_server_dropped_is_put_back_before_the_idle(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(reply("a", "error", ename="ValueError", evalue="no", traceback=["t"]), idle("a"))
    assert [m.msg_type for m in scene.down()] == ["execute_reply", "error", "status"]
    assert scene.down()[1].content_fields() == {"ename": "ValueError", "evalue": "no", "traceback": ["t"]}


async def test_an_error_that_arrived_is_not_doubled(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    error = from_kernel("iopub", "error", {"ename": "E", "evalue": "", "traceback": []}, "a")
    scene.say(error, reply("a", "error", ename="E"), idle("a"))
    assert [m.msg_type for m in scene.down()].count("error") == 1


async def test_an_error_is_put_back_when_the_reply_is_the_last_to_come(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(idle("a"), reply("a", "error", ename="E"))
    assert [m.msg_type for m in scene.down()] == ["status", "error", "execute_reply"]


async def test_a_request_that_is_too_large_is_answered_as_a_failed_one(scene: Scene) -> None:
    scene.upstream.refuse = True
    scene.hub.submit(request("a"))
    assert [m.msg_type for m in scene.down()] == ["error", "execute_reply", "status"]
    assert scene.down()[1].content_fields()["ename"] == "MessageTooLarge"
    assert {m.parent_id for m in scene.down()} == {"a"}
    assert scene.hub.state is KernelState.IDLE


async def test_a_request_that_cannot_be_read_is_refused_and_leaves_nothing(scene: Scene) -> None:
    broken = request("a")
    broken.content = b"[1]"
    with pytest.raises(MessageError):
        scene.hub.submit(broken)
    assert (scene.entries(), scene.upstream.sent, scene.hub.busy) == ([], [], False)


async def test_a_reply_that_cannot_be_read_still_ends_its_execution(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    broken = reply("a")
    broken.content = b"nonsense"
    scene.say(broken, idle("a"))
    assert not scene.hub.busy


async def test_a_message_without_a_readable_header_is_dropped(scene: Scene) -> None:
    scene.say(RawMessage("iopub", b"nonsense", b"{}", b"{}", b"{}"), stream("a", "after"))
    assert [m.content_fields()["text"] for m in scene.down()] == ["after"]


async def test_a_kernel_that_dies_ends_what_it_executed_and_says_so(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(from_kernel("iopub", "status", {"execution_state": "restarting"}, ""))
    assert scene.hub.state is KernelState.DEAD
    assert not scene.hub.busy
    assert [note["type"] for note in scene.notes()] == ["died"]


async def test_a_restart_on_purpose_is_no_death(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    with scene.hub.restarting():
        scene.say(from_kernel("iopub", "status", {"execution_state": "restarting"}, ""))
    assert scene.hub.state is KernelState.IDLE
    assert [note["type"] for note in scene.notes()] == ["restarted"]
    assert scene.upstream.reconnected


async def test_a_restart_that_fails_leaves_the_execution_under_way(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    with pytest.raises(OSError, match="no route"), scene.hub.restarting():
        raise OSError("no route")
    assert scene.hub.state is KernelState.BUSY
    assert scene.notes() == []


async def test_a_kernel_that_is_gone_is_dead_and_its_reason_is_told(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(idle("front-1"))
    scene.events.state(LinkState.GONE, "the server does not have it")
    assert (scene.hub.state, scene.hub.died) == (KernelState.DEAD, "the server does not have it")


async def test_a_gap_of_the_link_is_declared_in_the_record(scene: Scene) -> None:
    scene.events.gap("the server's buffer was full")
    assert scene.notes() == [{"type": "lost", "text": "the server's buffer was full"}]


async def test_a_link_that_goes_and_comes_is_told_once_each(scene: Scene) -> None:
    scene.cut()
    scene.cut()
    scene.connect()
    assert [note["state"] for note in scene.notes()] == ["reconnecting", "connected"]
    assert scene.states[-2:] == ["reconnecting", "idle"]


async def test_the_first_connection_is_no_news(scene: Scene) -> None:
    assert scene.notes() == []


async def test_a_word_of_the_kernel_is_a_sign_of_life_for_a_moment_and_while_the_link_is_up(scene: Scene) -> None:
    assert not scene.hub.heard_within(3)
    scene.say(stream("a", "x"))
    assert scene.hub.heard_within(3)
    scene.cut()
    assert not scene.hub.heard_within(3)
    scene.connect()
    scene.clock.now += 4
    assert not scene.hub.heard_within(3)


async def test_nothing_is_written_after_the_hub_was_closed(scene: Scene) -> None:
    scene.hub.close()
    scene.say(stream("a", "late"))
    assert scene.hub.note({"type": "late"}) == 0
    assert scene.hub.closed


async def test_a_reader_gets_what_was_there_and_what_comes_then_the_end(scene: Scene) -> None:
    scene.say(stream("a", "1"))
    seen: list[int] = []

    async def read() -> None:
        async for batch in scene.hub.record.follow(0):
            seen.extend(entry.seq for entry in batch)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            scene.say(stream("a", "2"))
            await anyio.wait_all_tasks_blocked()
            scene.hub.close()
    assert seen == [1, 2]


async def test_a_reader_whose_number_is_from_a_lost_future_gets_what_comes(scene: Scene) -> None:
    scene.say(stream("a", "1"))
    async with anyio.create_task_group() as tasks:
        seen: list[int] = []

        async def read() -> None:
            async for batch in scene.hub.record.follow(10_000):
                seen.extend(entry.seq for entry in batch)

        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        scene.say(stream("a", "2"))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert seen == [2]


# -- reconnects ----------------------------------------------------------------------------------------------


async def test_a_request_that_never_arrived_is_sent_again_after_a_reconnect(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.cut()
    scene.connect()
    fence = scene.upstream.sent[-1]
    scene.say(reply(fence.msg_id, count=0))
    assert [m.msg_id for m in scene.upstream.sent] == ["a", fence.msg_id, "a"]


async def test_a_request_that_had_begun_is_not_sent_again(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(busy("a"))
    scene.cut()
    scene.connect()
    fence = scene.upstream.sent[-1].msg_id
    scene.say(reply(fence, count=1), idle(fence))
    assert [m.msg_id for m in scene.upstream.sent].count("a") == 1
    assert "lost" in [note["type"] for note in scene.notes()]
    assert not scene.hub.busy


async def test_outputs_still_come_before_the_end_of_an_execution_whose_reply_was_lost(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(busy("a"))
    scene.cut()
    scene.connect()
    fence = scene.upstream.sent[-1].msg_id
    scene.say(reply(fence, count=1))
    assert scene.hub.busy
    scene.say(stream("a", "late"), idle("a"), idle(fence))
    assert [m.msg_type for m in scene.down()] == ["status", "execute_reply", "stream", "error", "status"]
    assert not scene.hub.busy


async def test_an_error_that_came_is_not_joined_by_that_of_the_lost_reply(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(busy("a"), from_kernel("iopub", "error", {"ename": "E", "evalue": "", "traceback": []}, "a"))
    scene.cut()
    scene.connect()
    fence = scene.upstream.sent[-1].msg_id
    scene.say(reply(fence, count=1), idle("a"), idle(fence))
    assert [m.msg_type for m in scene.down()].count("error") == 1
    assert not scene.hub.busy


async def test_the_replies_of_our_own_requests_are_nobodys_business(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.cut()
    scene.connect()
    fence = scene.upstream.sent[-1].msg_id
    scene.say(busy(fence), reply(fence, count=0), idle(fence))
    assert all(message.parent_id == "a" for message in scene.down())


async def test_a_fence_that_goes_down_with_its_connection_holds_nothing_back(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.cut()
    scene.connect()
    lost_fence = scene.upstream.sent[-1].msg_id
    scene.hub.submit(request("b"))
    scene.say(reply("a"), idle("a"))
    scene.cut()
    scene.connect()
    fence = scene.upstream.sent[-1].msg_id
    assert fence != lost_fence
    scene.say(reply(fence, count=1))
    assert scene.upstream.sent[-1].msg_id == "b"


async def test_what_was_sent_to_a_kernel_that_died_is_not_sent_to_its_successor(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(from_kernel("iopub", "status", {"execution_state": "dead"}, ""))
    scene.cut()
    scene.connect()
    assert scene.upstream.types() == ["execute_request"]


# -- a new daemon --------------------------------------------------------------------------------------------


async def sent(scene: Scene, count: int) -> None:
    """Wait until so many messages have been sent up, which a timer brings about."""
    with anyio.fail_after(20):
        while len(scene.upstream.sent) < count:
            await anyio.sleep(0.005)


def take_over(old: Scene, *, server_says_busy: bool | None, after: int | None = None) -> Scene:
    old.hub.close()
    scene = Scene(old.record.folder, record=MessageRecord.open(old.record.folder))
    scene.hub.adopt(after=after, server_says_busy=server_says_busy)
    return scene


async def test_a_new_daemon_knows_what_was_sent_before(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    new = take_over(scene, server_says_busy=True)
    new.hub.submit(request("a"))
    assert (new.upstream.sent, new.hub.busy) == ([], True)


async def test_a_new_daemon_does_not_send_again_what_a_restart_has_ended(scene: Scene) -> None:
    scene.hub.submit(request("a", "forever()"))
    scene.hub.submit(request("b", "queued()"))
    scene.say(busy("a"))
    with scene.hub.restarting():
        pass
    new = take_over(scene, server_says_busy=False)
    new.connect()
    assert new.upstream.sent == []
    assert new.hub.state is KernelState.IDLE


async def test_a_new_daemon_does_not_send_again_what_a_death_has_ended(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.say(from_kernel("iopub", "status", {"execution_state": "restarting"}, ""))
    new = take_over(scene, server_says_busy=False)
    new.connect()
    assert new.upstream.sent == []


async def test_an_execution_whose_idle_died_with_the_daemon_is_ended_by_the_fence_or_a_probe(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_watch, "PATIENCE_S", 0.01)
    scene.hub.submit(request("a"))
    scene.say(busy("a"), reply("a", "error", ename="E", evalue="e", traceback=["t"]))
    new = take_over(scene, server_says_busy=False)
    new.connect()
    assert new.hub.busy
    await sent(new, 1)
    new.say(reply(new.upstream.sent[0].msg_id, count=1), idle(new.upstream.sent[0].msg_id))
    assert [m.msg_type for m in new.down()] == ["status", "execute_reply", "error", "status"]
    assert [note["type"] for note in new.notes()].count("lost") == 1
    assert not new.hub.busy


async def test_a_probe_that_goes_down_with_its_connection_is_followed_by_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_watch, "PATIENCE_S", 0.01)
    scene.hub.submit(request("a"))
    scene.say(busy("a"), reply("a"))
    await sent(scene, 2)
    scene.cut()
    scene.connect()
    await sent(scene, 3)
    probe = scene.upstream.sent[2].msg_id
    scene.say(reply(probe), idle(probe))
    assert not scene.hub.busy


async def test_a_take_over_is_declared_only_where_something_was_under_way(scene: Scene) -> None:
    idle_one = take_over(scene, server_says_busy=False)
    idle_one.hub.declare_takeover()
    assert idle_one.notes() == []
    idle_one.hub.submit(request("a"))
    busy_one = take_over(idle_one, server_says_busy=True)
    busy_one.hub.declare_takeover()
    assert [note["type"] for note in busy_one.notes()] == ["lost"]


async def test_a_kernel_that_executes_something_unknown_is_busy_until_its_next_idle(scene: Scene) -> None:
    new = take_over(scene, server_says_busy=True)
    new.connect()
    assert new.hub.state is KernelState.BUSY
    new.say(idle("somebody"))
    assert new.hub.state is KernelState.IDLE


async def test_ending_a_busy_kernel_is_told_to_whoever_follows(scene: Scene) -> None:
    scene.hub.submit(request("a"))
    scene.hub.end("the kernel was shut down")
    assert scene.notes() == [{"type": "died", "text": "the kernel was shut down"}]


async def test_ending_an_idle_kernel_needs_no_words(scene: Scene) -> None:
    scene.hub.end("the kernel was shut down")
    assert scene.notes() == []
