"""Folders by descriptor: Linux and macOS."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Mapping
from typing import Any

from .platform_folder import Folder, FolderReplaced
from .statcache import Record, record_of

__all__ = ["DescriptorFolder"]

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Without O_NONBLOCK a pipe that took the place of a file would hold the scan until somebody writes to it.
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

# What the C library itself reads of a folder at once.
_ROOM_BYTES = 32 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def _entry_reader() -> Any:
    """Return getdents64(2) of the C library; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    read = getattr(ctypes.CDLL(None, use_errno=True), "getdents64", None)
    if read is not None:
        read.argtypes, read.restype = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_ssize_t
    return read


_READ_ENTRIES = _entry_reader()


def _open_folder(name: str, parent: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "a link stands there", name) from error
        raise


class DescriptorFolder(Folder):
    """A folder that is held by its descriptor, so nobody can put another one in its place."""

    __slots__ = ("_base", "_fd", "_names", "_room", "_root", "below", "device", "inode")

    def __init__(self, fd: int, below: str, base: str, root: DescriptorFolder | None, names: tuple[str, ...]) -> None:
        seen = os.fstat(fd)
        self._fd: int | None = fd
        self._root = root
        self._names = names
        # One for all folders below a root, which is used by one thread at a time.
        self._room: ctypes.Array[ctypes.c_char] | None = root._room if root is not None else None
        self._base = base
        self.below = below
        self.device = seen.st_dev
        self.inode = seen.st_ino

    @classmethod
    def open_root(cls, path: str) -> DescriptorFolder:
        """Open the root; a link as the last component is refused."""
        return cls(_open_folder(path, None), "", path, None, ())

    @property
    def fd(self) -> int:
        """The descriptor; opened again after :meth:`release`."""
        if self._fd is None:
            self._fd = self._reopened()
        return self._fd

    def _reopened(self) -> int:
        if self._root is None:
            raise ValueError("the folder is closed")
        above = fd = self._root.fd
        if not self._names:
            return os.dup(above)
        for name in self._names:
            try:
                below = _open_folder(name, fd)
            finally:
                if fd != above:
                    os.close(fd)
            fd = below
        seen = os.fstat(fd)
        if (seen.st_dev, seen.st_ino) != (self.device, self.inode):
            os.close(fd)
            raise FolderReplaced(errno.ESTALE, "another folder stands there", self.below)
        return fd

    @property
    def path(self) -> str:
        """Absolute path, as it was when the folder was opened."""
        return os.path.join(self._base, *self._names)

    def names(self) -> list[str]:
        """Return all names in the folder."""
        found = os.listdir(self.fd)
        if not found and os.fstat(self.fd).st_nlink == 0:
            # The C library takes the error of a removed folder for its end, so it would seem to be empty.
            raise FileNotFoundError(errno.ENOENT, "the folder was removed", self.below)
        return found

    def listing(self) -> int:
        """Return one number for all that is listed in the folder: names, inodes and kinds, without making names."""
        if _READ_ENTRIES is None:
            return super().listing()
        fd, room = self.fd, self._room
        if room is None:
            room = self._room = (self._root or self)._room = ctypes.create_string_buffer(_ROOM_BYTES)
        pieces: list[bytes] = []
        while (size := _READ_ENTRIES(fd, room, _ROOM_BYTES)) > 0:
            pieces.append(bytes(memoryview(room)[:size]))
            # The system leaves the gaps between names as they are, so they are kept zero.
            ctypes.memset(room, 0, size)
        code = ctypes.get_errno()
        # Whoever lists the folder next begins where this has stopped.
        os.lseek(fd, 0, os.SEEK_SET)
        if size < 0:
            raise OSError(code, os.strerror(code), self.below)
        return hash(b"".join(pieces))

    def differing(self, known: Mapping[str, Record | None]) -> list[tuple[str, os.stat_result]]:
        """Return the names whose signature is not the one that is known."""
        fd, stat, signature = self.fd, os.stat, record_of
        found: list[tuple[str, os.stat_result]] = []
        for name, record in known.items():
            seen = stat(name, dir_fd=fd, follow_symlinks=False)
            if signature(seen) != record:
                found.append((name, seen))
        return found

    def stat(self, name: str) -> os.stat_result:
        """Return what stands at a name."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def open_file(self, name: str) -> int:
        """Return a descriptor for reading."""
        return os.open(name, _FILE, dir_fd=self.fd)

    def read_link(self, name: str) -> str:
        """Return the text of a link."""
        return os.readlink(name, dir_fd=self.fd)

    def child(self, name: str, expected: tuple[int, int] | None = None) -> DescriptorFolder:
        """Open a folder in this one."""
        where = f"{self.below}/{name}" if self.below else name
        fd = _open_folder(name, self.fd)
        try:
            below = DescriptorFolder(fd, where, self._base, self._root or self, (*self._names, name))
        except OSError:
            os.close(fd)
            raise
        if expected is not None and (below.device, below.inode) != expected:
            below.close()
            raise FolderReplaced(errno.ESTALE, "another folder stands there", where)
        return below

    def again(self) -> DescriptorFolder:
        """Return a second handle of the same folder."""
        return DescriptorFolder(os.dup(self.fd), self.below, self._base, self._root or self, self._names)

    def create_file(self, name: str) -> int:
        """Make an empty file at a free name and return its descriptor for writing."""
        return os.open(name, _NEW, 0o600, dir_fd=self.fd)

    def make_folder(self, name: str) -> None:
        """Make an empty folder at a free name."""
        os.mkdir(name, 0o700, dir_fd=self.fd)

    def remove_file(self, name: str) -> None:
        """Remove a file of our own."""
        os.unlink(name, dir_fd=self.fd)

    def release(self) -> None:
        """Give the descriptor back; the root keeps its own."""
        if self._root is not None:
            self.close()

    def close(self) -> None:
        """Close it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
