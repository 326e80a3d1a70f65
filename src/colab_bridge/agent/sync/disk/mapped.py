"""Files that programs have mapped into memory or open for writing, told by ``/proc``.

A store through a shared map gives no event, and only the first one after the page was clean moves a stamp. So such a
file is written out (the next store then moves the stamp again) and read at every look for as long as it is mapped.
numpy.memmap, HDF5, LMDB and SQLite work this way. Source: proc_pid_maps(5), proc_pid_fdinfo(5).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from .root import STATE_FOLDER, Root

__all__ = ["MappedUnavailable", "MappedWatch", "fsync_mapped", "mapped_files", "open_for_writing"]

_PROC = "/proc"
#: Seconds between two looks at the maps of every process.
_ALL_EVERY_S = 10.0
_STAT_BYTES = 4096
_DELETED = b" (deleted)"
_WRITABLE_FLAGS = os.O_WRONLY | os.O_RDWR


class MappedUnavailable(Exception):
    """This system does not tell what programs have open; the audit finds such changes later."""


def mapped_files(root: Root) -> list[str]:
    """Return the files below a root that some process has mapped shared and writable, as the disk spells them.

    Processes of other users are not seen without privilege.

    Raises:
        MappedUnavailable: There is no ``/proc``.
    """
    return MappedWatch(root).look()


class MappedWatch:
    """Looks for mapped files again and again.

    Reading a process's maps takes a third of a millisecond, its size a few microseconds. A process that had nothing
    below the root and has not changed its size since is passed over, until the next look at everything: who gives one
    map away and takes another one of the same size is seen a few seconds late.

    Args:
        root: The root.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, root: Root, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._without: dict[str, bytes] = {}
        self._all_at = float("-inf")

    def look(self) -> list[str]:
        """Return what :func:`mapped_files` does.

        Raises:
            MappedUnavailable: There is no ``/proc``.
        """
        prefix = _prefix(self._root)
        now = self._clock()
        if now - self._all_at >= _ALL_EVERY_S:
            self._without, self._all_at = {}, now
        found: set[str] = set()
        without: dict[str, bytes] = {}
        for process in _processes():
            with suppress(OSError):
                size = _start_and_size(process)
                here = set() if self._without.get(process) == size else _maps_of(process, prefix)
                found |= here
                if not here:
                    without[process] = size
        self._without = without
        return sorted(path for path in found if not _is_ours(path))


def _start_and_size(process: str) -> bytes:
    """Return when a process began and how much it has mapped, as the system writes it; see proc_pid_stat(5)."""
    # Without a file object: there may be hundreds of processes, and this is asked of each of them.
    number = os.open(f"{_PROC}/{process}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(number, _STAT_BYTES)
    finally:
        os.close(number)
    return b" ".join(fields[fields.rfind(b")") + 1 :].split()[19:21])


def _maps_of(process: str, prefix: bytes) -> set[str]:
    with open(f"{_PROC}/{process}/maps", "rb") as file:
        content = file.read()
    return set(_mapped_in(content, prefix)) if prefix in content else set()


def _mapped_in(content: bytes, prefix: bytes) -> Iterator[str]:
    for line in content.split(b"\n"):
        fields = line.split(b" ", 5)
        if len(fields) < 6 or fields[1] != b"rw-s":
            continue
        path = fields[5].lstrip(b" ")
        if path.startswith(prefix) and not path.endswith(_DELETED):
            # A line end in a name is the only thing that is escaped here.
            yield os.fsdecode(path[len(prefix) :].replace(b"\\012", b"\n"))


def fsync_mapped(root: Root, paths: Iterable[str]) -> list[str]:
    """Write mapped files out, so that the next store to them can be seen.

    Args:
        root: The root.
        paths: As :func:`mapped_files` told.

    Returns:
        Those that could not be written out; they are read at each look all the same.
    """
    failed = []
    for path in paths:
        parent, _, name = path.rpartition("/")
        try:
            with root.folder(parent) as folder:
                fd = folder.open_file(name)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        except (OSError, ValueError):
            failed.append(path)
    return failed


def open_for_writing(root: Root) -> list[str]:
    """Return the files below a root that some process has open for writing, as the disk spells them.

    Raises:
        MappedUnavailable: There is no ``/proc``.
    """
    prefix = _prefix(root)
    found: set[str] = set()
    for process in _processes():
        with suppress(OSError):
            found.update(_written_by(process, prefix))
    return sorted(path for path in found if not _is_ours(path))


def _written_by(process: str, prefix: bytes) -> Iterator[str]:
    folder = f"{_PROC}/{process}/fd"
    for number in os.listdir(folder):
        with suppress(OSError):
            path = os.fsencode(os.readlink(f"{folder}/{number}"))
            if path.startswith(prefix) and not path.endswith(_DELETED) and _is_writable(process, number):
                yield os.fsdecode(path[len(prefix) :])


def _is_writable(process: str, number: str) -> bool:
    with open(f"{_PROC}/{process}/fdinfo/{number}", "rb") as file:
        for line in file:
            if line.startswith(b"flags:"):
                return bool(int(line.split()[1], 8) & _WRITABLE_FLAGS)
    return False


def _processes() -> list[str]:
    return [name for name in os.listdir(_PROC) if name.isdecimal()]


def _is_ours(path: str) -> bool:
    return path.split("/", 1)[0] == STATE_FOLDER


def _prefix(root: Root) -> bytes:
    try:
        here = os.readlink(f"{_PROC}/self/fd/{root.fd}")
    except OSError as error:
        raise MappedUnavailable("this system does not tell what programs have open") from error
    return os.fsencode(here).rstrip(b"/") + b"/"
