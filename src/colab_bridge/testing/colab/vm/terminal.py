"""The terminal behind ``/colab/tty``: one shell for all, and whoever comes last has it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from colab_bridge.testing.colab.vm.carry import until_either_ends

__all__ = ["Spawn", "TerminalService"]

_READ_BYTES = 64 * 1024
_COLUMNS, _ROWS = 80, 24
#: Sizes beyond this fit no terminal; the kernel stores sixteen bits.
_MOST_CELLS = 0xFFFF
#: Session 0, made if there is none, and anybody else in it is detached.
_TMUX = ("tmux", "-u", "-f", os.devnull, "new-session", "-A", "-D", "-s", "0", "bash")
_SHELL = ("bash", "-i")


class Spawn(Protocol):
    """Starts a program on the machine."""

    def __call__(self, argv: tuple[str, ...], descriptor: int, *, terminal: bool, env: dict[str, str]) -> None:
        """Start it with a descriptor as its streams; OSError when that cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seat:
    """Whoever has the terminal, and whether that one has left."""

    connection: ServerConnection
    left: asyncio.Event = field(default_factory=asyncio.Event)


class TerminalService:
    """Serves the terminal's WebSockets.

    Args:
        spawn: Starts programs on the machine.
    """

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._kept: _Terminal | None = None
        self._current: _Seat | None = None

    async def serve(self, connection: ServerConnection) -> None:
        """Serve one client until it leaves, or another takes the terminal, or the shell has ended."""
        try:
            terminal, keep = self._open()
        except OSError as error:
            await connection.close(1011, str(error)[:100])
            return
        seat = _Seat(connection=connection)
        before, self._current = self._current, seat
        try:
            if keep and before is not None:  # tmux does it by itself
                await before.connection.close()
                await before.left.wait()
            await until_either_ends(_to_terminal(connection, terminal), _to_client(connection, terminal))
        finally:
            seat.left.set()
            if not keep:
                terminal.close()

    def _open(self) -> tuple[_Terminal, bool]:
        """Return a terminal with the shell, and whether it outlives the connection."""
        if shutil.which("tmux"):
            return _Terminal(self._spawn, _TMUX), False
        if self._kept is None or self._kept.ended:
            self._kept = _Terminal(self._spawn, _SHELL)
        return self._kept, True

    def close(self) -> None:
        """Close what is kept."""
        if self._kept is not None:
            self._kept.close()


async def _to_terminal(connection: ServerConnection, terminal: _Terminal) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        async for frame in connection:
            wish = _read_frame(frame)
            if isinstance(data := wish.get("data"), str):
                await terminal.write(data.encode("utf-8", "replace"))
            columns, rows = wish.get("cols"), wish.get("rows")
            if isinstance(columns, int) and isinstance(rows, int):
                terminal.resize(columns, rows)


def _read_frame(frame: str | bytes) -> dict[str, Any]:
    """Return what a client sent; nothing for what is no JSON object."""
    try:
        wish = json.loads(frame)
    except ValueError:
        return {}
    return wish if isinstance(wish, dict) else {}


async def _to_client(connection: ServerConnection, terminal: _Terminal) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with contextlib.suppress(ConnectionClosed):
        while data := await terminal.read():
            if text := decoder.decode(data):
                await connection.send(json.dumps({"data": text}))


class _Terminal:
    """Our end of a terminal that a program on the machine controls.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, spawn: Spawn, argv: tuple[str, ...]) -> None:
        if sys.platform == "win32":
            raise OSError("there are no such terminals on Windows")
        self.ended = False
        self._master, theirs = os.openpty()
        os.set_blocking(self._master, False)
        try:
            self.resize(_COLUMNS, _ROWS)
            spawn(argv, theirs, terminal=True, env={"TERM": "xterm-256color"})
        except OSError:
            os.close(self._master)
            raise
        finally:
            os.close(theirs)

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program the size of the client's window."""
        import fcntl  # here, because Windows has neither, nor a terminal to resize
        import termios

        size = struct.pack("HHHH", *(max(1, min(cells, _MOST_CELLS)) for cells in (rows, columns)), 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    async def read(self) -> bytes:
        """Return what the program has written; empty when it has ended."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._master, _READ_BYTES)
            except BlockingIOError:
                await _wait(loop.add_reader, loop.remove_reader, self._master)
            except OSError:  # EIO: nobody has the other end open any more
                self.ended = True
                return b""

    async def write(self, data: bytes) -> None:
        """Type something."""
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                await _wait(loop.add_writer, loop.remove_writer, self._master)

    def close(self) -> None:
        """Hang up."""
        self.ended = True
        with contextlib.suppress(OSError):
            os.close(self._master)


async def _wait(add: Callable[..., Any], remove: Callable[[int], Any], descriptor: int) -> None:
    ready = asyncio.get_running_loop().create_future()
    add(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(descriptor)
