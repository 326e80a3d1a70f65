"""Databases of SQLite that are open while they are looked at.

Copied byte by byte while somebody writes, such a file is damaged. So an open one (a ``-wal`` or ``-journal`` lies
beside it) is copied by SQLite itself into our own folder, and that copy is what travels; ``x``, ``x-wal``, ``x-shm``
and ``x-journal`` are one unit, of which only ``x`` is in the tree. Source: https://sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

from .content import digest_of
from .platform_folder import Folder
from .root import Root
from .statcache import Record, record_of

__all__ = ["MAGIC", "LiveDatabases", "is_database_file", "main_name"]

MAGIC = b"SQLite format 3\x00"
_OPEN_SIGNS = ("-wal", "-journal")
_SIDECARS = (*_OPEN_SIGNS, "-shm")
_LIMIT_BYTES = 256 * 2**20
_BUSY_S = 0.5
_PAGES_AT_ONCE = 4096


def main_name(name: str) -> str | None:
    """Return the name of the main file if a name is one of those that SQLite puts beside it."""
    if not name.endswith(_SIDECARS):
        return None
    suffix = next(suffix for suffix in _SIDECARS if name.endswith(suffix))
    return name[: -len(suffix)] or None


def is_database_file(fd: int) -> bool:
    """Return whether an open file begins like a database."""
    return os.pread(fd, len(MAGIC), 0) == MAGIC if hasattr(os, "pread") else _begins(fd)


def _begins(fd: int) -> bool:
    place = os.lseek(fd, 0, os.SEEK_CUR)
    os.lseek(fd, 0, os.SEEK_SET)
    found = os.read(fd, len(MAGIC))
    os.lseek(fd, place, os.SEEK_SET)
    return found == MAGIC


class LiveDatabases:
    """Copies of the open databases of one root.

    Args:
        root: The root; copies lie in our own folder there.
        key: Key of the pairing.
    """

    def __init__(self, root: Root, key: bytes) -> None:
        self._folder = root.state / "live"
        self._key = key
        self._copies: dict[str, Path] = {}

    def source(self, path: str) -> Path | None:
        """Return the copy whose bytes stand for a path, None where the file itself does."""
        return self._copies.get(path)

    def is_database(self, folder: Folder, name: str) -> bool:
        """Return whether a database lies at a name."""
        try:
            fd = folder.open_file(name)
        except OSError:
            return False
        try:
            return is_database_file(fd)
        except OSError:
            return False
        finally:
            os.close(fd)

    def looks(self, folder: Folder, main: str) -> tuple[Record, ...]:
        """Return the signatures of a database and of what tells that it is open; one signature alone means closed.

        Raises:
            FileNotFoundError: The database is gone.
        """
        found = [record_of(folder.stat(main))]
        for suffix in _OPEN_SIGNS:
            with suppress(FileNotFoundError):
                found.append(record_of(folder.stat(main + suffix)))
        return tuple(found)

    def copy(self, folder: Folder, main: str, path: str) -> tuple[bytes, int] | None:
        """Copy a database as of one moment.

        Args:
            folder: Where it lies.
            main: Its name there.
            path: As it travels.

        Returns:
            Digest and size of the copy; None when it is busy, too large or not readable, or this Python has no SQLite.
        """
        try:
            sqlite = import_module("sqlite3")
        except ImportError:
            return None
        if folder.stat(main).st_size > _LIMIT_BYTES:
            return None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        target = self._folder / blake2b(path.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        fresh = target.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if not _back_up(sqlite, _address(folder, main), fresh):
            fresh.unlink(missing_ok=True)
            return None
        fd = os.open(fresh, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            size = os.fstat(fd).st_size
            digest, _ = digest_of(fd, self._key, size)
        finally:
            os.close(fd)
        fresh.replace(target)
        self._copies[path] = target
        return digest, size

    def forget(self, path: str) -> None:
        """Remove the copy of a database that is closed now."""
        copy = self._copies.pop(path, None)
        if copy is not None:
            copy.unlink(missing_ok=True)


def _address(folder: Folder, name: str) -> str:
    """Return a path by which SQLite finds the file and what lies beside it, relative to the open folder if possible."""
    if folder.fd is not None and os.path.isdir("/proc/self/fd"):
        return f"/proc/self/fd/{folder.fd}/{name}"
    return folder.full(name)


def _back_up(sqlite: Any, source: str, target: Path) -> bool:
    quoted = source.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    try:
        # Read-only: the last reader of a database would otherwise tidy up beside it.
        with (
            closing(sqlite.connect(f"file:{quoted}?mode=ro", uri=True, timeout=_BUSY_S)) as old,
            closing(sqlite.connect(target)) as new,
        ):
            old.backup(new, pages=_PAGES_AT_ONCE)
    except (sqlite.Error, UnicodeError):
        return False
    return True
