"""Reading a file so that its digest belongs to one state of it: stat before, read, stat after, a few tries."""

from __future__ import annotations

import os
import stat as modes
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from ..transfer.signatures import MIN_DELTA_BYTES
from ..transfer.trail import Trail, Trails, read_large
from .platform_folder import Folder
from .statcache import record_of

__all__ = ["Content", "ContentReader", "NotRegular", "Unstable", "digest_of"]

_PIECE_BYTES = 1 << 20
# Pauses between tries, seconds; a scan waits no longer than the limit for all its files together, a log that is
# written all the time would cost each barrier a fifth of a second otherwise.
_PAUSES_S = (0.01, 0.04, 0.16)
_PATIENCE_S = 1.0


class Unstable(Exception):
    """The file changed each time while it was read."""


class NotRegular(Exception):
    """What was opened is no regular file (any more)."""


class Content(NamedTuple):
    """What was read.

    Attributes:
        digest: Keyed blake2b-256.
        seen: How the file looked before and after.
        data: All of it, of a file below 1 MiB; else None.
    """

    digest: bytes
    seen: os.stat_result
    data: bytes | None = None


def digest_of(fd: int, key: bytes, size: int) -> tuple[bytes, int]:
    """Return the keyed blake2b-256 of a file from where the descriptor stands, and the bytes that were read.

    Args:
        fd: Open for reading.
        key: Key of the pairing, 16 to 64 bytes.
        size: Expected length in bytes; at most one byte more is read, so a file that grows does not hold the scan.
    """
    if size < _PIECE_BYTES:
        data = _read_small(fd, size)
        return blake2b(data, digest_size=32, key=key).digest(), len(data)
    state = blake2b(digest_size=32, key=key)
    room = bytearray(_PIECE_BYTES)
    view = memoryview(room)
    length = 0
    with open(fd, "rb", buffering=0, closefd=False) as file:
        while length <= size and (count := file.readinto(view[: min(_PIECE_BYTES, size + 1 - length)])):
            state.update(view[:count])
            length += count
    return state.digest(), length


def _read_small(fd: int, size: int) -> bytes:
    """Return a file of an expected size from where the descriptor stands, at most one byte more of it."""
    data = os.read(fd, size + 1)
    while len(data) < size and (more := os.read(fd, size + 1 - len(data))):
        # Some file systems give less than is there; one that gives all of it has told its end by giving no more.
        data += more
    return data


def _is_same(before: os.stat_result, after: os.stat_result) -> bool:
    """Return whether two looks through one descriptor, so at one file of one device, have seen no change."""
    return record_of(before) == record_of(after)


class ContentReader:
    """Reads the files of one scan.

    Args:
        key: Key of the pairing.
        sleep: Waits between tries, seconds.
        trails: Takes what reading large files leaves behind.

    Attributes:
        hashed_bytes: Bytes read so far.
    """

    def __init__(self, key: bytes, sleep: Callable[[float], None] = time.sleep, trails: Trails | None = None) -> None:
        self._key = key
        self._trails = trails
        self._sleep = sleep
        self._patience_s = _PATIENCE_S
        self.hashed_bytes = 0

    def read(self, folder: Folder, name: str, known: tuple[bytes, int] | None = None) -> Content:
        """Read a file.

        Args:
            folder: Where it is.
            name: Its name on the disk.
            known: Digest and length of what stood there at the last look.

        Raises:
            Unstable: It changed during each try.
            NotRegular: A link, a folder or a special file stands there.
            OSError: It cannot be read.
        """
        content = self._try(folder, name, known)
        if content is not None:
            return content
        for pause in _PAUSES_S:
            if content is not None or pause > self._patience_s:
                break
            # Somebody writes at this moment and no event tells when they are done.
            self._patience_s -= pause
            self._sleep(pause)
            content = self._try(folder, name, known)
        if content is None:
            raise Unstable
        return content

    def _try(self, folder: Folder, name: str, known: tuple[bytes, int] | None) -> Content | None:
        trail: Trail | None = None
        fd = folder.open_file(name)
        try:
            before = os.fstat(fd)
            if not modes.S_ISREG(before.st_mode):
                raise NotRegular
            size = before.st_size
            data: bytes | None = None
            if size < _PIECE_BYTES:
                data = _read_small(fd, size)
                digest, length = blake2b(data, digest_size=32, key=self._key).digest(), len(data)
            elif self._trails is not None and size >= MIN_DELTA_BYTES:
                trail = read_large(fd, size, self._key, known, self._trails)
                digest, length = trail.digest, trail.size
            else:
                digest, length = digest_of(fd, self._key, size)
            self.hashed_bytes += length
            after = os.fstat(fd)
        finally:
            os.close(fd)
        if length != size or not _is_same(before, after):
            return None
        if trail is not None and self._trails is not None:
            self._trails.add(trail)
        if folder.fd is None:
            # By path a descriptor may tell other mode bits than a look at the name, which is what scans compare.
            named = folder.stat(name)
            if (named.st_ino, named.st_mtime_ns, named.st_size) != (after.st_ino, after.st_mtime_ns, after.st_size):
                return None
            return Content(digest, named, data)
        return Content(digest, after, data)
