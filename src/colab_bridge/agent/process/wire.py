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
from typing import Any, TypeVar

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


class LocalWire:
    """One connection on this machine.

    Args:
        reader: Its incoming half.
        writer: Its outgoing half.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard: Callable[[], None] | None = None
        writer.transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end."""
        try:
            data = await self._reader.read(_READ_BYTES)
        except OSError:
            return b""
        if data and self.heard is not None:
            self.heard()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when the connection can take more."""
        if self._writer.is_closing():
            return
        self._writer.write(data)
        # A reset shows in read.
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def aclose(self) -> None:
        """End the connection, after what has been written if that goes quickly."""
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), _CLOSE_S)
        self._writer.transport.abort()


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
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=_BACKLOG)
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
            self._server = await asyncio.start_unix_server(self._accepted, sock=raw, backlog=_BACKLOG)
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

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= _BACKLOG:
            writer.transport.abort()
            return
        self._tasks.add(task)
        wire = LocalWire(reader, writer)
        try:
            if await self._knows_token(reader):
                await self._accept(wire)
        except (asyncio.CancelledError, asyncio.TimeoutError, OSError):
            pass  # whoever cancels is the listener's close; the server has nobody to tell
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _knows_token(self, reader: asyncio.StreamReader) -> bool:
        if not self._token:
            return True
        said = await asyncio.wait_for(reader.readexactly(len(self._token) + 1), _TOKEN_TIMEOUT_S)
        return hmac.compare_digest(said, f"{self._token}\n".encode("ascii"))


async def open_local(address: Mapping[str, Any], make: Callable[..., W]) -> W:
    """Connect to an agent on this machine.

    Args:
        address: As :meth:`Listener.open` returned it.
        make: Makes the wire of a reader and a writer.

    Raises:
        OSError: nobody listens there, or the address is none.
    """
    path, host, port, token = (address.get(key) for key in ("path", "host", "port", "token"))
    if address.get("kind") == "unix" and isinstance(path, str) and hasattr(asyncio, "open_unix_connection"):
        return make(*await asyncio.open_unix_connection(path))
    if host != "127.0.0.1" or not isinstance(port, int) or not isinstance(token, str):
        raise ConnectionRefusedError("the agent's address is not readable")
    wire = make(*await asyncio.open_connection(host, port))
    await wire.write(f"{token}\n".encode())
    return wire
