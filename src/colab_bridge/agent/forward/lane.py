"""Carries bytes between a connection and a stream of the channel; the same at both ends.

Messages of the stream: a payload is bytes; the header ``{"eof": true}`` says that nothing more comes in this direction.
Whoever is too fast is held back: a piece counts as consumed when the connection has room again, and the connection is
not read while the stream has none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

from ..events import StreamData
from ..process.service import ServerStream

__all__ = ["ByteLane", "port_of"]

_PIECE_BYTES = 128 * 1024


class ByteLane(asyncio.Protocol):
    """One connection and one stream; a stream handler and a protocol of the event loop in one.

    Either side may be there first.
    """

    def __init__(self) -> None:
        self._stream: ServerStream | None = None
        self._transport: asyncio.Transport | None = None
        self._unsent: deque[bytes] = deque()
        self._unwritten: deque[StreamData] = deque()
        self._unconsumed: list[int] = []
        self._paused = False
        self._end_sent = False
        self._ended = False  # the connection says nothing more
        self._other_ended = False  # the other end says nothing more
        self._lost = False

    def join(self, stream: ServerStream) -> None:
        """Give the stream; only ``can_send``, ``send``, ``consumed`` and ``close`` of it are used."""
        self._stream = stream
        self.writable()

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to write what has come for the connection."""
        self._transport = cast("asyncio.Transport", transport)
        if self._lost:  # the other end did not wait for it
            self._transport.close()
            return
        waiting, self._unwritten = self._unwritten, deque()
        for piece in waiting:
            self._write(piece)

    def data_received(self, data: bytes) -> None:
        """Pass on what the connection says."""
        view = memoryview(data)
        self._unsent += [bytes(view[at : at + _PIECE_BYTES]) for at in range(0, len(view), _PIECE_BYTES)]
        self.writable()

    def eof_received(self) -> bool:
        """Pass on that the connection says nothing more; it may still listen."""
        self._ended = True
        self.writable()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End the stream after everything that was read."""
        self._lost = True
        self._consume_all()
        self.writable()

    def pause_writing(self) -> None:
        """Have the other end wait."""
        self._paused = True

    def resume_writing(self) -> None:
        """Let the other end go on."""
        self._paused = False
        self._consume_all()

    # -- the stream

    def data(self, piece: StreamData) -> None:
        """Take a piece from the other end."""
        if self._transport is None and not self._lost:
            self._unwritten.append(piece)
        else:
            self._write(piece)

    def _write(self, piece: StreamData) -> None:
        transport = self._transport
        if transport is not None and not self._lost and not transport.is_closing():
            if piece.payload:
                transport.write(piece.payload)
            if piece.header and piece.header.get("eof") is True and transport.can_write_eof():
                transport.write_eof()
                self._other_ended = True
                self._settle()
        self._unconsumed.append(piece.seq)
        if not self._paused:
            self._consume_all()

    def _settle(self) -> None:
        """Close a connection on which neither side says anything more; nobody else would."""
        if self._end_sent and self._other_ended and self._transport is not None:
            self._transport.close()

    def _consume_all(self) -> None:
        if self._unconsumed and self._stream is not None:
            self._stream.consumed(self._unconsumed[-1])
            self._unconsumed.clear()

    def writable(self) -> None:
        """Send what waits, as far as there is room."""
        stream = self._stream
        if stream is None:
            self._hold(bool(self._unsent))
            return
        while self._unsent and stream.can_send(len(self._unsent[0]) + 1024):
            stream.send({}, self._unsent.popleft())
        if not self._unsent and self._ended and not self._end_sent and stream.can_send(1024):
            self._end_sent = True
            stream.send({"eof": True})
            self._settle()
        if self._lost and not self._unsent:
            stream.close()
        self._hold(bool(self._unsent))

    def _hold(self, hold: bool) -> None:
        transport = self._transport
        if transport is None or self._lost or self._ended or transport.is_closing():
            return
        if hold and transport.is_reading():
            transport.pause_reading()
        elif not hold and not transport.is_reading():
            transport.resume_reading()

    def closed(self, code: str, message: str) -> None:
        """The other end has ended, or there is none any more: end the connection after everything written."""
        self._lost = True
        self._unsent.clear()
        if self._transport is not None:
            self._transport.close()

    def give_up(self, code: str, message: str) -> None:
        """There will be no connection."""
        self._lost = True
        self._unwritten.clear()
        if self._stream is not None:
            self._stream.close(code, message)


def port_of(value: Any) -> int | None:
    """Return a TCP port; None for anything else."""
    valid = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65_535
    return value if valid else None
