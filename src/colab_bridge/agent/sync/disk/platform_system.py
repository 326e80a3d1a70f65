"""Facts about the machine that each operating system tells in its own way."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import sys
from typing import Any

__all__ = ["boot_id", "by_descriptor", "free_names", "mount_points", "open_root"]

from .platform_folder import Folder
from .platform_paths import PathFolder, long_path
from .platform_posix import DescriptorFolder

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MOUNTS = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")


def by_descriptor() -> bool:
    """Return whether folders can be held by descriptors here."""
    return os.name == "posix" and {os.open, os.stat, os.readlink} <= os.supports_dir_fd and os.listdir in os.supports_fd


def open_root(path: str) -> Folder:
    """Open a folder as a root, in the best way that the system has."""
    if by_descriptor():
        return DescriptorFolder.open_root(path)
    return PathFolder.open_root(long_path(path) if os.name == "nt" else path)


def free_names(path: str) -> int | None:
    """Return how many more files and folders the disk of a path can have; None where it has no such limit."""
    if os.name != "posix":
        return None
    found = os.statvfs(path)
    return found.f_favail if found.f_files else None


def boot_id() -> str:
    """Return an id of this start of the machine; empty when the system tells none."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        pass
    return _windows_boot() if os.name == "nt" else _darwin_boot() if sys.platform == "darwin" else ""


def _darwin_boot() -> str:
    # sysctlbyname(3); the kernel makes a new kern.bootsessionuuid at each start.
    library: Any = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    room = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(room))
    failed = library.sysctlbyname(b"kern.bootsessionuuid", room, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else room.value.decode("ascii", "replace")


def _windows_boot() -> str:
    # NtQuerySystemInformation(SystemTimeOfDayInformation): the first eight bytes are the time of the start in units of
    # 100 ns; it moves when the clock is set, so it is cut to minutes.
    library: Any = getattr(ctypes, "windll", None)
    if library is None:
        return ""
    room = ctypes.create_string_buffer(48)
    if library.ntdll.NtQuerySystemInformation(3, room, len(room), None):
        return ""
    return f"boot-{int.from_bytes(room.raw[:8], 'little') // 600_000_000}"


def mount_points(folder: Folder) -> frozenset[str] | None:
    """Return the paths below an open folder on which something else is mounted, relative to it, in disk spelling.

    Only Linux tells; None elsewhere, where other devices are seen by their number. Source: proc_pid_mountinfo(5).
    """
    try:
        here = os.fsencode(os.readlink(f"/proc/self/fd/{folder.fd}"))
        with open(_MOUNTS, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    prefix = here.rstrip(b"/") + b"/"
    found = set()
    for line in lines:
        fields = line.split(b" ", 5)
        if len(fields) < 6:
            continue
        point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
        if point.startswith(prefix):
            found.add(os.fsdecode(point[len(prefix) :]))
    return frozenset(found)
