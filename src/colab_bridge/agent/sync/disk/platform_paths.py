"""Folders by path: Windows, where Python has no descriptors of folders.

Each use checks that the folder at the path is still the one that was opened, and that nothing on the way to it from the
root is a link. Between check and use a gap remains that descriptors do not have; status calls it degraded.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Mapping

from .platform_folder import Folder, FolderReplaced
from .statcache import Record, record_of

__all__ = ["PathFolder", "is_reparse_point", "long_path"]

_REPARSE_POINT = 0x400
# Bit of a reparse tag: the entry stands for another place (links, junctions, mount points), unlike files in a cloud.
# Source: [MS-FSCC] 2.1.2.1.
_NAME_SURROGATE = 0x2000_0000
_FILE = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def long_path(path: str) -> str:
    """Return the form of an absolute Windows path that has no limit of 260 characters."""
    if path.startswith("\\\\?\\"):
        return path
    return "\\\\?\\UNC" + path[1:] if path.startswith("\\\\") else "\\\\?\\" + path


def is_reparse_point(seen: os.stat_result) -> bool:
    """Return whether the entry stands for another place without being a symbolic link (junction, mount point)."""
    if not getattr(seen, "st_file_attributes", 0) & _REPARSE_POINT:
        return False
    tag: int = getattr(seen, "st_reparse_tag", 0)
    return bool(tag & _NAME_SURROGATE) and not modes.S_ISLNK(seen.st_mode)


def _folder_at(path: str) -> os.stat_result:
    seen = os.stat(path, follow_symlinks=False)
    if not modes.S_ISDIR(seen.st_mode) or is_reparse_point(seen):
        raise NotADirectoryError(errno.ENOTDIR, "no folder stands there", path)
    return seen


class PathFolder(Folder):
    """A folder that is known by its path and checked at each use."""

    __slots__ = ("_above", "_full", "below", "device", "inode")

    def __init__(self, full: str, below: str, above: PathFolder | None) -> None:
        seen = _folder_at(full)
        self._full = full
        self._above = above
        self.below = below
        self.device = seen.st_dev
        self.inode = seen.st_ino

    @classmethod
    def open_root(cls, path: str) -> PathFolder:
        """Open the root; a link as the last component is refused."""
        return cls(path, "", None)

    @property
    def fd(self) -> None:
        """None: there are no descriptors of folders."""
        return

    def _check(self) -> None:
        seen = _folder_at(self._full)
        if (seen.st_dev, seen.st_ino) != (self.device, self.inode):
            raise FolderReplaced(errno.ESTALE, "another folder stands there", self._full)
        if self._above is not None:
            self._above._check()

    @property
    def path(self) -> str:
        """Absolute path, after a check of the way to it."""
        self._check()
        return self._full

    def names(self) -> list[str]:
        """Return all names in the folder."""
        return os.listdir(self.path)

    def differing(self, known: Mapping[str, Record | None]) -> list[tuple[str, os.stat_result]]:
        """Return the names whose signature is not the one that is known."""
        here, stat, join = self.path, os.stat, os.path.join
        found: list[tuple[str, os.stat_result]] = []
        for name, record in known.items():
            seen = stat(join(here, name), follow_symlinks=False)
            if record_of(seen) != record:
                found.append((name, seen))
        return found

    def stat(self, name: str) -> os.stat_result:
        """Return what stands at a name."""
        return os.stat(self.full(name), follow_symlinks=False)

    def open_file(self, name: str) -> int:
        """Return a descriptor for reading."""
        path = self.full(name)
        seen = os.stat(path, follow_symlinks=False)
        if modes.S_ISLNK(seen.st_mode) or is_reparse_point(seen):
            raise OSError(errno.ELOOP, "a link stands there", path)
        fd = os.open(path, _FILE)
        opened = os.fstat(fd)
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino):
            os.close(fd)
            raise OSError(errno.ELOOP, "another entry stands there", path)
        return fd

    def read_link(self, name: str) -> str:
        """Return the text of a link."""
        return os.readlink(self.full(name))

    def child(self, name: str, expected: tuple[int, int] | None = None) -> PathFolder:
        """Open a folder in this one."""
        below = PathFolder(self.full(name), f"{self.below}/{name}" if self.below else name, self)
        if expected is not None and (below.device, below.inode) != expected:
            raise FolderReplaced(errno.ESTALE, "another folder stands there", below.below)
        return below

    def again(self) -> PathFolder:
        """Return a second handle of the same folder."""
        self._check()
        return PathFolder(self._full, self.below, self._above)

    def create_file(self, name: str) -> int:
        """Make an empty file at a free name and return its descriptor for writing."""
        return os.open(self.full(name), _NEW, 0o600)

    def make_folder(self, name: str) -> None:
        """Make an empty folder at a free name."""
        os.mkdir(self.full(name), 0o700)

    def remove_file(self, name: str) -> None:
        """Remove a file of our own."""
        os.unlink(self.full(name))

    def release(self) -> None:
        """Do nothing: no descriptor is held."""

    def close(self) -> None:
        """Do nothing: no descriptor is held."""
