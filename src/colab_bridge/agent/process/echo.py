"""A service that says what it hears, for tests and for measuring a line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ..events import StreamData
from .service import CallFailure, Peer, Reply, ServerStream, StreamHandler

__all__ = ["EchoService"]

_PIECE_BYTES = 256 * 1024
_MOST_SLEEP_S = 60.0


class EchoService:
    """Methods ``echo.echo`` (payload and parameters back), ``echo.sleep`` (``seconds``), ``echo.notify`` (``count``).

    Streams: ``echo`` sends back what comes, ``echo.source`` sends ``bytes`` zeros in numbered messages, the message
    ``n`` beginning at ``(n - 1) * 256 KiB``.
    """

    name = "echo"

    def start(self, peer: Peer) -> None:
        """Begin."""
        self._peer = peer

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        """Answer a call."""
        if verb == "echo":
            return Reply(params, payload)
        if verb == "sleep":
            await asyncio.sleep(min(_number(params, "seconds"), _MOST_SLEEP_S))
            return Reply({})
        if verb == "notify":
            sent = sum(self._peer.notify("echo.tick", {"n": n}) for n in range(int(_number(params, "count"))))
            return Reply({"sent": sent})
        raise CallFailure("unknown", f"echo cannot {verb}")

    def open(self, stream: ServerStream) -> StreamHandler:
        """Take a stream."""
        if stream.name == "echo":
            return _Mirror(stream)
        if stream.name == "echo.source":
            return _Source(stream, int(_number(stream.params, "bytes")))
        raise CallFailure("unknown", f"no stream {stream.name}")

    def busy(self) -> bool:
        """Return that nobody needs this."""
        return False

    async def stop(self) -> None:
        """End."""


class _Mirror:
    """Sends back each piece; what finds no room waits with its sender."""

    def __init__(self, stream: ServerStream) -> None:
        self._stream = stream
        self._waiting: list[StreamData] = []

    def data(self, piece: StreamData) -> None:
        self._waiting.append(piece)
        self.writable()

    def writable(self) -> None:
        while self._waiting and self._stream.can_send(len(self._waiting[0].payload) + 1024):
            piece = self._waiting.pop(0)
            self._stream.send(piece.header, piece.payload, final=piece.final)
            self._stream.consumed(piece.seq)

    def closed(self, code: str, message: str) -> None:
        self._waiting.clear()


class _Source:
    """Sends zeros until all are sent, from the number on that was asked for."""

    def __init__(self, stream: ServerStream, size_bytes: int) -> None:
        self._stream = stream
        self._size = size_bytes
        self._next = max(1, stream.resume_from)
        self._ended = False
        asyncio.get_running_loop().call_soon(self.writable)

    def data(self, piece: StreamData) -> None:
        self._stream.consumed(piece.seq)

    def writable(self) -> None:
        while not self._ended and self._stream.can_send(_PIECE_BYTES + 1024):
            begin = (self._next - 1) * _PIECE_BYTES
            if begin >= self._size:
                self._ended = True
                self._stream.close()
                return
            piece = b"\0" * min(_PIECE_BYTES, self._size - begin)
            self._stream.send({"at": begin}, piece, number=self._next)
            self._next += 1

    def closed(self, code: str, message: str) -> None:
        self._ended = True


def _number(params: Mapping[str, Any], key: str) -> float:
    value = params.get(key)
    if not isinstance(value, (int, float)) or value < 0:
        raise CallFailure("invalid", f"{key} is missing")
    return float(value)
