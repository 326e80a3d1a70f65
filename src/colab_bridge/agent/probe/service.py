"""The agent's service ``probe``.

``probe.machine`` tells about the machine, ``probe.kernel`` about the processes of a kernel and what keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..process.service import CallFailure, Peer, Reply, ServerStream, StreamHandler
from .looks import KernelNotSeen, look, look_at_kernel

__all__ = ["ProbeService", "make"]


def make() -> ProbeService:
    """Return the service, not started."""
    return ProbeService()


class ProbeService:
    """Looks at the machine when asked."""

    name = "probe"

    def __init__(self) -> None:
        self._peer: Peer | None = None

    def start(self, peer: Peer) -> None:
        """Begin."""
        self._peer = peer

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        """Answer a call.

        Raises:
            CallFailure: ``unknown`` verb, ``bad_request``, or ``not_found`` for a kernel whose process cannot be seen.
        """
        peer = self._peer
        if peer is None:
            raise CallFailure("closed", "the probe has not begun")
        if verb == "machine":
            return Reply(await peer.in_thread(look, _workspace(peer)))
        if verb == "kernel":
            try:
                return Reply(await peer.in_thread(look_at_kernel, _kernel(params)))
            except KernelNotSeen as error:
                raise CallFailure("not_found", str(error)) from error
        raise CallFailure("unknown", f"the probe has no '{verb[:40]}'")

    def open(self, stream: ServerStream) -> StreamHandler:
        """Refuse a stream: there is none.

        Raises:
            CallFailure: always.
        """
        raise CallFailure("unknown", f"the probe has no stream '{stream.name[:40]}'")

    def busy(self) -> bool:
        """Nobody needs a probe that nobody asks."""
        return False

    async def stop(self) -> None:
        """End; nothing is kept."""


def _workspace(peer: Peer) -> Path:
    return Path(peer.hints().get("cwd") or peer.folder)


def _kernel(params: Mapping[str, Any]) -> str:
    kernel = params.get("kernel")
    if not isinstance(kernel, str) or not 1 <= len(kernel) <= 100:
        raise CallFailure("bad_request", "'kernel' is the server's id of a kernel")
    return kernel
