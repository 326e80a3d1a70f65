"""Whether the Jupyter server of a runtime answers, and ways in to it that can be renewed."""

from __future__ import annotations

import contextlib
import dataclasses

import anyio

from colab_bridge.errors import TransientError
from colab_bridge.kernels.link_rules import reconnect_delays
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.model.runtime import Endpoint, RuntimeHandle
from colab_bridge.ports.account import AccountProvider
from colab_bridge.ports.provider import RuntimeProvider

__all__ = ["check", "renewable", "verify"]

#: Seconds that the Jupyter server of a machine that was just made may need until it answers through its proxy.
READY_S = 60.0


def renewable(provider: RuntimeProvider, handle: RuntimeHandle, endpoint: Endpoint) -> Endpoint:
    """Return a way in that asks its provider for another one when it is refused; the same where it does not expire."""
    if endpoint.expires_at is None:
        return endpoint

    async def renew() -> Endpoint:
        return renewable(provider, handle, await provider.attach(handle, stale=endpoint))

    return dataclasses.replace(endpoint, renew=renew)


async def check(provider: RuntimeProvider, handle: RuntimeHandle) -> None:
    """Find out whether a Jupyter server answers on a runtime that was just acquired or adopted.

    Raises:
        ColabBridgeError: it does not; on a machine that was only just made, not within a minute.
    """
    server = JupyterServer(renewable(provider, handle, await provider.attach(handle)))
    try:
        if isinstance(provider, AccountProvider) and await _soon_ready(server):
            return
        await server.check()
    finally:
        await server.aclose()


async def _soon_ready(server: JupyterServer) -> bool:
    delays = reconnect_delays()
    with anyio.move_on_after(READY_S):
        while True:
            with contextlib.suppress(TransientError):
                await server.check()
                return True
            await anyio.sleep(next(delays))
    return False


async def verify(provider: RuntimeProvider, handle: RuntimeHandle, *, connected: bool) -> None:
    """Make sure that a runtime lives.

    A machine that is reached through a proxy is asked itself where no link tells, since a way in that has not ended
    says nothing about it; where it cannot be reached, its account is asked.

    Args:
        provider: Where it comes from.
        handle: The runtime.
        connected: Whether a link to it is up.

    Raises:
        RuntimeLostError: it is gone.
        ColabBridgeError: it cannot be reached now.
    """
    endpoint = await provider.attach(handle)
    if connected or not isinstance(provider, AccountProvider):
        return
    try:
        await _ask(renewable(provider, handle, endpoint))
    except TransientError:
        # The account lists it: one answer that did not come says nothing about the next.
        await _ask(renewable(provider, handle, await provider.attach(handle, stale=endpoint)))


async def _ask(endpoint: Endpoint) -> None:
    server = JupyterServer(endpoint)
    try:
        await server.check()
    finally:
        await server.aclose()
