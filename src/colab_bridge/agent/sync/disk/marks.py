"""The mark of a file that came from elsewhere: macOS and Windows ask before they open a program that has it (T15).

macOS: the extended attribute ``com.apple.quarantine`` (setxattr(2), ``<sys/xattr.h>``). Windows: the stream
``Zone.Identifier`` with zone 3, the internet ([MS-FSCC] 5.6.1). Linux has nothing of the kind.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["AppleMark", "quarantine_value", "system_mark", "write_zone"]

_ATTRIBUTE = b"com.apple.quarantine"
_NO_FOLLOW = 1  # XATTR_NOFOLLOW
_ZONE = b"[ZoneTransfer]\r\nZoneId=3\r\n"


def quarantine_value(now_s: float) -> bytes:
    """Return the value of the attribute: flags (a file that was downloaded), time in hex, program."""
    return f"0081;{int(now_s):x};Colab Bridge;".encode("ascii")


class AppleMark:
    """Sets the attribute of macOS.

    Args:
        library: The C library; its ``setxattr`` returns -1 where the file system has no attributes.
    """

    def __init__(self, library: Any) -> None:
        self._set = library.setxattr

    def __call__(self, path: str) -> None:
        """Mark a file."""
        value = quarantine_value(time.time())
        self._set(os.fsencode(path), _ATTRIBUTE, value, ctypes.c_size_t(len(value)), 0, _NO_FOLLOW)


def write_zone(path: str) -> None:
    """Mark a file on Windows; a file system without streams refuses, and it stays as it is."""
    with suppress(OSError), open(f"{path}:Zone.Identifier", "wb") as stream:
        stream.write(_ZONE)


def system_mark(platform: str = sys.platform) -> Callable[[str], None] | None:
    """Return what marks a regular file by its path before it takes its place; None where there are no marks.

    Args:
        platform: As ``sys.platform`` names it.
    """
    if platform == "darwin":
        return AppleMark(ctypes.CDLL(None, use_errno=True))
    return write_zone if platform == "win32" else None
