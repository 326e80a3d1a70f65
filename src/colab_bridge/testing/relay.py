"""A TCP relay that can hurt the connection it carries, for tests of what survives.

Example::

    async with TcpRelay("127.0.0.1", server_port) as relay:
        client = connect(f"http://127.0.0.1:{relay.port}")
        relay.blackhole()
        ...
        relay.restore()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

__all__ = ["TcpRelay"]

_CHUNK_BYTES = 64 * 1024


class TcpRelay:
    """Listens on loopback and forwards each connection to a target.

    Args:
        host: Host of the target.
        port: Port of the target.

    Attributes:
        connections: Connections accepted so far.
        bytes_up: Bytes forwarded from clients to the target.
        bytes_down: Bytes forwarded from the target to clients.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.Task[None], _Pair] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refuse = False
        self._delay_s = 0.0
        self._bytes_per_s: float | None = None
        self._left_down: int | None = None
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._pairs)
        for pair in self._pairs.values():
            pair.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Port to connect to, on 127.0.0.1."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._pairs)

    def reset(self) -> None:
        """End all connections with a TCP reset in both directions."""
        for pair in self._pairs.values():
            pair.abort()

    def close(self) -> None:
        """End all connections with an orderly end of stream in both directions."""
        for pair in self._pairs.values():
            pair.close()

    def blackhole(self, *, refuse_new: bool = False) -> None:
        """Swallow everything from now on, in both directions, without ending anything.

        Bytes that arrive meanwhile are lost for good: :meth:`restore` resets the connections that it happened to, as a
        network does that has forgotten them.

        Args:
            refuse_new: True to reset new connections at once, False to accept and swallow them as well.
        """
        self._flowing.clear()
        self._refuse = refuse_new

    def restore(self) -> None:
        """Carry new connections again, undo :meth:`delay`, :meth:`rate` and :meth:`truncate_after`."""
        self._refuse = False
        self._delay_s = 0.0
        self._bytes_per_s = None
        self._left_down = None
        if not self._flowing.is_set():
            for pair in self._pairs.values():
                pair.forget_client()
        self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Hold back each piece of data for a time, in both directions, in order."""
        self._delay_s = seconds

    def rate(self, bytes_per_s: float) -> None:
        """Limit the flow of each connection in each direction."""
        self._bytes_per_s = bytes_per_s

    def truncate_after(self, size_bytes: int) -> None:
        """Reset the connection that carries the byte after the next ``size_bytes`` from the target."""
        self._left_down = size_bytes

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        pair = _Pair(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._pairs[task] = pair
        try:
            if self._refuse:
                return
            if self._flowing.is_set():
                await self._carry(pair)
            else:
                await self._swallow(reader)
        except (OSError, asyncio.CancelledError):
            pass  # the server calls this coroutine: whatever ends it has been asked for by the test
        finally:
            pair.abort()
            del self._pairs[task]

    async def _carry(self, pair: _Pair) -> None:
        await pair.open(self._target)
        assert pair.up_reader is not None
        assert pair.up_writer is not None
        up = asyncio.ensure_future(self._pump(pair.down_reader, pair.up_writer, down=False, pair=pair))
        down = asyncio.ensure_future(self._pump(pair.up_reader, pair.down_writer, down=True, pair=pair))
        try:
            await asyncio.gather(up, down)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool, pair: _Pair
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if not self._flowing.is_set():
                pair.holed = True
                continue
            if down and self._left_down is not None:
                data, self._left_down = data[: self._left_down], self._left_down - len(data)
            await self._pace(len(data))
            writer.write(data)
            await writer.drain()
            if down:
                self.bytes_down += len(data)
                if self._left_down is not None and self._left_down < 0:
                    self._left_down = None
                    pair.abort()
                    return
            else:
                self.bytes_up += len(data)
        if self._flowing.is_set() and writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()

    async def _pace(self, size_bytes: int) -> None:
        seconds = self._delay_s + (size_bytes / self._bytes_per_s if self._bytes_per_s else 0.0)
        if seconds:
            await asyncio.sleep(seconds)

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(_CHUNK_BYTES):
            pass


class _Pair:
    """The two sockets of one connection: down is the client's, up is the target's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.down_reader = reader
        self.down_writer = writer
        self.up_reader: asyncio.StreamReader | None = None
        self.up_writer: asyncio.StreamWriter | None = None
        self.holed = False

    async def open(self, target: tuple[str, int]) -> None:
        self.up_reader, self.up_writer = await asyncio.open_connection(*target)

    def abort(self) -> None:
        _reset(self.down_writer)
        if self.up_writer is not None:
            _reset(self.up_writer)

    def close(self) -> None:
        self.down_writer.close()
        if self.up_writer is not None:
            self.up_writer.close()

    def forget_client(self) -> None:
        """Reset what the black hole touched; a connection on which nothing was swallowed may go on."""
        if self.holed or self.up_writer is None:
            self.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: a linger time of zero throws unsent data away and tells the peer so."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() != -1:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
