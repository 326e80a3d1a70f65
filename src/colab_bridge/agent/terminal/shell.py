"""One shell in a terminal of its own, kept while nobody looks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping

from ..process.service import ServerStream

__all__ = ["Shell", "Size"]

_READ_BYTES = 64 * 1024
#: What is shown again to whoever comes back.
_KEPT_BYTES = 256 * 1024
#: More keystrokes than a person or a paste makes; the rest is dropped rather than held in memory.
_MOST_UNWRITTEN = 4 * 1024 * 1024

# Makes the terminal the controlling one of the new session, which only the process itself can do, and lets signals do
# what they do in a shell: the agent ignores some, and a new program inherits that.
_BEGIN = """
import fcntl, os, signal, sys, termios
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGTSTP, signal.SIGPIPE):
    signal.signal(number, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Size:
    """Columns and rows of a terminal, as far as they make sense.

    Args:
        cols: Columns; 80 for anything else than 1 to 1000.
        rows: Rows; 24 for anything else than 1 to 1000.
    """

    def __init__(self, cols: object, rows: object) -> None:
        self.cols = cols if isinstance(cols, int) and 1 <= cols <= 1000 else 80
        self.rows = rows if isinstance(rows, int) and 1 <= rows <= 1000 else 24


class Shell:
    """A process in a pseudo-terminal; used from the event loop.

    Args:
        command: Program and arguments.
        cwd: Its working folder; the process's own when it does not exist.
        env: Its environment.
        size: Of its terminal.
        ended: Called once with the exit status.

    Attributes:
        gone: Set when its process has ended.

    Raises:
        OSError: there is no terminal to be had, or no such program.
    """

    def __init__(
        self, command: list[str], cwd: str, env: Mapping[str, str], size: Size, ended: Callable[[int], None]
    ) -> None:
        import pty  # absent where there are no such terminals

        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._stream: ServerStream | None = None
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._unwritten = bytearray()
        self._reading = False
        self._over = False
        self.gone = asyncio.Event()
        self._left_at = self._loop.time()
        self._master, slave = pty.openpty()
        try:
            self.resize(size)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BEGIN, *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=cwd if os.path.isdir(cwd) else None,
                env=dict(env),
                start_new_session=True,
                close_fds=True,
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)
        self._read(True)

    @property
    def pid(self) -> int:
        """Id of its process."""
        return self._process.pid

    # -- who looks

    def attach(self, stream: ServerStream) -> None:
        """Show everything to a stream from now on, and what was kept first; an earlier one is ended."""
        before, self._stream = self._stream, stream
        if before is not None:
            before.close("taken", "another terminal has this shell now")
        for piece in self._kept:
            if stream.can_send(len(piece) + 1024):
                stream.send({}, piece)
        self._read(True)

    def detach(self, stream: ServerStream) -> None:
        """Nobody looks any more; the shell goes on."""
        if self._stream is stream:
            self._stream = None
            self._left_at = self._loop.time()
            self._read(True)

    def wanted(self, seconds: float) -> bool:
        """Return whether somebody looks, or did so in the last ``seconds``."""
        return self._stream is not None or self._loop.time() - self._left_at <= seconds

    def room(self) -> None:
        """Go on: the stream has room again."""
        self._read(True)

    def resize(self, size: Size) -> None:
        """Change the terminal's size; the programs in it are told."""
        import fcntl
        import termios

        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))

    # -- bytes

    def type(self, data: bytes) -> None:
        """Write what was typed."""
        if self._over or len(self._unwritten) + len(data) > _MOST_UNWRITTEN:
            return
        self._unwritten += data
        self._write()

    def _write(self) -> None:
        while self._unwritten:
            try:
                written = os.write(self._master, self._unwritten[:_READ_BYTES])
            except BlockingIOError:
                self._loop.add_writer(self._master, self._write)
                return
            except OSError:
                self._unwritten.clear()
                break
            del self._unwritten[:written]
        self._loop.remove_writer(self._master)

    def _read(self, on: bool) -> None:
        if on and not self._reading and not self._over:
            self._loop.add_reader(self._master, self._readable)
        elif not on and self._reading:
            self._loop.remove_reader(self._master)
        self._reading = on and not self._over

    def _readable(self) -> None:
        if self._stream is not None and not self._stream.can_send(_READ_BYTES + 1024):
            self._read(False)
            return
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # the last program has closed the terminal
            data = b""
        if not data:
            self._finish()
            return
        self._keep(data)
        if self._stream is not None:
            self._stream.send({}, data)

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_bytes += len(data)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft())

    # -- ends

    def end(self) -> None:
        """End the shell and what runs in it as a closed window does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGHUP)
        self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        self._read(False)
        self._over = True
        self._loop.remove_writer(self._master)
        os.close(self._master)
        self._loop.create_task(self._reap())

    async def _reap(self) -> None:
        """Task root: wait for the process, which may live on without a terminal for a moment."""
        status = await self._loop.run_in_executor(None, self._wait)
        if self._stream is not None:
            self._stream.close("exited", str(status))
            self._stream = None
        self.gone.set()
        self._ended(status)

    def _wait(self) -> int:
        try:
            return self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()
