"""The barrier around an execution: what it holds, in which order it lets go, and what its failures cannot do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.kernels.hub import HubKernel
from colab_bridge.ports.barrier import BarrierRefused
from colab_bridge.ports.upstream import LinkState
from colab_bridge.wire.message import RawMessage
from scripted_upstream import Scene, busy, idle, reply, request, stream

pytestmark = pytest.mark.anyio


class ScriptedBarrier:
    """Waits until the test says go; each call is written down."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.go_before = asyncio.Event()
        self.go_after = asyncio.Event()
        self.before_error: Exception | None = None
        self.after_error: Exception | None = None

    async def before(self, request: RawMessage) -> None:
        self.calls.append(f"before {request.msg_id}")
        await self.go_before.wait()
        if self.before_error is not None:
            raise self.before_error

    async def after(self, request_header: Mapping[str, Any]) -> None:
        self.calls.append(f"after {request_header['msg_id']}")
        await self.go_after.wait()
        if self.after_error is not None:
            raise self.after_error


@contextlib.contextmanager
def scene_with(folder: Path, barrier: ScriptedBarrier) -> Iterator[Scene]:
    scene = Scene(folder)
    scene.connect()
    scene.hub.set_barrier(barrier)
    yield scene
    scene.hub.close()


def info(msg_id: str) -> RawMessage:
    return RawMessage.build("shell", "kernel_info_request", {}, msg_id=msg_id, session="front")


async def turn() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def sent(scene: Scene) -> list[str]:
    return [message.msg_id for message in scene.upstream.sent]


def seen(scene: Scene) -> list[str]:
    return [f"{message.msg_type} {message.parent_id}" for message in scene.down()]


async def test_an_execution_and_every_shell_request_behind_it_wait_in_order(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    with scene_with(tmp_path, barrier) as scene:
        scene.hub.submit(info("i0"))
        for message in (request("r1"), info("i1"), request("r2"), info("i2")):
            scene.hub.submit(message)
        await turn()
        assert sent(scene) == ["i0"]
        barrier.go_before.set()
        await turn()
        assert sent(scene) == ["i0", "r1", "i1", "r2", "i2"]
        assert barrier.calls == ["before r1", "before r2"]


async def test_control_and_stdin_pass_an_execution_that_waits(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    with scene_with(tmp_path, barrier) as scene:
        scene.hub.submit(request("r1"))
        scene.hub.submit(RawMessage.build("control", "interrupt_request", {}, msg_id="stop", session="front"))
        await turn()
        assert sent(scene) == ["stop"]


async def test_the_idle_and_everything_behind_it_wait_for_the_end_of_the_barrier(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    barrier.go_before.set()
    with scene_with(tmp_path, barrier) as scene:
        scene.hub.submit(request("r1"))
        scene.hub.submit(request("r2"))
        await turn()
        scene.say(busy("r1"), stream("r1", "1\n"), reply("r1"), idle("r1"))
        scene.say(busy("r2"), stream("r2", "2\n"), idle("r2"), reply("r2"))
        await turn()
        first = ["status r1", "stream r1", "execute_reply r1"]
        assert seen(scene) == first
        assert scene.hub.busy
        barrier.go_after.set()
        await turn()
        assert seen(scene) == [*first, "status r1", "status r2", "stream r2", "status r2", "execute_reply r2"]
        assert barrier.calls == ["before r1", "before r2", "after r1", "after r2"]
        assert not scene.hub.busy


async def test_a_barrier_that_fails_is_noted_and_loses_nothing(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    barrier.go_before.set()
    barrier.go_after.set()
    barrier.before_error, barrier.after_error = ValueError("defect"), OSError("disk")
    with scene_with(tmp_path, barrier) as scene:
        scene.hub.submit(request("r1"))
        await turn()
        assert sent(scene) == ["r1"]
        scene.say(busy("r1"), reply("r1"), idle("r1"))
        await turn()
        assert seen(scene) == ["status r1", "execute_reply r1", "status r1"]
        assert [note["type"] for note in scene.notes()] == ["notice", "notice"]


async def test_a_refused_request_is_answered_and_never_sent(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    barrier.go_before.set()
    barrier.before_error = BarrierRefused("the folders differ", "colab-bridge sync status")
    with scene_with(tmp_path, barrier) as scene:
        scene.hub.submit(request("r1"))
        await turn()
        assert sent(scene) == []
        assert seen(scene) == ["error r1", "execute_reply r1", "status r1"]
        assert scene.down()[0].content_fields()["evalue"] == "the folders differ"
        assert not scene.hub.busy


async def test_an_interrupt_ends_what_waits_for_its_files_and_what_is_behind_it_goes_on(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    with scene_with(tmp_path, barrier) as scene:
        for msg_id in ("r1", "r2"):
            scene.hub.submit(request(msg_id))
        await turn()
        assert scene.hub.interrupt_held()
        await turn()
        assert scene.down()[0].content_fields()["ename"] == "KeyboardInterrupt"
        assert seen(scene) == ["error r1", "execute_reply r1", "status r1"]
        assert barrier.calls == ["before r1", "before r2"]
        barrier.go_before.set()
        await turn()
        assert sent(scene) == ["r2"]


async def test_an_interrupt_by_a_front_end_ends_what_waits_too(tmp_path: Path) -> None:
    with scene_with(tmp_path, ScriptedBarrier()) as scene:
        scene.hub.submit(request("r1"))
        await turn()
        scene.hub.submit(RawMessage.build("control", "interrupt_request", {}, msg_id="i1", session="front"))
        await turn()
        assert seen(scene) == ["error r1", "execute_reply r1", "status r1"]
        assert sent(scene) == ["i1"]


async def test_an_interrupt_is_meant_for_what_the_kernel_executes_and_not_for_what_comes_next(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    with scene_with(tmp_path, barrier) as scene:
        barrier.go_before.set()
        scene.hub.submit(request("r1"))
        await turn()
        barrier.go_before.clear()
        scene.hub.submit(request("r2"))
        await turn()
        assert not scene.hub.interrupt_held()


async def test_a_barrier_that_hangs_holds_up_nothing_when_it_is_taken_away(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    with scene_with(tmp_path, barrier) as scene:
        barrier.go_before.set()
        scene.hub.submit(request("r1"))
        await turn()
        scene.say(busy("r1"), reply("r1"), idle("r1"), stream("", "late"))
        barrier.go_before.clear()
        scene.hub.submit(request("r2"))
        scene.hub.submit(info("i2"))
        await turn()
        scene.hub.set_barrier(None)
        assert sent(scene) == ["r1", "r2", "i2"]
        assert seen(scene) == ["status r1", "execute_reply r1", "status r1", "stream "]


async def test_a_kernel_that_dies_ends_what_waits_and_the_barrier_hears_of_it(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    barrier.go_before.set()
    with scene_with(tmp_path, barrier) as scene:
        scene.hub.submit(request("r1"))
        await turn()
        barrier.go_before.clear()
        scene.hub.submit(request("r2"))
        await turn()
        scene.events.state(LinkState.GONE, "the kernel does not exist any more")
        barrier.go_before.set()
        barrier.go_after.set()
        await turn()
        assert sent(scene) == ["r1"]
        assert barrier.calls == ["before r1", "before r2", "after r1"]


async def test_an_execution_that_was_under_way_before_the_barrier_came_has_its_end_guarded(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.connect()
    scene.hub.submit(request("r1"))
    barrier = ScriptedBarrier()
    scene.hub.set_barrier(barrier)
    scene.say(reply("r1"), idle("r1"))
    await turn()
    assert seen(scene) == ["execute_reply r1"]
    barrier.go_after.set()
    await turn()
    assert not scene.hub.busy
    scene.hub.close()


async def test_journal_entries_behind_an_idle_wait_and_are_acknowledged_only_then(tmp_path: Path) -> None:
    barrier = ScriptedBarrier()
    barrier.go_before.set()
    with scene_with(tmp_path, barrier) as scene:
        journal = scene.hub.events().journal
        assert journal is not None
        scene.hub.submit(request("r1"))
        await turn()
        journal.request(request("r1"), 1)
        journal.message(reply("r1"), 2)
        journal.message(idle("r1"), 3)
        journal.note({"type": "lost", "text": "much"}, 4)
        await turn()
        assert scene.upstream.done == [1, 2]
        barrier.go_after.set()
        await turn()
        assert scene.upstream.done == [1, 2, 3, 4]
        assert [note["type"] for note in scene.notes()] == ["sent", "lost"]


async def test_without_a_barrier_a_request_is_sent_before_submit_returns(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.connect()
    assert isinstance(scene.hub, HubKernel)
    scene.hub.submit(request("r1"))
    assert sent(scene) == ["r1"]
    scene.hub.close()
