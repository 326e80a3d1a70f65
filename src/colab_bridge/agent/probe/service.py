"""The agent's service ``probe``.

``probe.machine`` tells about the machine, ``probe.kernel`` about the processes of a kernel and what keeps it,
``probe.end`` kills processes that ``probe.kernel`` has named, the stream ``probe.live`` repeats the first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..events import StreamData
from ..faults import BufferFull, ChannelMisuse
from ..process.service import CallFailure, Peer, Reply, ServerStream, StreamHandler
from .cards import read_cards
from .machine import read_machine
from .processes import end, family, kernel_process, read_processes, verdict

__all__ = ["ProbeService", "make"]

#: Seconds between two looks at a kernel: long enough for the clock ticks that processor time is counted in.
_LOOK_S = 0.3
_MIN_INTERVAL_S, _MAX_INTERVAL_S = 1.0, 3600.0
#: Bounds what an answer holds, whatever a kernel has started.
_MAX_FAMILY = 200


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
            return Reply(await peer.in_thread(_look, _workspace(peer)))
        if verb == "kernel":
            return Reply(await peer.in_thread(_look_at_kernel, _kernel(params)))
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
            found = await self._peer.in_thread(_look, _workspace(self._peer))
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


def _look(workspace: Path) -> dict[str, Any]:
    return {
        "time": time.time(),
        "machine": read_machine(workspace).to_json(),
        "cards": [card.to_json() for card in read_cards()],
        "processes_visible": bool(read_processes()),
    }


def _look_at_kernel(kernel: str) -> dict[str, Any]:
    pid = kernel_process(kernel)
    if pid is None:
        raise CallFailure("not_found", "the kernel's process cannot be seen on this machine")
    before, begun = read_processes(), time.monotonic()
    time.sleep(_LOOK_S)  # in the service's own thread: processor time is only seen to pass between two looks
    after = read_processes()
    found = verdict(before, after, pid, time.monotonic() - begun)
    members = family(after.values(), pid)[:_MAX_FAMILY]
    return {"pid": pid, "verdict": found.to_json(), "family": [member.to_json() for member in members]}


def _kernel(params: Mapping[str, Any]) -> str:
    kernel = params.get("kernel")
    if not isinstance(kernel, str) or not 1 <= len(kernel) <= 100:
        raise CallFailure("bad_request", "'kernel' is the server's id of a kernel")
    return kernel


def _named(params: Mapping[str, Any]) -> list[tuple[int, int]]:
    named = params.get("processes")
    if not isinstance(named, list) or len(named) > _MAX_FAMILY:
        raise CallFailure("bad_request", "'processes' is a list of number and start")
    found = []
    for one in named:
        if not (isinstance(one, list) and len(one) == 2 and all(isinstance(number, int) for number in one)):
            raise CallFailure("bad_request", "'processes' is a list of number and start")
        found.append((one[0], one[1]))
    return found
