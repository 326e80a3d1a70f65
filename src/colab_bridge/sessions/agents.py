"""The agents of the runtimes: one link for each workspace, shared by all sessions and kernels that use it.

A link is made when the first kernel wants its tunnel. While the agent is being started, that kernel waits a bounded
time; a kernel that was in a tunnel before the daemon was replaced waits as long as it takes, because its output is on
the runtime and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc

from colab_bridge.config.schema import printable
from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.agent_link import AgentLink, AgentStatus
from colab_bridge.kernels.upstream_tunnel import TunnelError, TunnelUpstream
from colab_bridge.model.records import Session
from colab_bridge.ports.upstream import LinkState
from colab_bridge.sessions.agent_access import AgentAccess, workspace_id

__all__ = ["Agents"]

log = logging.getLogger(__name__)

#: Most seconds that a new kernel waits for the agent; starting one takes two to four.
START_WAIT_S = 20.0
#: Time for the agent's own end, and for a word that nobody waits for.
STOP_TIMEOUT_S = 5.0

_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Shared:
    """One link and who uses it."""

    access: AgentAccess
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    sessions: set[str] = field(default_factory=set)
    tunnels: dict[str, TunnelUpstream] = field(default_factory=dict)
    failed: str = ""
    ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def link(self) -> AgentLink:
        """The link itself."""
        return self.access.link

    @property
    def usable(self) -> bool:
        """Whether the agent has ever answered: from then on the link repairs itself."""
        return bool(self.link.status.info) or self.link.status.state is LinkState.CONNECTED

    @property
    def hopeless(self) -> str:
        """Empty, or why no kernel can use this link."""
        status = self.link.status
        if self.failed:
            return self.failed
        if status.held_by:
            return status.text or f"the agent on the runtime is held by {status.held_by}"
        if status.state is LinkState.GONE:
            return status.text or "no agent can be had on this runtime"
        return ""


class Agents:
    """The links of this daemon.

    Args:
        open_access: Makes the link for the workspace of a session; not running yet.
        tasks: Owner of the links' tasks.
    """

    def __init__(self, open_access: Callable[[Session], AgentAccess], tasks: anyio.abc.TaskGroup) -> None:
        self._open_access = open_access
        self._tasks = tasks
        self._shared: dict[_Key, _Shared] = {}

    # -- using -----------------------------------------------------------------------------------------------

    def link(self, session: Session) -> AgentLink:
        """Return the link for the workspace of a session, begun when there is none."""
        return self._of(session).link

    def connected(self, session: Session) -> AgentLink | None:
        """Return the link for the workspace of a session; None when nobody has asked for one."""
        shared = self._shared.get(_key(session))
        return shared.link if shared is not None else None

    async def tunnel(
        self, session: Session, remote_id: str, cursor: Callable[[], int], *, patient: bool
    ) -> TunnelUpstream:
        """Wait for the agent of a session and return a tunnel to one of its kernels.

        Args:
            session: The session.
            remote_id: The server's id of the kernel.
            cursor: Returns the number of the last journal entry that is in the kernel's record.
            patient: Wait for an agent that cannot be reached now as long as it takes.

        Raises:
            TunnelError: there is no agent, or not in time.
        """
        shared = self._of(session)
        status = await shared.link.ready(START_WAIT_S)
        while patient and not shared.usable and not shared.hopeless:
            status = await shared.link.ready(START_WAIT_S)
        if reason := shared.hopeless:
            raise TunnelError(reason, untouched=True)
        if not shared.usable:
            why = f": {status.text}" if status.text else ""
            raise TunnelError(f"the agent did not start within {START_WAIT_S:g} s{why}", untouched=True)
        tunnel = TunnelUpstream(shared.link, remote_id, cursor)
        tunnel.link_changed(status.state, status.text)
        shared.tunnels[remote_id] = tunnel
        return tunnel

    def forget(self, session: Session, remote_id: str) -> None:
        """Drop a kernel that does not exist any more, here and in the agent's journal."""
        shared = self._shared.get(_key(session))
        if shared is not None and shared.tunnels.pop(remote_id, None) is not None:
            self._tasks.start_soon(self._forget, shared, remote_id)

    async def _forget(self, shared: _Shared, remote_id: str) -> None:
        """Task root of a word that nobody waits for; an agent that misses it clears up by itself."""
        try:
            await shared.link.call("tunnel.forget", {"kernel": remote_id}, deadline_s=STOP_TIMEOUT_S)
        except ColabBridgeError as error:
            log.info("journal not deleted", extra={"kernel": remote_id, "reason": error.message})

    def view(self, session: Session) -> dict[str, Any] | None:
        """Return what ``status`` shows of a session's agent; None when nobody has asked for one."""
        shared = self._shared.get(_key(session))
        if shared is None:
            return None
        status = shared.link.status
        degraded = status.info.get("degraded")
        sentences = [_line(text) for text in degraded[:10]] if isinstance(degraded, list) else []
        text = _line(shared.failed or status.text)
        return {
            "mode": status.mode if not shared.failed else "none",
            "state": str(status.state),
            "text": "" if text in sentences else text,
            "held_by": _line(status.held_by),
            "degraded": sentences,
            "agent": _line(status.info.get("agent", "")),
        }

    # -- life ------------------------------------------------------------------------------------------------

    def _of(self, session: Session) -> _Shared:
        shared = self._shared.get(_key(session))
        if shared is None:
            self._leave_earlier(session)
            shared = self._shared[_key(session)] = _Shared(self._open_access(session))
            self._tasks.start_soon(self._run, shared)
        shared.sessions.add(session.name)
        return shared

    def _leave_earlier(self, session: Session) -> None:
        """Let go of the agent of a runtime that a session had before: that runtime has gone."""
        for key, shared in list(self._shared.items()):
            shared.sessions.discard(session.name)
            if not shared.sessions:
                del self._shared[key]
                self._fail(shared, "the runtime has gone")
                self._tasks.start_soon(self._end, shared, session)

    async def _run(self, shared: _Shared) -> None:
        """Task root of one link."""

        def changed(status: AgentStatus) -> None:
            self._changed(shared, status)

        try:
            with shared.scope:
                await shared.link.run(changed)
        except ColabBridgeError as error:
            self._fail(shared, error.message)
        except Exception as error:
            # A defect in one link must not take the other runtimes and the daemon with it.
            log.exception("link to an agent failed")
            self._fail(shared, f"internal error: {type(error).__name__}")
        finally:
            shared.ended.set()

    def _changed(self, shared: _Shared, status: AgentStatus) -> None:
        reason = shared.hopeless
        for tunnel in list(shared.tunnels.values()):
            if reason:
                tunnel.give_up(reason)
            else:
                tunnel.link_changed(status.state, status.text)

    def _fail(self, shared: _Shared, reason: str) -> None:
        log.warning("link to an agent ended", extra={"reason": reason})
        shared.failed = reason
        for tunnel in list(shared.tunnels.values()):
            tunnel.give_up(reason)

    async def stop(self, session: Session) -> None:
        """End the use of an agent by a session that ends, and the agent itself when no other session uses it."""
        key = _key(session)
        shared = self._shared.get(key)
        if shared is None and session.handle is not None and self._open_access(session).known():
            # It was started for a daemon before this one, and no kernel has asked for it since.
            shared = self._of(session)
            await shared.link.ready(STOP_TIMEOUT_S)
        if shared is None:
            return
        shared.sessions.discard(session.name)
        if shared.sessions:
            return
        del self._shared[key]
        await self._end(shared, session)

    async def make_room(self, session: Session) -> bool:
        """Give up the agent of a session whose server may have no room for a kernel beside the doorman.

        Args:
            session: Its server has just refused to start a kernel.

        Returns:
            Whether a doorman kernel was removed, so that asking again makes sense. Never while kernels use the agent.
        """
        shared = self._shared.get(_key(session))
        if shared is None or shared.tunnels:
            return False
        if not shared.usable and not shared.hopeless:
            await shared.link.ready(START_WAIT_S)
        if shared.hopeless or not shared.usable:
            return False
        await self._end(shared, session)
        why = "the server lets us start no kernel beside the agent's"
        shared.link.give_up(why)
        self._fail(shared, why)
        return True

    async def _end(self, shared: _Shared, session: Session) -> None:
        """End an agent, its link, and the doorman kernel."""
        try:
            if shared.link.status.state is LinkState.CONNECTED:
                await shared.link.call("agent.stop", deadline_s=STOP_TIMEOUT_S)
        except ColabBridgeError as error:
            log.warning("agent not ended", extra={"session": session.name, "reason": error.message})
        shared.scope.cancel()
        with anyio.move_on_after(STOP_TIMEOUT_S):
            await shared.ended.wait()
        await self._leave(shared)

    async def _leave(self, shared: _Shared) -> None:
        try:
            with anyio.move_on_after(STOP_TIMEOUT_S):
                await shared.access.leave()
        except ColabBridgeError as error:
            log.info("the way to the agent was not removed", extra={"reason": error.message})


def _line(text: object) -> str:
    """Return words from the runtime so that they can be shown: one line, bounded, no control codes."""
    return printable(str(text), limit=300)


def _key(session: Session) -> _Key:
    """Return what tells workspaces apart: machine and workspace."""
    if session.handle is None:
        return (session.provider, session.name, "")
    return (session.provider, session.handle.id, workspace_id(session))
