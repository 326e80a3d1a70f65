"""Decisions of the relay and of the link that are hard to bring about with real processes."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from colab_bridge.client.address import Address
from colab_bridge.errors import ColabBridgeError, RuntimeLostError, TransientError
from colab_bridge.kernels.proxy import relay as relay_module
from colab_bridge.kernels.proxy.daemon_kernel import HeldKernel
from colab_bridge.kernels.proxy.frontend import FrontEnd
from colab_bridge.kernels.proxy.link import ChannelLink
from colab_bridge.kernels.proxy.local_messages import LocalMessages
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.kernels.proxy.relay import KernelRelay
from colab_bridge.wire.jupyter_ws import encode_v1
from colab_bridge.wire.message import RawMessage
from colab_bridge.wire.zmq_frames import Signer


class Wire:
    """Takes the place of the sockets."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, Any]]] = []

    def send(self, channel: str, frames: list[bytes]) -> None:
        at = frames.index(b"<IDS|MSG>")
        self.sent.append((channel, json.loads(frames[at + 2])["msg_type"], json.loads(frames[at + 5])))


class Kernel:
    """Takes the place of the daemon's REST side."""

    def __init__(self, *, delay_s: float = 3600.0, refusals: int = 0, costs: bool = False) -> None:
        self.held: HeldKernel | None = None
        self.costs = costs
        self.options: dict[str, Any] = {}
        self.lines: list[tuple[int, str]] = []
        self.stopped = anyio.Event()
        self.delay_s = delay_s
        self.refusals = refusals
        self.calls: list[str] = []

    async def acquire(self, *, only_held: bool = False) -> HeldKernel | None:
        self.calls += ["acquire"] if self.costs and not only_held else []
        if self.costs and only_held:
            return None
        with anyio.move_on_after(self.delay_s):
            await self.stopped.wait()
            self.stopped = anyio.Event()
            return None
        self.held = HeldKernel(id="k", after=0, at_work=False)
        return self.held

    def choose(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def stop_waiting(self) -> None:
        self.stopped.set()

    async def said(self, after: int, within_s: float) -> list[tuple[int, str]]:
        return [line for line in self.lines if line[0] > after]

    async def interrupt(self) -> None:
        self.calls.append("interrupt")
        await anyio.sleep(0.02)

    async def delete(self, *, restart: bool = False) -> None:
        self.calls.append("delete")
        if self.refusals:
            self.refusals -= 1
            raise TransientError("the server restarts the kernel")


async def nobody(start: bool) -> Address:
    raise TransientError(f"no daemon ({start})")


def request(msg_type: str, channel: str = "shell") -> RawMessage:
    return RawMessage.build(channel, msg_type, {}, msg_id=f"id-{msg_type}", session="s")


def make(kernel: Kernel, *, asks: bool = False) -> tuple[KernelRelay, Wire]:
    wire, outbox = Wire(), Outbox()
    frontend = FrontEnd(wire, Signer(b""), outbox, LocalMessages())  # type: ignore[arg-type]
    return KernelRelay(kernel, nobody, frontend, outbox, asks=asks), wire  # type: ignore[arg-type]


async def test_a_front_end_hears_of_the_kernel_before_it_would_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "EARLY_INFO_S", 0.02)
    relay, wire = make(Kernel())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay.run)
        relay.take(request("kernel_info_request"), [b"front"])
        relay.take(request("execute_request"), [b"front"])
        with anyio.fail_after(5):
            while not wire.sent:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert [(channel, kind) for channel, kind, _ in wire.sent] == [
        ("iopub", "status"),
        ("shell", "kernel_info_reply"),
        ("iopub", "status"),
    ]


async def test_a_dead_kernel_is_deleted_although_its_server_refuses_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "DELETE_AGAIN_S", 0.01)
    kernel = Kernel(delay_s=0, refusals=2)
    relay, _ = make(kernel)
    relay.state_changed("dead", "killed for its memory")
    with anyio.fail_after(5):
        assert await relay.run() == 1
    assert kernel.calls == ["delete", "delete", "delete"]


async def test_a_kernel_that_is_gone_is_not_deleted_again() -> None:
    kernel = Kernel(delay_s=0)
    relay, _ = make(kernel)
    relay.state_changed("gone", "")
    with anyio.fail_after(5):
        assert await relay.run() == 1
    assert kernel.calls == []


async def test_the_end_waits_only_so_long_for_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "FAREWELL_S", 0.05)
    monkeypatch.setattr(relay_module, "DELETE_AGAIN_S", 0.01)
    relay, wire = make(Kernel(refusals=10_000))
    relay.take(request("shutdown_request", "control"), [b"front"])
    with anyio.fail_after(5):
        assert await relay.run() == 0
    assert ("control", "shutdown_reply", {"status": "ok", "restart": False}) in wire.sent


async def test_interrupts_at_the_same_moment_are_one() -> None:
    kernel = Kernel(delay_s=0)
    relay, _ = make(kernel)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay.run)
        while kernel.held is None:
            await anyio.sleep(0.01)
        for _ in range(3):
            relay.signalled(signal.SIGINT)
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert kernel.calls == ["interrupt"]


class Events:
    """Notes what a link reports."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def received(self, message: RawMessage) -> None:
        self.seen.append(message.msg_id)

    def state_changed(self, state: str, text: str) -> None:
        self.seen.append((state, text))

    def lost(self, text: str) -> None:
        self.seen.append(("lost", text))

    def gap(self, first: int, last: int) -> None:
        self.seen.append(("gap", first, last))

    def link_up(self) -> None:
        self.seen.append("up")

    def link_down(self) -> None:
        self.seen.append("down")


def frame(seq: int, msg_id: str) -> bytes:
    message = RawMessage.build("iopub", "stream", {}, msg_id=msg_id, session="s")
    return seq.to_bytes(8, "little") + encode_v1(message)


def link(events: Events, after: int = 0) -> ChannelLink:
    return ChannelLink("k", after, nobody, Outbox(), events)


def test_a_number_that_was_seen_is_not_shown_again() -> None:
    events = Events()
    found = link(events, after=4)
    for seq in (3, 4, 5, 5, 9):
        found._take(frame(seq, f"m{seq}"))
    assert events.seen == ["m5", "m9"]


def test_a_record_that_is_shorter_than_what_was_shown_is_followed_from_its_end() -> None:
    events = Events()
    found = link(events, after=9)
    found._take(json.dumps({"type": "attached", "state": "idle", "next_seq": 6}))
    found._take(frame(6, "m6"))
    assert [e[0] if isinstance(e, tuple) else e for e in events.seen] == ["lost", "up", "idle", "m6"]


def batch(*frames: bytes) -> bytes:
    return b"".join(one[:8] + (len(one) - 8).to_bytes(8, "little") + one[8:] for one in frames)


def test_a_message_that_overtakes_is_shown_once() -> None:
    events = Events()
    found = link(events, after=1)
    early = base64.b64encode(frame(0, "c")[8:]).decode()
    found._take(json.dumps({"type": "early", "message": early}))
    for seq, text in ((2, "a"), (3, "c"), (4, "b")):
        found._take(frame(seq, text))
    assert events.seen == ["c", "a", "b"]


def test_an_early_message_that_cannot_be_read_harms_nobody() -> None:
    events = Events()
    found = link(events)
    for bad in ("?", "AAAA", 7):
        found._take(json.dumps({"type": "early", "message": bad}))
    found._take(frame(1, "a"))
    assert events.seen == ["a"]


def test_a_frame_with_several_messages_is_taken_apart() -> None:
    events = Events()
    found = link(events, after=1)
    found._take(json.dumps({"type": "attached", "state": "idle", "next_seq": 9, "batch": True}))
    events.seen.clear()
    unreadable = (3).to_bytes(8, "little") + b"?"
    found._take(batch(frame(1, "old"), frame(2, "a"), unreadable, frame(4, "b")))
    assert events.seen == ["a", "b"]


def test_a_message_that_is_longer_than_its_frame_goes_on_in_the_next_ones() -> None:
    events = Events()
    found = link(events)
    found._take(json.dumps({"type": "attached", "state": "idle", "next_seq": 9, "batch": True}))
    events.seen.clear()
    stream = batch(frame(1, "a"), frame(2, "long"))
    found._take(stream[:-100])
    found._take(stream[-100:-7])
    assert events.seen == ["a"]
    found._take(stream[-7:])
    found._take(batch(frame(3, "b")))
    assert events.seen == ["a", "long", "b"]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"1234567",
        bytes(8),
        b"\x01" + bytes(7) + b"\xff" * 40,
        "{",
        "[]",
        "[" * 100_000,
        '{"type": "attached", "next_seq": "x"}',
        '{"type": "gap", "first": -1, "last": true}',
        '{"type": "unknown"}',
    ],
)
def test_damaged_frames_are_dropped_and_the_next_one_is_taken(
    damaged: str | bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    events = Events()
    found = link(events)
    found._take(damaged)
    found._take(frame(2, "good"))
    assert events.seen == ["good"]


@pytest.mark.parametrize("code", [4404, 4410])
def test_a_close_that_means_gone_ends_the_link(code: int) -> None:
    with pytest.raises(RuntimeLostError, match="removed by hand"):
        link(Events())._judge_close(code, "removed by hand")


@pytest.mark.parametrize(("code", "starts"), [(1012, False), (1006, True), (None, True)])
async def test_only_a_daemon_that_was_stopped_on_purpose_is_left_alone(code: int | None, starts: bool) -> None:
    asked: list[bool] = []

    async def reach(start: bool) -> Address:
        asked.append(start)
        raise ColabBridgeError("none")

    found = ChannelLink("k", 0, reach, Outbox(), Events())
    found._judge_close(code, "")
    with anyio.move_on_after(0.05):
        await found.run()
    assert asked[0] is starts


async def test_a_request_starts_the_daemon_that_was_stopped() -> None:
    asked: list[bool] = []

    async def reach(start: bool) -> Address:
        asked.append(start)
        raise ColabBridgeError("none")

    found = ChannelLink("k", 0, reach, Outbox(), Events())
    found._judge_close(1012, "")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.run)
        while not asked:
            await anyio.sleep(0.01)
        found.send(request("execute_request"))
        with anyio.fail_after(5):
            while len(asked) < 2:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert asked[:2] == [False, True]
