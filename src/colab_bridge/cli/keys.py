"""Reading a person's choice while something else is waited for."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence

__all__ = ["Keys"]

# A console on Windows cannot be waited for together with a socket, so it is looked at this often.
_LOOK_S = 0.1


class Keys:
    """Standard input as a source of choices.

    Attributes:
        sources: File numbers to wait for; a choice can be read when one is readable.
        interval_s: How often :meth:`read` must be called at least; None where ``sources`` tells.
    """

    def __init__(self) -> None:
        windows = sys.platform == "win32"
        self.sources: Sequence[int] = [] if windows else [sys.stdin.fileno()]
        self.interval_s: float | None = _LOOK_S if windows else None

    def read(self) -> str:
        """Return what was typed, lower case, empty when nothing was."""
        if sys.platform == "win32":
            import msvcrt

            typed = msvcrt.getwch() if msvcrt.kbhit() else ""
        else:
            typed = self._line()
        return typed.strip().lower()

    def _line(self) -> str:
        if not self.sources or not select.select(self.sources, [], [], 0)[0]:
            return ""
        data = os.read(self.sources[0], 1024)
        if not data:
            # The terminal has gone: nothing can be chosen any more.
            self.sources = []
        return data.decode("utf-8", "replace")
