"""Requests that the agent on a runtime sends by itself; implements ``ports.remote_queue.RemoteQueue``."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import anyio

from colab_bridge.errors import RuntimeLostError
from colab_bridge.kernels.agent_link import AgentLink
from colab_bridge.sessions.agents import Agents
from colab_bridge.sessions.kernels import KernelPool
from colab_bridge.store.store import Store
from colab_bridge.wire.jupyter_ws import v1_chunks
from colab_bridge.wire.message import RawMessage

__all__ = ["AgentQueue", "pack_requests"]

#: Seconds without a daemon after which the agent begins; a reconnect takes less.
PATIENCE_S = 10.0
#: The way to a new kernel is known when its agent has started, or has not within 20 s. No event tells of it.
_KNOWN_WITHIN_S = 30.0
_LOOK_S = 0.25
_LENGTH = struct.Struct("!I")


class AgentQueue:
    """The queues of all runtimes that have an agent.

    Args:
        pool: Knows how kernels are reached.
        agents: The links.
        store: Knows the sessions.
    """

    def __init__(self, pool: KernelPool, agents: Agents, store: Store) -> None:
        self._pool = pool
        self._agents = agents
        self._store = store

    async def available(self, kernel_id: str) -> bool:
        """Wait until it is known how a kernel is reached, and return whether its agent can queue for it."""
        with anyio.move_on_after(_KNOWN_WITHIN_S):
            while not (way := self._pool.transport(kernel_id).way):  # noqa: ASYNC110  # see above
                await anyio.sleep(_LOOK_S)
            return way == "tunnel"
        return False

    async def put(self, kernel_id: str, job: str, requests: Sequence[RawMessage], *, stop_on_error: bool) -> None:
        """Leave requests with the agent, in place of those of the same job.

        Raises:
            AgentError: the agent did not take them.
            RuntimeLostError: the kernel is gone.
        """
        remote_id, link = self._way(kernel_id)
        params = {"kernel": remote_id, "job": job, "stop_on_error": stop_on_error, "patience_s": PATIENCE_S}
        await link.call("tunnel.leave", params, pack_requests(requests))

    async def drop(self, kernel_id: str, job: str) -> None:
        """Take back what is left of a job's requests.

        Raises:
            AgentError: the agent did not answer.
            RuntimeLostError: the kernel is gone, and its queue with it.
        """
        remote_id, link = self._way(kernel_id)
        await link.call("tunnel.unqueue", {"kernel": remote_id, "job": job})

    def _way(self, kernel_id: str) -> tuple[str, AgentLink]:
        kernel = self._pool.kernel(kernel_id)
        session = self._store.session(kernel.session)
        link = self._agents.connected(session) if session is not None else None
        if link is None:
            raise RuntimeLostError(
                f"the agent of session {kernel.session} is gone", hint="colab-bridge status", code="CB-LOST-001"
            )
        return kernel.remote_id, link


def pack_requests(requests: Sequence[RawMessage]) -> bytes:
    """Return requests as the agent reads them: each a v1 frame after its length in 4 bytes, big-endian."""
    pieces: list[bytes] = []
    for request in requests:
        frame = b"".join(bytes(chunk) for chunk in v1_chunks(request))
        pieces += (_LENGTH.pack(len(frame)), frame)
    return b"".join(pieces)
