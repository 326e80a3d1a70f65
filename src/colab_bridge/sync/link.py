"""The way to the files service through the agent's link."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.agent_errors import AgentError
from colab_bridge.kernels.agent_link import AgentLink
from colab_bridge.ports.upstream import LinkState
from colab_bridge.sync.remote import RemoteFailure

__all__ = ["LinkCaller"]

#: Longer than one try to connect that gets no answer, and the next one: a run is to outlive that.
_RECONNECT_S = 15.0
_LOOK_S = 0.5
_ALIVE_S = 10.0


class LinkCaller:
    """A :class:`~colab_bridge.sync.remote.Caller` over an agent's link.

    Args:
        link: The link; somebody else keeps it up.
    """

    def __init__(self, link: AgentLink) -> None:
        self.link = link

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        *,
        deadline_s: float = 10.0,
        bulk: bool = False,
        compress: bool = False,
    ) -> tuple[Mapping[str, Any], bytes]:
        """See :class:`~colab_bridge.sync.remote.Caller`; a link that is down, or silent, is waited for seconds only."""
        if self.link.status.state is not LinkState.CONNECTED:
            await self._wait()
        work = self.link.call(method, params, payload, deadline_s=deadline_s, bulk=bulk, compress=compress)
        call = asyncio.ensure_future(work)
        try:
            await self._while_linked(call)
            return await call
        except AgentError as error:
            raise RemoteFailure(error.code_name, error.message, error.data) from error
        except ColabBridgeError as error:
            raise RemoteFailure("held", error.message) from error
        finally:
            call.cancel()

    async def _while_linked(self, call: asyncio.Future[Any]) -> None:
        """Wait for a call, but for a link that is down only a few seconds."""
        loop = asyncio.get_running_loop()
        down_since: float | None = None
        alive = loop.time()
        while not (await asyncio.wait([call], timeout=_LOOK_S))[0]:
            # The link tells its owner of changes, not us.
            if self.link.status.state is LinkState.CONNECTED:
                down_since = None
                if loop.time() - alive > _ALIVE_S:
                    await self._must_live()
                    alive = loop.time()
            elif down_since is None:
                down_since = loop.time()
            elif loop.time() - down_since > _RECONNECT_S:
                raise RemoteFailure("offline", self.link.status.text or "the runtime does not answer")

    async def _must_live(self) -> None:
        """Ask for a sign of life beside a call that takes long: a look at many files does, a stopped agent too."""
        try:
            await self.link.call("agent.hello", deadline_s=_ALIVE_S)
        except AgentError as error:
            raise RemoteFailure("deadline", f"the agent gives no sign of life for {_ALIVE_S:g} s") from error

    async def _wait(self) -> None:
        status = await self.link.ready(_RECONNECT_S)
        if status.state is not LinkState.CONNECTED:
            raise RemoteFailure("offline", status.text or "the agent on the runtime does not answer")
