"""Every file-system call of staging, trash and apply in one place, and folders found anew for each operation.

Names are always leaf names in a folder that is held open, so no link is ever followed and the root is never left.
:class:`Calls` is also where tests let single calls fail.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any

from .durable import Durability, start_writing_out, system_durability
from .exchange import Exchange, pick_exchange
from .platform_folder import Folder
from .root import STATE_FOLDER, Root

__all__ = ["Calls", "Places", "make_calls", "open_flags", "remove_all", "split_path"]

_EXTRA = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_CREAT | _EXTRA
_NO_MORE_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def open_flags(flags: int) -> int:
    """Return flags for ``os.open`` with what every open of ours has: no link is followed, no child inherits it."""
    return flags | _EXTRA


def _at(folder: Folder, name: str) -> tuple[str, dict[str, Any]]:
    """Return name and keyword for a call relative to the folder, or the full path where there are no descriptors."""
    fd = folder.fd
    return (folder.full(name), {}) if fd is None else (name, {"dir_fd": fd})


def _both(one: Folder, name: str, two: Folder, other: str) -> tuple[str, str, dict[str, Any]]:
    if one.fd is None or two.fd is None:
        return one.full(name), two.full(other), {}
    return name, other, {"src_dir_fd": one.fd, "dst_dir_fd": two.fd}


class Calls:
    """The calls; each raises OSError and has then changed nothing.

    Args:
        exchange: How names change places on this file system.
        durability: How writes become durable.
        scratch: Device and inode of a folder whose names may be lost in a power cut: the stage. What leaves it leaves
            by a move, which happens whole or not at all.
    """

    def __init__(
        self, exchange: Exchange, durability: Durability | None = None, *, scratch: tuple[int, int] | None = None
    ) -> None:
        self.exchange = exchange
        self._durability = durability or system_durability()
        self._scratch = scratch

    def _names_changed(self, *folders: Folder) -> None:
        """Let the names in folders become durable with the next commit."""
        for folder in folders:
            if folder.fd is not None and (folder.device, folder.inode) != self._scratch:
                self._durability.folder(folder.fd)

    def stat(self, folder: Folder, name: str) -> os.stat_result:
        """Return what stands at a name; a link is not followed."""
        return folder.stat(name)

    def stat_open(self, fd: int) -> os.stat_result:
        """Return what stands behind a descriptor."""
        return os.fstat(fd)

    def names(self, folder: Folder) -> list[str]:
        """Return all names in a folder."""
        return folder.names()

    def child(self, folder: Folder, name: str) -> Folder:
        """Open a folder in this one."""
        return folder.child(name)

    def read_link(self, folder: Folder, name: str) -> str:
        """Return the text of a link."""
        return folder.read_link(name)

    def open_file(self, folder: Folder, name: str) -> int:
        """Open a regular file for reading.

        Raises:
            OSError: also when something else stands there.
        """
        fd = folder.open_file(name)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "no regular file", name)
        return fd

    def create(self, folder: Folder, name: str, flags: int = os.O_WRONLY | os.O_EXCL, mode: int = 0o600) -> int:
        """Create a file; by default it must not exist yet, and only its owner may open it."""
        fd = folder.fd
        flags |= _CREATE
        return os.open(folder.full(name), flags, mode) if fd is None else os.open(name, flags, mode, dir_fd=fd)

    def read(self, fd: int, count: int) -> bytes:
        """Read from the position."""
        return os.read(fd, count)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of it at the position."""
        done = os.write(fd, data)
        if done < len(data):
            view = memoryview(data)[done:]
            while view:
                view = view[os.write(fd, view) :]

    def seek(self, fd: int, offset: int) -> None:
        """Set the position."""
        os.lseek(fd, offset, os.SEEK_SET)

    def copy_range(self, source: int, start: int, target: int, to: int, count: int) -> int:
        """Copy bytes between two files inside the system, or as shared blocks; the positions stay.

        Returns:
            How many bytes; less than asked at the end of the source.

        Raises:
            OSError: this system or file system cannot.
        """
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "no copies inside the system")
        return os.copy_file_range(source, target, count, start, to)

    def start_writing_out(self, fd: int, offset: int, count: int) -> None:
        """Let the disk begin with a range that was written; a matter of time only, so it cannot fail."""
        start_writing_out(fd, offset, count)

    def truncate(self, fd: int, size: int) -> None:
        """Set the length."""
        os.ftruncate(fd, size)

    def written(self, fd: int, folder: Folder) -> None:
        """Take note of a file that is complete; it becomes durable, with its name, with the next :meth:`commit`."""
        self._durability.file(fd)
        self._names_changed(folder)

    def begin_commit(self, folder: Folder) -> None:
        """Let the disk begin with what was noted so far, without waiting."""
        self._durability.begin(-1 if folder.fd is None else folder.fd)

    def commit(self, folder: Folder) -> None:
        """Return when every file that was noted as written, and every name that was given or taken, is durable.

        Raises:
            OSError: something is not, and will not be: what was written must be written again.
        """
        self._durability.commit(-1 if folder.fd is None else folder.fd)

    def close(self) -> None:
        """Let go of what was noted for the next commit."""
        self._durability.close()

    def chmod(self, fd: int, mode: int) -> None:
        """Set the permissions of an open file, as far as the system has them."""
        if hasattr(os, "fchmod"):
            os.fchmod(fd, mode)
            if sys.platform != "win32":
                self._durability.file(fd)

    def chmod_name(self, folder: Folder, name: str, mode: int) -> None:
        """Set the permissions of a regular file of ours in the stage."""
        path, keyword = _at(folder, name)
        os.chmod(path, mode, **keyword)

    def utime(self, folder: Folder, name: str, times_ns: tuple[int, int]) -> None:
        """Set the times of what stands at a name; a link is not followed."""
        path, keyword = _at(folder, name)
        if os.utime in os.supports_follow_symlinks:
            keyword["follow_symlinks"] = False
        os.utime(path, ns=times_ns, **keyword)

    def utime_open(self, fd: int, times_ns: tuple[int, int]) -> None:
        """Set the times of an open file; not every system can."""
        os.utime(fd, ns=times_ns)

    def make_folder(self, folder: Folder, name: str) -> None:
        """Make a folder; the umask applies."""
        path, keyword = _at(folder, name)
        os.mkdir(path, **keyword)
        self._names_changed(folder)

    def make_link(self, folder: Folder, name: str, target: str) -> None:
        """Make a symbolic link."""
        path, keyword = _at(folder, name)
        os.symlink(target, path, **keyword)
        self._names_changed(folder)

    def unlink(self, folder: Folder, name: str) -> None:
        """Remove a name in the stage or the trash; never one of the tree."""
        path, keyword = _at(folder, name)
        self._durability.before_move()
        os.unlink(path, **keyword)

    def remove_folder(self, folder: Folder, name: str) -> None:
        """Remove an empty folder."""
        path, keyword = _at(folder, name)
        os.rmdir(path, **keyword)
        self._names_changed(folder)

    def rename(self, one: Folder, name: str, two: Folder, other: str) -> None:
        """Move a name to one that only we use: in stage and trash, or another spelling of itself."""
        source, target, keyword = _both(one, name, two, other)
        self._durability.before_move()
        os.replace(source, target, **keyword)
        self._names_changed(one, two)

    def swap(self, one: Folder, name: str, two: Folder, other: str) -> None:
        """Exchange two names; ``one`` is a folder of ours."""
        self._durability.before_move()
        self.exchange.swap(one, name, two, other)
        self._names_changed(one, two)

    def place(self, one: Folder, name: str, two: Folder, other: str) -> None:
        """Move to a name that is free.

        Raises:
            FileExistsError: it is not.
        """
        self._durability.before_move()
        self.exchange.place(one, name, two, other)
        self._names_changed(one, two)


def make_calls(root: Root) -> Calls:
    """Return the file-system calls for a root, with the best exchange that its file system supports.

    Raises:
        OSError: the stage cannot be written to.
    """
    with root.folder(f"{STATE_FOLDER}/stage") as folder:
        return Calls(pick_exchange(folder), scratch=(folder.device, folder.inode))


def remove_all(calls: Calls, folder: Folder, name: str) -> None:
    """Remove an object in a folder of ours with everything in it; no link is followed.

    Raises:
        OSError: something could not be removed.
    """
    if not stat.S_ISDIR(calls.stat(folder, name).st_mode):
        calls.unlink(folder, name)
        return
    with calls.child(folder, name) as inside:
        for below in calls.names(inside):
            remove_all(calls, inside, below)
    calls.remove_folder(folder, name)


def split_path(path: str) -> tuple[str, str]:
    """Return the path of the folder and the leaf name."""
    parent, _, name = path.rpartition("/")
    return parent, name


class Places:
    """Finds the folder of a path for each operation anew, and keeps descriptors of the way to it.

    What is kept is compared with what stands there now before it is used, so a folder that was moved away or replaced
    by a link since the last operation is noticed.

    Args:
        root: The root.
        calls: How folders are opened.
    """

    def __init__(self, root: Root, calls: Calls) -> None:
        self._root = root
        self._calls = calls
        self._open: list[tuple[str, Folder]] = []
        self._single: Folder | None = None

    def find(self, path: str) -> tuple[Folder, str]:
        """Return the open folder of a path, and the leaf name as the disk spells it.

        The folder stays open until the next call.

        Raises:
            FileNotFoundError: a folder on the way is missing.
            NotADirectoryError: a link or a file is on the way.
            OSError: a folder cannot be opened.
            ValueError: a component is ``..``, ``.`` or empty.
        """
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            # Operations have passed the path rule; this holds even if the rule had a hole.
            raise ValueError("no path below the root")
        parent, name = split_path(path)
        self._close_single()
        names: Sequence[str] = parent.split("/") if parent else ()
        try:
            folder = self._walk(names)
        except OSError as error:
            if error.errno not in _NO_MORE_DESCRIPTORS:
                raise
            self.close()
            self._single = folder = self._root.folder(parent)
        return folder, folder.disk_name(name)

    def _walk(self, names: Sequence[str]) -> Folder:
        here: Folder = self._root.top
        for depth, name in enumerate(names):
            if depth < len(self._open) and self._open[depth][0] == name and self._is_same(here, depth):
                here = self._open[depth][1]
                continue
            self._close_from(depth)
            here = self._calls.child(here, here.disk_name(name))
            self._open.append((name, here))
            if here.device != self._root.dev:
                raise OSError(errno.EXDEV, "the folder lies on another device", name)
        return here

    def _is_same(self, above: Folder, depth: int) -> bool:
        name, kept = self._open[depth]
        try:
            seen = self._calls.stat(above, above.disk_name(name))
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(seen.st_mode) and (seen.st_dev, seen.st_ino) == (kept.device, kept.inode)

    def _close_from(self, depth: int) -> None:
        while len(self._open) > depth:
            self._open.pop()[1].close()

    def close(self) -> None:
        """Let go of everything."""
        self._close_from(0)
        self._close_single()

    def _close_single(self) -> None:
        if self._single is not None:
            self._single.close()
            self._single = None
