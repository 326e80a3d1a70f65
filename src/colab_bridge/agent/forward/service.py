"""The agent's service ``forward``: the stream ``forward.tcp`` is a connection to a port of this machine's own address.

Only loopback: a program that was started in a notebook, such as TensorBoard, listens there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ..process.service import CallFailure, Peer, Reply, ServerStream, StreamHandler
from .lane import ByteLane, port_of

__all__ = ["ForwardService", "make"]

_CONNECT_S = 10.0
_MOST_CONNECTIONS = 200
_HOSTS = ("127.0.0.1", "::1")


def make() -> ForwardService:
    """Return the service, not started."""
    return ForwardService()


class ForwardService:
    """Connects to ports when asked."""

    name = "forward"

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, peer: Peer) -> None:
        """Begin."""

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        """Refuse a call: there is none.

        Raises:
            CallFailure: always.
        """
        raise CallFailure("unknown", f"forward has no '{verb[:40]}'")

    def open(self, stream: ServerStream) -> StreamHandler:
        """Connect to the port that the stream names.

        Raises:
            CallFailure: ``unknown`` stream, ``bad_request``, or ``full``.
        """
        if stream.name != "forward.tcp":
            raise CallFailure("unknown", f"there is no stream '{stream.name[:40]}'")
        port = port_of(stream.params.get("port"))
        if port is None:
            raise CallFailure("bad_request", "'port' is a TCP port")
        if len(self._tasks) >= _MOST_CONNECTIONS:
            raise CallFailure("full", f"{_MOST_CONNECTIONS} connections are being opened")
        lane = ByteLane()
        lane.join(stream)
        task = asyncio.get_running_loop().create_task(_connect(lane, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lane

    def busy(self) -> bool:
        """Nobody needs connections that no daemon has opened."""
        return False

    async def stop(self) -> None:
        """End; the connections end with their streams."""
        for task in list(self._tasks):
            task.cancel()


async def _connect(lane: ByteLane, port: int) -> None:
    """Task root: connect, or say why not."""
    loop = asyncio.get_running_loop()
    reason = ""
    for host in _HOSTS:
        try:
            await asyncio.wait_for(loop.create_connection(lambda: lane, host, port), _CONNECT_S)
        except (OSError, asyncio.TimeoutError) as error:
            reason = reason or str(getattr(error, "strerror", "") or "it does not answer")
        else:
            return
    lane.give_up("refused", f"nothing listens on port {port} of the runtime ({reason.lower()})"[:200])
