"""inotify(7) by ctypes: Linux only; elsewhere :class:`WatcherUnavailable`.

Masks and the layout of events are those of ``linux/inotify.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ATTRIB",
    "CREATE",
    "DELETE",
    "DELETE_SELF",
    "IGNORED",
    "IS_FOLDER",
    "MOVED_FROM",
    "MOVED_TO",
    "MOVE_SELF",
    "OVERFLOW",
    "UNMOUNT",
    "WATCHED",
    "Inotify",
    "RawEvent",
    "WatcherUnavailable",
    "code_name",
]

MODIFY = 0x0000_0002
ATTRIB = 0x0000_0004
CLOSE_WRITE = 0x0000_0008
MOVED_FROM = 0x0000_0040
MOVED_TO = 0x0000_0080
CREATE = 0x0000_0100
DELETE = 0x0000_0200
DELETE_SELF = 0x0000_0400
MOVE_SELF = 0x0000_0800
UNMOUNT = 0x0000_2000
OVERFLOW = 0x0000_4000
IGNORED = 0x0000_8000
IS_FOLDER = 0x4000_0000
_ONLY_FOLDERS = 0x0100_0000
_DONT_FOLLOW = 0x0200_0000

WATCHED = ATTRIB | CLOSE_WRITE | CREATE | DELETE | DELETE_SELF | MODIFY | MOVED_FROM | MOVED_TO | MOVE_SELF

_EVENT = struct.Struct("iIII")
_READ_BYTES = 256 * 1024


class WatcherUnavailable(Exception):
    """Changes cannot be watched here, so each look is a walk.

    Attributes:
        sentence: Why, for people.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def code_name(error: OSError) -> str:
    """Return the name of an error, such as ``EIO``."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event.

    Attributes:
        watch: Descriptor of the watch, -1 for an overflow.
        mask: What happened.
        name: Name in the watched folder, undecodable bytes as surrogates; empty for the folder itself.
    """

    watch: int
    mask: int
    name: str


class Inotify:
    """One queue of events with its watches.

    Raises:
        WatcherUnavailable: The system has no inotify, or too many queues are open.
    """

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise WatcherUnavailable("this system has no inotify")
        library: Any = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "inotify_init1"):
            raise WatcherUnavailable("this system has no inotify")
        self._library = library
        self.fd: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            code = ctypes.get_errno()
            raise WatcherUnavailable(f"no inotify queue can be opened: {os.strerror(code)}")
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)

    def add(self, path: str, by_descriptor: bool = False, *, mask: int = WATCHED) -> int:
        """Watch a folder and return the descriptor of the watch; that of before when it is watched already.

        Args:
            path: The folder.
            by_descriptor: The path is ``/proc/self/fd/N``, which is a link that must be followed.
            mask: What to report.

        Raises:
            OSError: ``ENOSPC`` when the limit of watches is reached.
        """
        flags = _ONLY_FOLDERS if by_descriptor else _ONLY_FOLDERS | _DONT_FOLLOW
        watch: int = self._library.inotify_add_watch(self.fd, os.fsencode(path), mask | flags)
        if watch < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return watch

    def remove(self, watch: int) -> None:
        """Stop a watch; one that is gone already is no error."""
        self._library.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[RawEvent]:
        """Return the events of one read in their order; none when the queue is empty."""
        try:
            raw = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        events = []
        place = 0
        while place < len(raw):
            watch, mask, _, length = _EVENT.unpack_from(raw, place)
            place += _EVENT.size
            name = os.fsdecode(raw[place : place + length].rstrip(b"\0")) if length else ""
            events.append(RawEvent(watch, mask, name))
            place += length
        return events

    def wait(self, deadline: float) -> bool:
        """Wait until there are events, at most until a time of ``time.monotonic``; return whether there are."""
        left = deadline - time.monotonic()
        return bool(self._poll.poll(max(0.0, left) * 1000))

    def close(self) -> None:
        """Close the queue and all its watches."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
