"""The mark of a file that came from elsewhere: macOS and Windows ask before they open a program that has it (T15).

macOS: the extended attribute ``com.apple.quarantine`` (setxattr(2), ``<sys/xattr.h>``). Windows: the stream
``Zone.Identifier`` with zone 3, the internet ([MS-FSCC] 5.6.1). Linux has nothing of the kind.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress
from typing import Any

__all__ = ["has_marks", "mark_as_foreign", "quarantine_value"]

_ATTRIBUTE = b"com.apple.quarantine"
_NO_FOLLOW = 1  # XATTR_NOFOLLOW
_ZONE = b"[ZoneTransfer]\r\nZoneId=3\r\n"


def quarantine_value(now_s: float) -> bytes:
    """Return the value of the attribute: flags (a file that was downloaded), time in hex, program."""
    return f"0081;{int(now_s):x};Colab Bridge;".encode("ascii")


def has_marks() -> bool:
    """Return whether this system knows such marks."""
    return sys.platform in {"darwin", "win32"}


def mark_as_foreign(path: str) -> None:
    """Mark a file of ours that is about to take its place; where the file system has no marks, nothing happens.

    Args:
        path: Absolute path of a regular file in the stage.
    """
    if sys.platform == "darwin":
        library: Any = ctypes.CDLL(None, use_errno=True)
        value = quarantine_value(time.time())
        library.setxattr(os.fsencode(path), _ATTRIBUTE, value, ctypes.c_size_t(len(value)), 0, _NO_FOLLOW)
    elif sys.platform == "win32":
        with suppress(OSError), open(f"{path}:Zone.Identifier", "wb") as stream:
            stream.write(_ZONE)
