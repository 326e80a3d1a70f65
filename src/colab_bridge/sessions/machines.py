"""The machines that sessions run on: how they are, and what keeps a kernel.

The agent on the runtime looks; where the runtime is this machine, its functions look from here. What a runtime says is
checked and shortened before anybody sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread

from colab_bridge.agent.probe.looks import KernelNotSeen, look, look_at_kernel
from colab_bridge.errors import ColabBridgeError
from colab_bridge.model.records import Session
from colab_bridge.ports.upstream import LinkState
from colab_bridge.sessions.agents import Agents

__all__ = ["Machines", "checked"]

_DEADLINE_S = 5.0
_MAX_DEPTH, _MAX_ITEMS, _MAX_TEXT = 5, 200, 300


class Machines:
    """Looks at machines.

    Args:
        agents: The links to the agents.
    """

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def look(self, session: Session) -> dict[str, Any] | None:
        """Return memory, disk, processors and cards of a session's machine; None where nobody can look.

        See :func:`colab_bridge.agent.probe.looks.look` for the values.
        """
        root = session.handle.root if session.handle else None
        return await self._ask(session, "probe.machine", {}, lambda: look(Path(root or session.project)))

    async def kernel(self, session: Session, remote_id: str) -> dict[str, Any] | None:
        """Return the processes of a kernel and what keeps it; None where nobody can look.

        Args:
            session: Its session.
            remote_id: The server's id of it.
        """
        return await self._ask(session, "probe.kernel", {"kernel": remote_id}, lambda: look_at_kernel(remote_id))

    async def _ask(
        self, session: Session, method: str, params: Mapping[str, Any], here: Callable[[], dict[str, Any]]
    ) -> dict[str, Any] | None:
        link = self._agents.connected(session)
        if link is not None and link.status.state is LinkState.CONNECTED:
            try:
                result, _ = await link.call(method, params, deadline_s=_DEADLINE_S)
            except ColabBridgeError:
                return None
            return checked(result)
        if session.provider != "local":
            return None
        try:
            return await anyio.to_thread.run_sync(here)
        except KernelNotSeen:
            return None


def checked(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a runtime said, as far as it is plain: numbers, short printable texts, lists and objects of these."""
    found = _checked(value, 0)
    return found if isinstance(found, dict) else {}


def _checked(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 62 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else "?" for letter in value[:_MAX_TEXT])
    if depth >= _MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {
            str(_checked(str(key), depth)): _checked(item, depth + 1) for key, item in list(value.items())[:_MAX_ITEMS]
        }
    if isinstance(value, list | tuple):
        return [_checked(item, depth + 1) for item in value[:_MAX_ITEMS]]
    return None
