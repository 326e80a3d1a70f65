"""A kernel's link that tests play by hand, and messages as a kernel sends them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from colab_bridge.errors import UserError
from colab_bridge.kernels.hub import HubKernel, note_of
from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.ports.upstream import LinkState, UpstreamEvents
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import RawMessage


class ManualClock:
    """Time that moves when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class ScriptedUpstream:
    """Implements ``ports.upstream.Upstream``: keeps what is sent, and says what the test tells it."""

    reliable = False

    def __init__(self) -> None:
        self.sent: list[RawMessage] = []
        self.busy = False
        self.refuse = False
        self.reconnected = False
        self.on_send: Callable[[RawMessage], None] | None = None
        self.events: UpstreamEvents | None = None
        self.done: list[int] = []

    async def run(self, events: UpstreamEvents) -> None:
        self.events = events
        await anyio.sleep_forever()

    def send(self, message: RawMessage) -> None:
        if self.refuse:
            raise UserError("the message is too large", hint="send less")
        self.sent.append(message)
        if self.on_send is not None:
            self.on_send(message)

    def reconnect(self) -> None:
        self.reconnected = True

    def set_busy(self, busy: bool) -> None:
        self.busy = busy

    def recorded(self, origin: int) -> None:
        self.done.append(origin)

    def types(self) -> list[str]:
        return [message.msg_type for message in self.sent]


class Scene:
    """A hub over a scripted link and a real record."""

    def __init__(self, folder: Path, *, clock: ManualClock | None = None, record: MessageRecord | None = None) -> None:
        self.clock = clock or ManualClock()
        self.upstream = ScriptedUpstream()
        self.states: list[str] = []
        self.record = record or MessageRecord.open(folder)
        self.hub = HubKernel(
            "kernel-1", self.record, self.upstream, self.clock, lambda hub: self.states.append(str(hub.state))
        )
        self.upstream.events = UpstreamEvents(
            message=self.hub._on_message, state=self.hub._on_link, gap=self.hub.declare_loss
        )

    @property
    def events(self) -> UpstreamEvents:
        assert self.upstream.events is not None
        return self.upstream.events

    def connect(self) -> None:
        self.events.state(LinkState.CONNECTED, "")

    def cut(self) -> None:
        self.events.state(LinkState.RECONNECTING, "the network went away")

    def say(self, *messages: RawMessage) -> None:
        for message in messages:
            self.events.message(message)

    def notes(self) -> list[dict[str, Any]]:
        return [note_of(entry) for entry in self.entries() if entry.kind is EntryKind.NOTE]

    def down(self) -> list[RawMessage]:
        return [decode_v1(entry.body) for entry in self.entries() if entry.kind is EntryKind.DOWN]

    def entries(self) -> list[Any]:
        found: list[Any] = []
        cursor = 0
        while batch := self.record.read(cursor):
            found += batch
            cursor = batch[-1].seq
        return found


def request(msg_id: str, code: str = "1", **more: Any) -> RawMessage:
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": True, **more}
    return RawMessage.build("shell", "execute_request", content, msg_id=msg_id, session="front")


def from_kernel(channel: str, msg_type: str, content: dict[str, Any], parent: str, **more: Any) -> RawMessage:
    return RawMessage.build(
        channel, msg_type, content, msg_id=f"k-{msg_type}-{parent}", session="kernel", parent={"msg_id": parent}, **more
    )


def busy(parent: str) -> RawMessage:
    return from_kernel("iopub", "status", {"execution_state": "busy"}, parent)


def idle(parent: str) -> RawMessage:
    return from_kernel("iopub", "status", {"execution_state": "idle"}, parent)


def reply(parent: str, status: str = "ok", count: int | None = 1, **more: Any) -> RawMessage:
    content = {"status": status, "execution_count": count, **more}
    return from_kernel("shell", "execute_reply", content, parent)


def stream(parent: str, text: str, name: str = "stdout") -> RawMessage:
    return from_kernel("iopub", "stream", {"name": name, "text": text}, parent)
