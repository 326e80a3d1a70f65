"""The way between clients and one machine, which can be slow, narrow or broken."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, Literal

__all__ = ["Link", "Wire"]

_CHUNK_BYTES = 64 * 1024
#: What may be under way on a connection before its sender has to wait: like a TCP window, larger on a long way.
_WINDOW_BYTES = 256 * 1024
_LONG_WINDOW_BYTES = 4 * 1024 * 1024
_RESET: Final = struct.pack(
    "hh" if sys.platform == "win32" else "ii", 1, 0
)  # socket(7), SO_LINGER: closing with no time to linger resets the connection

#: Stands among the pieces of a stream for the place where it breaks.
_CUT: Final = b"<cut>"

Way = Literal["up", "down"]


class Link:
    """The link of one machine; all of its connections share the bandwidth.

    Attributes:
        latency_s: Time that a round trip takes in addition, half of it each way; a new connection pays one more.
        bytes_per_s: Bandwidth in each direction; None is unlimited.
        bytes_up: Bytes that have arrived at the machine's side.
        bytes_down: Bytes that have been sent to clients.
        accepted: Connections that have been opened so far.
        flowing: Set while anything is carried.
    """

    def __init__(self) -> None:
        self.latency_s = 0.0
        self.bytes_per_s: float | None = None
        self.bytes_up = 0
        self.bytes_down = 0
        self.accepted = 0
        self._wires: set[Wire] = set()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._forget = False
        self._refusing = False
        self._left: int | None = None
        self._free_at: dict[Way, float] = {"up": 0.0, "down": 0.0}

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return sum(wire.is_open for wire in self._wires)

    def cut(self) -> None:
        """Reset all connections that are open now; new ones work."""
        for wire in list(self._wires):
            wire.abort()

    def hang(self, *, forget: bool = False) -> None:
        """Carry nothing from now on, without ending anything.

        Args:
            forget: True when :meth:`restore` shall reset the connections that exist by then, as a network does that has
                forgotten them; False when it shall deliver what was held back.
        """
        self._forget = forget
        self.flowing.clear()

    def refuse(self) -> None:
        """Reset all connections, and each new one at once."""
        self._refusing = True
        self.cut()

    def restore(self) -> None:
        """Carry everything again: no latency, no limit, nothing refused or held back."""
        self.latency_s, self.bytes_per_s, self._left, self._refusing = 0.0, None, None, False
        if self._forget:
            self.cut()
        self._forget = False
        self.flowing.set()

    def truncate_after(self, size_bytes: int) -> None:
        """Reset the connection that carries the byte after the next ``size_bytes`` towards clients."""
        self._left = size_bytes

    @contextlib.asynccontextmanager
    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[Wire]:
        """Carry one connection that a client has opened, for as long as the block lasts.

        Yields:
            Its end at the machine's side; closed in order when the block is left, reset when an error leaves it.
        """
        wire = Wire(self, reader, writer)
        self.accepted += 1
        self._wires.add(wire)
        if self._refusing:
            wire.abort()
        pumps = [asyncio.ensure_future(wire.pump_up()), asyncio.ensure_future(wire.pump_down())]
        try:
            yield wire
            await wire.finish()
            await pumps[1]
        finally:
            wire.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._wires.discard(wire)

    def arrival(self, way: Way, size_bytes: int) -> float:
        """Return when data that is sent now arrives, in the loop's time, and book the bandwidth for it."""
        now = asyncio.get_running_loop().time()
        sent = max(now, self._free_at[way])
        if self.bytes_per_s:
            sent += size_bytes / self.bytes_per_s
        self._free_at[way] = sent
        return sent + self.latency_s / 2

    @property
    def window_bytes(self) -> int:
        """Size of what may be under way on one connection in one direction."""
        return _LONG_WINDOW_BYTES if self.latency_s else _WINDOW_BYTES

    def allowed(self, size_bytes: int) -> int:
        """Return how many of so many bytes may still go to a client, and count them."""
        if self._left is None:
            return size_bytes
        allowed = min(self._left, size_bytes)
        self._left = self._left - size_bytes if self._left >= size_bytes else None
        return allowed


class Wire:
    """The machine's end of one connection: what is written here reaches the client when the link has carried it."""

    def __init__(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._link = link
        self._reader = reader
        self._writer = writer
        self._up, self._down = _Lane(link, "up"), _Lane(link, "down")
        # The client thinks that it is connected at once; on a long way it would be a round trip later.
        self._up.not_before = asyncio.get_running_loop().time() + 1.5 * link.latency_s
        writer.transport.set_write_buffer_limits(0)  # so that what was sent before a reset is with the client
        self._left: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not been broken yet."""
        return not self._down.broken.is_set()

    async def read(self) -> bytes:
        """Return what has arrived from the client; empty when nothing more will come."""
        return await self._up.get()

    async def write(self, data: bytes) -> None:
        """Send to the client; waits while too much is under way.

        Raises:
            ConnectionResetError: the connection is broken.
        """
        allowed = len(data) if self._left is None else min(self._left, len(data))
        for start in range(0, allowed, _CHUNK_BYTES):
            await self._down.put(data[start : min(start + _CHUNK_BYTES, allowed)])
        if self._left is not None:
            self._left -= allowed
        if allowed < len(data):
            await self._down.put(_CUT)
            raise ConnectionResetError("cut as planned")

    async def finish(self) -> None:
        """Send the end of the stream after everything else."""
        with contextlib.suppress(ConnectionResetError):
            await self._down.put(b"")

    def cut_after(self, size_bytes: int) -> None:
        """Reset this connection instead of carrying the byte after the next ``size_bytes`` that are written."""
        self._left = size_bytes

    def abort(self) -> None:
        """Reset the connection."""
        transport = self._writer.transport
        if not transport.is_closing():
            raw = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
        for lane in (self._up, self._down):
            lane.close()

    async def pump_up(self) -> None:
        """Take what the client sends."""
        lane = self._up
        with contextlib.suppress(OSError):
            while data := await self._reader.read(_CHUNK_BYTES):
                await lane.put(data)
                self._link.bytes_up += len(data)
        with contextlib.suppress(OSError):
            await lane.put(b"")

    async def pump_down(self) -> None:
        """Give the client what has arrived; ends with the stream."""
        lane = self._down
        try:
            while data := await lane.get():
                if data is _CUT:
                    self.abort()
                    return
                allowed = self._link.allowed(len(data))
                self._writer.write(data[:allowed])
                await self._writer.drain()
                self._link.bytes_down += allowed
                if allowed < len(data):
                    self.abort()
                    return
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            self.abort()


class _Lane:
    """One direction of a connection: pieces of data, each with the time at which it arrives."""

    def __init__(self, link: Link, way: Way) -> None:
        self._link = link
        self._way = way
        self._items: deque[tuple[float, bytes]] = deque()
        self._size_bytes = 0
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self.broken = asyncio.Event()
        self.not_before = 0.0

    async def put(self, data: bytes) -> None:
        """Send a piece, or the end of the stream when it is empty; waits for room."""
        while self._size_bytes > self._link.window_bytes and not self.broken.is_set():
            self._room.clear()
            await self._room.wait()
        if self.broken.is_set():
            raise ConnectionResetError("the link was cut")
        self._items.append((self._link.arrival(self._way, len(data)), data))
        self._size_bytes += len(data)
        self._ready.set()

    async def get(self) -> bytes:
        """Return the next piece once it has arrived; empty at the end, and when the connection is broken."""
        while not self._items and not self.broken.is_set():
            self._ready.clear()
            await self._ready.wait()
        while not self.broken.is_set():
            arrival, data = self._items[0]
            wait_s = max(arrival, self.not_before) - asyncio.get_running_loop().time()
            if wait_s > 0:
                await self._unless_broken(asyncio.sleep(wait_s))
            elif not self._link.flowing.is_set():
                await self._unless_broken(self._link.flowing.wait())
            else:
                self._items.popleft()
                self._size_bytes -= len(data)
                self._room.set()
                return data
        return b""

    async def _unless_broken(self, wish: Coroutine[Any, Any, object]) -> None:
        waits = [asyncio.ensure_future(wish), asyncio.ensure_future(self.broken.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def close(self) -> None:
        """Break it: what is under way is lost."""
        self.broken.set()
        self._ready.set()
        self._room.set()
