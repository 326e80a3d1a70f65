"""Keeps the agent small: its memory, its files, and its life when nobody needs it any more."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass

from .folder import Folder, free_bytes

__all__ = ["Caps", "DiskUse", "rss_bytes"]

MIB = 1024 * 1024
_DISK_LEAVE_BYTES = 128 * MIB


@dataclass(frozen=True)
class Caps:
    """What the agent may use.

    Attributes:
        rss_bytes: Memory; above it the process ends, and the daemon starts another one. What services need lies far
            below, so this only meets defects.
        disk_bytes: All files in its folder.
        idle_s: Seconds with neither a daemon nor a service that is busy, after which the process ends.
    """

    rss_bytes: int = 512 * MIB
    disk_bytes: int = 4096 * MIB
    idle_s: float = 1800.0


class DiskUse:
    """What the agent's files take, measured from time to time, and what they may still grow.

    Args:
        folder: The agent's.
        caps: What it may use.
    """

    def __init__(self, folder: Folder, caps: Caps) -> None:
        self._folder = folder
        self._caps = caps
        self.used_bytes = 0

    def measure(self) -> None:
        """Look at the folder; blocks."""
        self.used_bytes = self._folder.size_bytes()
        # Bundles that nobody has touched for a month are removed by whoever starts the next agent.
        with contextlib.suppress(OSError):
            os.utime(sys.argv[0])

    @property
    def free_bytes(self) -> int:
        """What the disk has left."""
        return free_bytes(self._folder.path)

    def room_bytes(self) -> int:
        """Return what may still be written: some of the disk is left to its user."""
        # On a small disk a fixed reserve would leave nothing at all.
        spare = self.free_bytes
        spare -= min(_DISK_LEAVE_BYTES, spare // 2)
        return max(0, min(self._caps.disk_bytes - self.used_bytes, spare))


def rss_bytes() -> int | None:
    """Return the memory of this process, None where the system does not tell it without a library.

    A limit set by the system (``RLIMIT_AS``) would be inherited by programs that services start, and those of a GPU
    reserve more address space than any limit that would be of use here.
    """
    if sys.platform != "linux":
        return None
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
