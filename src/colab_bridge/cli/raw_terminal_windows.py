"""The Windows half of :mod:`.raw_terminal`: a console in which every key is passed on and escape sequences count."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

__all__ = ["enter", "typed"]

# Source: Windows console API, SetConsoleMode.
_STDIN, _STDOUT = -10, -11
_PROCESSED_INPUT, _LINE_INPUT, _ECHO_INPUT, _VT_INPUT = 0x1, 0x2, 0x4, 0x200
_VT_OUTPUT = 0x4

_ELSEWHERE = "this is for Windows consoles"


def enter() -> Callable[[], None]:
    """Switch the console over and return what switches it back."""
    if sys.platform == "win32":
        import ctypes

        system = ctypes.windll.kernel32
        before: list[tuple[int, int]] = []
        for number, off, on in (
            (_STDIN, _PROCESSED_INPUT | _LINE_INPUT | _ECHO_INPUT, _VT_INPUT),
            (_STDOUT, 0, _VT_OUTPUT),
        ):
            handle, mode = system.GetStdHandle(number), ctypes.c_uint32()
            if system.GetConsoleMode(handle, ctypes.byref(mode)):
                before.append((handle, mode.value))
                system.SetConsoleMode(handle, mode.value & ~off | on)

        def leave() -> None:
            for handle, value in before:
                system.SetConsoleMode(handle, value)

        return leave
    raise OSError(_ELSEWHERE)


def typed(wait_s: float) -> bytes:
    """Return the keys that were typed; waits ``wait_s`` at most."""
    if sys.platform == "win32":
        import msvcrt

        if not msvcrt.kbhit():
            time.sleep(wait_s)  # the console has no event that can be waited for together with ours
        keys = []
        while msvcrt.kbhit():
            keys.append(msvcrt.getwch())
        return "".join(keys).encode("utf-8", "replace")
    raise OSError(_ELSEWHERE)
