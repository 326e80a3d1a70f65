"""This terminal, every key passed on as it is typed. One adapter for each kind of system."""

from __future__ import annotations

import os
import select
import signal
import sys
from types import FrameType, TracebackType
from typing import Self

__all__ = ["RawTerminal"]

_READ_BYTES = 65536
#: A console on Windows tells nothing by itself: keys and size are looked at this often.
_LOOK_S = 0.02


class RawTerminal:
    """Keys as bytes, output as bytes, and the size; a context manager that puts everything back as it was.

    Attributes:
        resized: Whether the size has changed since it was last asked for.
    """

    def __init__(self) -> None:
        self.resized = False
        self._wake_reader, self._wake_writer = os.pipe()
        self._size = self.size()

    def __enter__(self) -> Self:
        """Take the terminal."""
        if sys.platform == "win32":
            from colab_bridge.cli.raw_terminal_windows import enter

            self._leave = enter()
        else:
            import termios
            import tty

            number = sys.stdin.fileno()
            before = termios.tcgetattr(number)
            tty.setraw(number)
            old = signal.signal(signal.SIGWINCH, self._changed)

            def leave() -> None:
                signal.signal(signal.SIGWINCH, old)
                termios.tcsetattr(number, termios.TCSADRAIN, before)

            self._leave = leave
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._leave()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _changed(self, _signal: int, _frame: FrameType | None) -> None:
        self.resized = True
        self.wake()

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        try:
            # Not what COLUMNS and LINES say: they do not change with the window.
            found = os.get_terminal_size(sys.stdout.fileno())
        except (OSError, ValueError):
            found = os.terminal_size((80, 24))
        self.resized = False
        self._size = (found.columns, found.lines)
        return self._size

    def wake(self) -> None:
        """End a :meth:`read` that waits, from any thread."""
        os.write(self._wake_writer, b"\0")

    def read(self) -> bytes | None:
        """Wait for keys, a new size or :meth:`wake`.

        Returns:
            What was typed; empty when there is something else to look at; None when the terminal has gone.
        """
        if sys.platform == "win32":
            from colab_bridge.cli.raw_terminal_windows import typed

            keys = typed(_LOOK_S)
            before = self._size
            self.resized = self.size() != before
            return keys
        ready, _, _ = select.select([sys.stdin.fileno(), self._wake_reader], [], [])
        if self._wake_reader in ready:
            os.read(self._wake_reader, _READ_BYTES)
            return b""
        return os.read(sys.stdin.fileno(), _READ_BYTES) or None

    def write(self, data: bytes) -> None:
        """Show bytes."""
        view = memoryview(data)
        while view:
            view = view[os.write(sys.stdout.fileno(), view) :]
