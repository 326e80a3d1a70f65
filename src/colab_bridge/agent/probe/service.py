"""The agent's service ``probe``.

``probe.machine`` tells about the machine, ``probe.kernel`` about the processes of a kernel and what keeps it,
``probe.end`` kills processes that ``probe.kernel`` has named, the stream ``probe.live`` repeats the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..events import StreamData
from ..faults import BufferFull, ChannelMisuse
from ..process.service import CallFailure, Peer, Reply, ServerStream, StreamHandler
from .looks import KernelNotSeen, look, look_at_kernel
from .processes import end

__all__ = ["ProbeService", "make"]

_MIN_INTERVAL_S, _MAX_INTERVAL_S = 1.0, 3600.0
_MAX_NAMED = 200


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
        if verb == "end":
            return Reply({"ended": await peer.in_thread(end, _named(params))})
        raise CallFailure("unknown", f"the probe has no '{verb[:40]}'")

    def open(self, stream: ServerStream) -> StreamHandler:
        """Take a stream of repeated looks.

        Raises:
            CallFailure: another kind of stream.
        """
        if stream.name != "probe.live" or self._peer is None:
            raise CallFailure("unknown", f"the probe has no stream '{stream.name[:40]}'")
        return _Live(stream, self._peer)

    def busy(self) -> bool:
        """Nobody needs a probe that nobody asks."""
        return False

    async def stop(self) -> None:
        """End; nothing is kept."""


class _Live:
    """Sends one look after the other until its stream is gone; looks that nobody takes are left out."""

    def __init__(self, stream: ServerStream, peer: Peer) -> None:
        self._stream = stream
        self._peer = peer
        interval = stream.params.get("interval_s", 2.0)
        wanted = float(interval) if isinstance(interval, (int, float)) else 2.0
        self._interval_s = min(max(wanted, _MIN_INTERVAL_S), _MAX_INTERVAL_S)
        self._task = peer.loop.create_task(self._repeat())

    async def _repeat(self) -> None:
        while True:
            found = await self._peer.in_thread(look, _workspace(self._peer))
            try:
                if self._stream.can_send(4096):
                    self._stream.send(found)
            except (BufferFull, ChannelMisuse):
                pass  # full: the next look is fresher; gone: `closed` ends this task
            await asyncio.sleep(self._interval_s)

    def data(self, piece: StreamData) -> None:
        """Nothing that comes means anything."""
        self._stream.consumed(piece.seq)

    def writable(self) -> None:
        """The next look goes out at its time."""

    def closed(self, code: str, message: str) -> None:
        """Stop looking."""
        self._task.cancel()


def _workspace(peer: Peer) -> Path:
    return Path(peer.hints().get("cwd") or peer.folder)


def _kernel(params: Mapping[str, Any]) -> str:
    kernel = params.get("kernel")
    if not isinstance(kernel, str) or not 1 <= len(kernel) <= 100:
        raise CallFailure("bad_request", "'kernel' is the server's id of a kernel")
    return kernel


def _named(params: Mapping[str, Any]) -> list[tuple[int, int]]:
    named = params.get("processes")
    if not isinstance(named, list) or len(named) > _MAX_NAMED:
        raise CallFailure("bad_request", "'processes' is a list of number and start")
    found = []
    for one in named:
        if not (isinstance(one, list) and len(one) == 2 and all(isinstance(number, int) for number in one)):
            raise CallFailure("bad_request", "'processes' is a list of number and start")
        found.append((one[0], one[1]))
    return found
