"""Local connections of the agent: its listening socket, and one connection as the channel's pump needs it.

A Unix socket in the agent's folder, mode 0600, is the rule. Where there is none (Windows, a path of more than 100
bytes, a file system without sockets) it is TCP on loopback, and the first line of each connection is a token from
``agent.json``, which only its owner can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

__all__ = ["Listener", "LocalWire", "open_local", "read_line"]

# sun_path has 108 bytes on Linux and 104 on macOS.
_MOST_PATH_BYTES = 100
_READ_BYTES = 256 * 1024
_WRITE_HIGH_BYTES = 256 * 1024
_TOKEN_TIMEOUT_S = 5.0
_CLOSE_S = 1.0
_BACKLOG = 16

W = TypeVar("W", bound="LocalWire")
Accept = Callable[["LocalWire"], Awaitable[None]]


class LocalWire(asyncio.BufferedProtocol):
    """One connection on this machine.

    What comes is read into one buffer again and again: room for the longest read takes the system longer to make than
    all that is done with a short one.

    Attributes:
        heard: Called when something has come.

    Args:
        made: Called with it when the connection is there.
    """

    def __init__(self, made: Callable[[LocalWire], None] | None = None) -> None:
        self.heard: Callable[[], None] | None = None
        self._made = made
        self._space = memoryview(bytearray(_READ_BYTES))
        self._come = asyncio.Queue[bytes]()
        self._come_bytes = 0
        self._take: Callable[[bytes], None] | None = None
        self._back = b""
        self._room = asyncio.Event()
        self._lost = asyncio.Event()

    # -- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        # By default a Unix socket holds less than the doorman reads at once, and each of its messages has a price.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _WRITE_HIGH_BYTES)
        self._room.set()
        if self._made is not None:
            self._made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes go."""
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes; what nobody reads holds up the other end."""
        if self.heard is not None:
            self.heard()
        data = bytes(self._space[:nbytes])
        if self._take is not None:
            self._take(data)
            return
        self._come.put_nowait(data)
        self._come_bytes += nbytes
        if self._come_bytes >= _READ_BYTES:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Learn that the other end is slow."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Learn that it has caught up."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._come.put_nowait(b"")
        self._room.set()
        self._lost.set()

    # -- for its user

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end."""
        if self._back:
            data, self._back = self._back, b""
            return data
        data = await self._come.get()
        if not data:
            self._come.put_nowait(b"")  # the end stays
        before, self._come_bytes = self._come_bytes, self._come_bytes - len(data)
        if before >= _READ_BYTES > self._come_bytes and not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    async def deliver(self, take: Callable[[bytes], None]) -> None:
        """Hand over what comes from the callback that gets it, until the end.

        Args:
            take: Is given the bytes, cut in any way; must neither block nor raise.
        """
        while self._back or not self._come.empty():
            data = await self.read()
            if not data:
                return
            take(data)
        self._take = take
        try:
            await self._lost.wait()
        finally:
            self._take = None

    @property
    def has_room(self) -> bool:
        """Whether everything that was written has left this process."""
        return not self._transport.is_closing() and self._transport.get_write_buffer_size() == 0

    def write_now(self, data: bytes) -> None:
        """Send bytes from a callback."""
        self._transport.write(data)

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when the connection can take more. One that has ended swallows them."""
        if not self._transport.is_closing():
            self._transport.write(data)
            await self._room.wait()

    def unread(self, data: bytes) -> None:
        """Give back what was read too much, before anything else is read."""
        if data:
            self._back = data

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    async def aclose(self) -> None:
        """End the connection, after what has been written if that goes quickly."""
        self._transport.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._lost.wait(), _CLOSE_S)
        self.abort()


async def read_line(read: Callable[[], Awaitable[bytes]], most_bytes: int) -> tuple[bytes, bytes]:
    """Read up to a line feed.

    Args:
        read: Returns the next bytes, empty at the end.
        most_bytes: Longest line.

    Returns:
        The line without its line feed (all there was when none came), and the bytes after it.
    """
    found = b""
    while len(found) <= most_bytes and b"\n" not in found:
        data = await read()
        if not data:
            break
        found += data
    line, _feed, rest = found.partition(b"\n")
    return line, rest


class Listener:
    """The agent's listening socket.

    Args:
        folder: Where a Unix socket goes.
        accept: Called with each connection that has shown the token where one is needed; owns the connection.
    """

    def __init__(self, folder: Path, accept: Accept) -> None:
        self._path = folder / "socket"
        self._accept = accept
        self._server: asyncio.AbstractServer | None = None
        self._token = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> dict[str, Any]:
        """Listen, and return the address for ``agent.json``.

        Raises:
            OSError: neither kind of socket can be had.
        """
        if hasattr(socket, "AF_UNIX") and os.name == "posix" and len(os.fsencode(self._path)) <= _MOST_PATH_BYTES:
            with contextlib.suppress(OSError):
                return await self._open_unix()
        self._token = secrets.token_hex(32)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._new_wire, "127.0.0.1", 0, backlog=_BACKLOG)
        port = self._server.sockets[0].getsockname()[1]
        return {"kind": "tcp", "host": "127.0.0.1", "port": port, "token": self._token}

    async def _open_unix(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # of an agent that has ended; the folder's lock is ours
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            raw.bind(os.fspath(self._path))
            os.chmod(self._path, 0o600)
            raw.setblocking(False)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(self._new_wire, sock=raw, backlog=_BACKLOG)
        except OSError:
            raw.close()
            raise
        return {"kind": "unix", "path": os.fspath(self._path)}

    async def close(self) -> None:
        """Stop listening, and end what has been accepted."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._token:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _new_wire(self) -> LocalWire:
        return LocalWire(self._begin)

    def _begin(self, wire: LocalWire) -> None:
        if len(self._tasks) >= _BACKLOG:
            wire.abort()
            return
        task = asyncio.ensure_future(self._serve(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: LocalWire) -> None:
        try:
            if await self._knows_token(wire):
                await self._accept(wire)
        except (asyncio.CancelledError, asyncio.TimeoutError, OSError):
            pass  # whoever cancels is the listener's close; the server has nobody to tell
        finally:
            wire.abort()

    async def _knows_token(self, wire: LocalWire) -> bool:
        if not self._token:
            return True
        line, rest = await asyncio.wait_for(read_line(wire.read, len(self._token)), _TOKEN_TIMEOUT_S)
        wire.unread(rest)
        return hmac.compare_digest(line, self._token.encode("ascii"))


async def open_local(address: Mapping[str, Any], make: Callable[[], W]) -> W:
    """Connect to an agent on this machine.

    Args:
        address: As :meth:`Listener.open` returned it.
        make: Makes the wire.

    Raises:
        OSError: nobody listens there, or the address is none.
    """
    path, host, port, token = (address.get(key) for key in ("path", "host", "port", "token"))
    loop = asyncio.get_running_loop()
    if address.get("kind") == "unix" and isinstance(path, str) and hasattr(asyncio, "open_unix_connection"):
        return (await loop.create_unix_connection(make, path))[1]
    if host != "127.0.0.1" or not isinstance(port, int) or not isinstance(token, str):
        raise ConnectionRefusedError("the agent's address is not readable")
    wire = (await loop.create_connection(make, host, port))[1]
    await wire.write(f"{token}\n".encode())
    return wire
