"""One link for each workspace: shared, waited for, given up, ended with its last session."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import anyio
import pytest

from agent_in_memory import MemoryLink
from colab_bridge.errors import TransientError
from colab_bridge.kernels.agent_link import AgentStatus
from colab_bridge.kernels.upstream_tunnel import TunnelError
from colab_bridge.model.records import Session
from colab_bridge.model.runtime import Endpoint, RuntimeHandle
from colab_bridge.ports.upstream import JournalEvents, LinkState, UpstreamEvents
from colab_bridge.sessions.agent_access import AgentAccess, AgentDoors, workspace_id
from colab_bridge.sessions.agents import Agents
from colab_bridge.sessions.transports import Transport

pytestmark = pytest.mark.anyio

UP = AgentStatus(mode="tunnel", state=LinkState.CONNECTED, info={"agent": "abc", "degraded": ["no /proc\x1b[31m"]})
WAITING = AgentStatus(mode="tunnel", state=LinkState.CONNECTING)
NONE = AgentStatus(mode="none", state=LinkState.GONE, text="the home folder cannot be written")
HELD = AgentStatus(mode="tunnel", state=LinkState.RECONNECTING, text="held by ada@desk", held_by="ada@desk")


class PlayedLink(MemoryLink):
    """A link whose status the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.status = WAITING
        self.running = False
        self.news = anyio.Event()
        self.on_status: Callable[[AgentStatus], None] | None = None
        self.crash: Exception | None = None

    async def run(self, on_status: Callable[[AgentStatus], None]) -> None:
        self.running, self.on_status = True, on_status
        try:
            if self.crash is not None:
                raise self.crash
            await anyio.sleep_forever()
        finally:
            self.running = False

    async def ready(self, timeout_s: float) -> AgentStatus:
        with anyio.move_on_after(0.05):
            while self.status is WAITING:
                await self.news.wait()
        return self.status

    def become(self, status: AgentStatus) -> None:
        self.status = status
        self.news.set()
        if self.on_status is not None:
            self.on_status(status)

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, payload: bytes = b"", **more: Any
    ) -> tuple[Mapping[str, Any], bytes]:
        self.calls.append(method)
        return {}, b""


class Place:
    def __init__(self, tasks: Any) -> None:
        self.links: list[PlayedLink] = []
        self.left = 0
        self.leftovers = False
        self.agents = Agents(self._open, tasks)

    def _open(self, session: Session) -> AgentAccess:
        self.links.append(PlayedLink())
        return AgentAccess(link=self.links[-1], known=lambda: self.leftovers, leave=self._leave)  # type: ignore[arg-type]

    async def _leave(self) -> None:
        self.left += 1


@contextlib.asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with anyio.create_task_group() as tasks:
        yield Place(tasks)
        tasks.cancel_scope.cancel()


def session(name: str, server: str = "http://gpu:8888", root: str | None = None) -> Session:
    handle = RuntimeHandle(provider="jupyter", id=server, root=root)
    return Session(name=name, project=str(Path("/p")), provider="jupyter", handle=handle)


async def test_sessions_on_one_server_share_a_link_and_others_do_not() -> None:
    async with place() as here:
        one = here.agents.link(session("a"))
        assert here.agents.link(session("b")) is one
        assert here.agents.link(session("c", "http://other:1")) is not one
        assert here.agents.link(session("d", root="/elsewhere")) is not one


async def test_a_tunnel_waits_for_the_agent() -> None:
    async with place() as here:
        here.agents.link(session("a"))
        here.links[0].become(UP)
        tunnel = await here.agents.tunnel(session("a"), "k1", lambda: 0, patient=False)
        assert tunnel.reliable


async def test_a_new_kernel_does_not_wait_for_ever() -> None:
    async with place() as here:
        with pytest.raises(TunnelError, match="did not start"):
            await here.agents.tunnel(session("a"), "k1", lambda: 0, patient=False)


async def test_a_kernel_that_was_in_a_tunnel_waits_for_an_agent_that_is_late() -> None:
    async with place() as here:
        here.agents.link(session("a"))

        async def later() -> None:
            await anyio.sleep(0.2)
            here.links[0].become(UP)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later)
            await here.agents.tunnel(session("a"), "k1", lambda: 0, patient=True)


@pytest.mark.parametrize("status", [NONE, HELD])
async def test_without_an_agent_the_reason_is_said_and_patience_ends(status: AgentStatus) -> None:
    async with place() as here:
        here.agents.link(session("a"))
        here.links[0].become(status)
        with pytest.raises(TunnelError) as caught:
            await here.agents.tunnel(session("a"), "k1", lambda: 0, patient=True)
        assert caught.value.message == status.text
        assert caught.value.untouched


async def test_a_link_that_ends_with_an_error_is_no_reason_to_wait() -> None:
    async with place() as here:
        link = here.agents.link(session("a"))
        assert isinstance(link, PlayedLink)
        link.crash = TransientError("the agent is broken")
        with pytest.raises(TunnelError, match="broken"):
            await here.agents.tunnel(session("a"), "k1", lambda: 0, patient=True)


async def test_the_last_session_ends_the_agent() -> None:
    async with place() as here:
        here.agents.link(session("a"))
        here.agents.link(session("b"))
        await anyio.lowlevel.checkpoint()
        link = here.links[0]
        link.become(UP)
        await here.agents.stop(session("a"))
        assert link.running
        assert link.calls == []
        await here.agents.stop(session("b"))
        assert link.calls == ["agent.stop"]
        assert not link.running
        assert here.left == 1
        assert here.agents.view(session("a")) is None


async def test_a_session_without_an_agent_ends_without_one() -> None:
    async with place() as here:
        await here.agents.stop(session("a"))
        assert here.left == 0


async def test_what_an_earlier_daemon_left_on_the_runtime_is_removed_with_the_session() -> None:
    async with place() as here:
        here.leftovers = True
        await here.agents.stop(session("a"))
        assert here.left == 1


def test_a_workspace_has_the_same_name_on_every_machine_and_another_one_for_another_project() -> None:
    here = session("a")
    assert workspace_id(here) == workspace_id(session("b", "http://other:1"))
    assert workspace_id(here) != workspace_id(session("a", root="/elsewhere"))
    assert workspace_id(here) != workspace_id(Session(name="a", project="/q", provider="jupyter"))


async def test_what_status_shows_holds_no_control_codes() -> None:
    async with place() as here:
        here.agents.link(session("a"))
        here.links[0].become(UP)
        view = here.agents.view(session("a"))
        assert view is not None
        assert view["mode"] == "tunnel"
        assert view["degraded"] == ["no /proc?[31m"]


def ignore(*_arguments: object) -> None:
    """Take what nobody asks about."""


async def test_a_session_whose_runtime_was_replaced_lets_go_of_the_agent_of_the_old_one() -> None:
    async with place() as here:
        here.agents.link(session("a"))
        old = here.links[0]
        old.become(UP)
        tunnel = await here.agents.tunnel(session("a"), "k1", lambda: 0, patient=False)
        assert here.agents.link(session("a", "http://new:1")) is here.links[1]
        events = UpstreamEvents(message=ignore, state=ignore, gap=ignore, journal=Mock(JournalEvents))
        with pytest.raises(TunnelError, match="the runtime has gone"):
            await tunnel.run(events)
        await anyio.wait_all_tasks_blocked()
        assert (old.running, here.left) == (False, 1)


async def test_an_agent_that_another_session_uses_stays_when_a_runtime_is_replaced() -> None:
    async with place() as here:
        here.agents.link(session("a"))
        here.agents.link(session("b"))
        here.agents.link(session("a", "http://new:1"))
        await anyio.wait_all_tasks_blocked()
        assert (here.links[0].running, here.left) == (True, 0)


def doors(folder: Path) -> AgentDoors:
    async def endpoint(_name: str) -> Endpoint:
        raise AssertionError("nobody is to be asked")

    return AgentDoors(folder / "doors", endpoint)


def test_an_agent_of_a_runtime_on_this_machine_is_known_by_its_folder(tmp_path: Path) -> None:
    handle = RuntimeHandle(provider="local", id="local-1", here=str(tmp_path / "local-1"))
    access = doors(tmp_path).open(Session(name="a", project="/p", provider="local", handle=handle))
    assert not access.known()
    folder = tmp_path / "local-1" / "colab-bridge" / "agents" / "here"
    folder.mkdir(parents=True)
    (folder / "agent.json").write_text("{}")
    assert access.known()


async def test_there_is_no_agent_where_the_folder_of_the_runtime_has_gone(tmp_path: Path) -> None:
    handle = RuntimeHandle(provider="local", id="local-1", here=str(tmp_path / "local-1"))
    link = doors(tmp_path).open(Session(name="a", project="/p", provider="local", handle=handle)).link
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run, lambda _status: None)
        status = await link.ready(5)
        tasks.cancel_scope.cancel()
    assert (status.mode, "has gone" in status.text) == ("none", True)
    assert list(tmp_path.glob("local-1")) == []


def test_a_kernel_of_an_earlier_version_stays_on_the_websocket() -> None:
    assert Transport.parse(None) is Transport.WEBSOCKET
    assert Transport.parse("bogus") is Transport.WEBSOCKET
    assert Transport.parse("auto") is Transport.AUTO
