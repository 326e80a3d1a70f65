"""Which way a kernel is reached: the tunnel where there is one, else the WebSocket, and nothing lost in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from agent_in_memory import MemoryLink
from colab_bridge.errors import RuntimeLostError
from colab_bridge.kernels.hub import HubKernel, note_of
from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.kernels.upstream_choice import ChosenUpstream
from colab_bridge.kernels.upstream_tunnel import TunnelError, TunnelUpstream
from colab_bridge.ports.upstream import LinkState
from scripted_upstream import ManualClock, ScriptedUpstream, busy, request, stream

pytestmark = pytest.mark.anyio


class Choice:
    """A hub whose link is chosen when the test says how."""

    def __init__(self, folder: Path, *, only_tunnel: bool = False) -> None:
        self.link = MemoryLink()
        self.plain = ScriptedUpstream()
        self.record = MessageRecord.open(folder)
        self.decided = asyncio.Event()
        self.refusal = ""
        self.tunnel = TunnelUpstream(self.link, "remote-1", lambda: self.record.last_origin)  # type: ignore[arg-type]
        self.tunnel.link_changed(LinkState.CONNECTED, "")
        self.chosen: list[tuple[str, str]] = []
        self.upstream = ChosenUpstream(
            self._choose, None if only_tunnel else lambda: self.plain, lambda *how: self.chosen.append(how)
        )
        self.hub = HubKernel("kernel-1", self.record, self.upstream, ManualClock(), lambda hub: None)

    async def _choose(self) -> TunnelUpstream:
        await self.decided.wait()
        if self.refusal:
            raise TunnelError(self.refusal, untouched=True)
        return self.tunnel

    async def decide(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.decided.set()
        await turn()

    def losses(self) -> list[str]:
        notes = [note_of(entry) for entry in self.record.read(0) if entry.kind is EntryKind.NOTE]
        return [note["text"] for note in notes if note["type"] == "lost"]


async def turn() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def choosing(folder: Path) -> AsyncIterator[Choice]:
    choice = Choice(folder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(choice.hub.run)
        await turn()
        yield choice
        tasks.cancel_scope.cancel()
    choice.hub.close()


async def test_what_is_sent_before_the_choice_goes_into_the_tunnel(tmp_path: Path) -> None:
    async with choosing(tmp_path) as choice:
        choice.hub.submit(request("r1"))
        await choice.decide()
        choice.link.open()
        assert [m.msg_id for m in choice.link.received] == ["r1"]
        assert choice.chosen == [("tunnel", "")]
        assert choice.hub.link is LinkState.CONNECTED


async def test_without_an_agent_everything_goes_over_the_websocket_in_order(tmp_path: Path) -> None:
    async with choosing(tmp_path) as choice:
        choice.hub.submit(request("r1"))
        choice.hub.submit(request("r2"))
        await choice.decide("the runtime has no writable folder")
        assert [m.msg_id for m in choice.plain.sent] == ["r1", "r2"]
        assert choice.chosen == [("websocket", "the runtime has no writable folder")]
        assert choice.losses() == []
        assert not choice.upstream.reliable


async def test_a_kernel_that_the_agent_cannot_reach_is_taken_over_by_the_websocket(tmp_path: Path) -> None:
    async with choosing(tmp_path) as choice:
        choice.link.listening = False
        choice.hub.submit(request("r1"))
        await choice.decide()
        choice.link.open()
        choice.link.stream.handler.closed("unreachable", "no connection file")
        await turn()
        assert [m.msg_id for m in choice.plain.sent] == ["r1"]
        assert choice.chosen == [("tunnel", ""), ("websocket", "no connection file")]
        choice.plain.events.state(LinkState.CONNECTED, "")
        choice.tunnel.link_changed(LinkState.RECONNECTING, "the agent's link was cut")
        assert choice.hub.link is LinkState.CONNECTED
        assert choice.losses() == []


async def test_a_tunnel_that_is_lost_while_the_kernel_is_busy_is_a_declared_loss_and_runs_nothing_twice(
    tmp_path: Path,
) -> None:
    async with choosing(tmp_path) as choice:
        await choice.decide()
        choice.link.open()
        choice.hub.submit(request("r1"))
        choice.link.say(busy("r1"), stream("r1", "1\n"))
        choice.link.deliver()
        choice.link.stream.room = 0
        choice.hub.submit(request("r2"))
        choice.tunnel.give_up("the runtime's disk is full")
        await turn()
        assert choice.plain.types() == ["execute_request"]
        assert [m.msg_id for m in choice.plain.sent] == ["r2"]
        assert len(choice.losses()) == 1


async def test_where_only_a_tunnel_is_wanted_its_absence_is_an_error_that_says_so(tmp_path: Path) -> None:
    choice = Choice(tmp_path, only_tunnel=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(choice.decide, "no pyzmq")
        with pytest.raises(RuntimeLostError, match="no pyzmq"):
            await choice.hub.run()
    choice.hub.close()
