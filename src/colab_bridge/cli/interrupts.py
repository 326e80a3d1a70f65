"""Ctrl-C, counted: the first is for the program, the second gives the prompt back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self, TextIO

__all__ = ["Interrupts"]


class Interrupts:
    """Catches Ctrl-C while a run is followed. Use it as a context manager, in the main thread.

    The first one only sets :attr:`count` and makes :attr:`wake` readable, so that nothing is torn apart in the middle.
    The second one raises ``KeyboardInterrupt`` right where we are, whatever we wait for.

    Attributes:
        count: How often Ctrl-C was pressed since the last :meth:`reset`.
        wake: Becomes readable with each Ctrl-C, on POSIX and on Windows.
    """

    def __init__(self) -> None:
        self.count = 0
        self.wake, self._alarm = socket.socketpair()
        self.wake.setblocking(False)
        self._alarm.setblocking(False)
        self._at_once = False

    def __enter__(self) -> Self:
        self._old_handler = signal.signal(signal.SIGINT, self._caught)
        # The interpreter writes to it when a signal arrives, also while we wait in a system call on Windows.
        self._old_wakeup = signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        signal.signal(signal.SIGINT, self._old_handler)
        self.wake.close()
        self._alarm.close()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1 or self._at_once:
            raise KeyboardInterrupt

    def drain(self) -> None:
        """Make :attr:`wake` unreadable until the next Ctrl-C."""
        with contextlib.suppress(OSError):
            while self.wake.recv(64):
                pass

    def wait_for(self, terminal: TextIO) -> None:
        """Wait until a terminal has a line to read; inside :meth:`raising`, a Ctrl-C ends the wait.

        Reading at once would miss a Ctrl-C that comes in the instant before the system call begins. Consoles of Windows
        end their read by themselves.
        """
        if os.name == "posix":
            sources: list[TextIO | socket.socket] = [terminal, self.wake]
            select.select(sources, [], [])

    def reset(self) -> None:
        """Forget what was pressed: the next Ctrl-C is a first one again."""
        self.count = 0

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Let the first Ctrl-C raise too: for waits that nothing else can end, such as reading a line."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
