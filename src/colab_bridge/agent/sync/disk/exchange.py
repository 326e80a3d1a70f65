"""The two moves that never overwrite: exchange two names in one step, and take a name only if nobody has it.

Every change of a tree is one of them, so whatever stood at a path when the engine came still exists afterwards, and it
can be looked at before anything is decided about it. Linux: ``renameat2(2)``; macOS: ``renameatx_np(2)``; Windows:
``ReplaceFileW`` and ``MoveFileExW``. File systems without an exchange get :class:`LinkExchange`, which pins the old
object by a hard link before it is replaced; a save between the two calls would be lost there, so it says ``degraded``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable
from typing import Any, Protocol

from .platform_folder import Folder

__all__ = ["AtomicExchange", "Exchange", "LinkExchange", "WindowsExchange", "pick_exchange", "system_exchange"]

_RENAME_NOREPLACE = 1  # linux/fs.h
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2  # macOS, sys/stdio.h
_RENAME_EXCL = 4
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})

AtomicRename = Callable[[Folder, str, Folder, str, bool], None]
"""``(from, name, to, name, swap)``: one system call, raises OSError."""


class Exchange(Protocol):
    """How names change places.

    Attributes:
        degraded: True where a save in the middle of :meth:`swap` could be lost.
    """

    degraded: bool

    def swap(self, one: Folder, name: str, two: Folder, other: str) -> None:
        """Exchange two existing objects of any kind.

        Raises:
            OSError: nothing was changed.
        """

    def place(self, source: Folder, name: str, target: Folder, other: str) -> None:
        """Move an object to a name that is free.

        Raises:
            FileExistsError: the name is taken; nothing was changed.
            OSError: nothing was changed.
        """


class AtomicExchange:
    """Exchange by one system call.

    Args:
        rename: The call.
    """

    degraded = False

    def __init__(self, rename: AtomicRename) -> None:
        self._rename = rename

    def swap(self, one: Folder, name: str, two: Folder, other: str) -> None:
        """See :class:`Exchange`."""
        self._rename(one, name, two, other, True)

    def place(self, source: Folder, name: str, target: Folder, other: str) -> None:
        """See :class:`Exchange`."""
        self._rename(source, name, target, other, False)


class LinkExchange:
    """For file systems without exchange: the old object is pinned by a hard link, then replaced.

    Folders cannot be linked; they are moved away first, so their name is free for a moment. Where hard links are
    missing too, files are treated like folders.
    """

    degraded = True

    def swap(self, one: Folder, name: str, two: Folder, other: str) -> None:
        """See :class:`Exchange`; ``one`` must be a folder of ours, a helper name is used in it."""
        pinned = name + "~old"
        before = os.stat(other, dir_fd=two.fd, follow_symlinks=False)
        ours = os.stat(name, dir_fd=one.fd, follow_symlinks=False)
        if stat.S_ISDIR(before.st_mode) or stat.S_ISDIR(ours.st_mode) or not _link(two, other, one, pinned):
            self._swap_by_moving(one, name, two, other, pinned)
            return
        held = os.stat(pinned, dir_fd=one.fd, follow_symlinks=False)
        now = os.stat(other, dir_fd=two.fd, follow_symlinks=False)
        if (held.st_ino, held.st_dev) != (now.st_ino, now.st_dev):
            # Saved again since it was pinned; the caller sees an object that is not what it expected and plans anew.
            os.unlink(pinned, dir_fd=one.fd)
            raise BlockingIOError(errno.EAGAIN, "saved at this moment", other)
        try:
            os.rename(name, other, src_dir_fd=one.fd, dst_dir_fd=two.fd)
        except OSError:
            os.unlink(pinned, dir_fd=one.fd)
            raise
        os.rename(pinned, name, src_dir_fd=one.fd, dst_dir_fd=one.fd)

    def _swap_by_moving(self, one: Folder, name: str, two: Folder, other: str, pinned: str) -> None:
        os.rename(other, pinned, src_dir_fd=two.fd, dst_dir_fd=one.fd)
        try:
            self.place(one, name, two, other)
        except OSError:
            self.place(one, pinned, two, other)
            raise
        os.rename(pinned, name, src_dir_fd=one.fd, dst_dir_fd=one.fd)

    def place(self, source: Folder, name: str, target: Folder, other: str) -> None:
        """See :class:`Exchange`."""
        found = os.stat(name, dir_fd=source.fd, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) and _link(source, name, target, other):
            os.unlink(name, dir_fd=source.fd)
            return
        try:
            os.stat(other, dir_fd=target.fd, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, other, src_dir_fd=source.fd, dst_dir_fd=target.fd)
        else:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), other)


def _link(source: Folder, name: str, target: Folder, other: str) -> bool:
    """Make a hard link; False where the file system has none."""
    try:
        os.link(name, other, src_dir_fd=source.fd, dst_dir_fd=target.fd, follow_symlinks=False)
    except OSError as error:
        if error.errno in _UNSUPPORTED or error.errno == errno.EMLINK:
            return False
        raise
    return True


class WindowsApi(Protocol):
    """The two calls of kernel32 that are needed."""

    def replace_file(self, replaced: str, replacement: str, backup: str) -> None:
        """``ReplaceFileW``: ``replacement`` takes the name of ``replaced``, which becomes ``backup``."""

    def move_file(self, source: str, target: str) -> None:
        """``MoveFileExW`` without replacing and without copying to another volume."""


class WindowsExchange:
    """Windows: files by ``ReplaceFileW``, which keeps what it replaces under a backup name; folders by two moves."""

    degraded = False

    def __init__(self, api: WindowsApi) -> None:
        self._api = api

    def swap(self, one: Folder, name: str, two: Folder, other: str) -> None:
        """See :class:`Exchange`; ``one`` must be a folder of ours, a helper name is used in it."""
        ours, theirs = one.full(name), two.full(other)
        pinned = ours + "~old"
        if os.path.isdir(theirs) or os.path.isdir(ours) or os.path.islink(theirs) or os.path.islink(ours):
            self._api.move_file(theirs, pinned)
            try:
                self._api.move_file(ours, theirs)
            except OSError:
                self._api.move_file(pinned, theirs)
                raise
        else:
            self._api.replace_file(theirs, ours, pinned)
        self._api.move_file(pinned, ours)

    def place(self, source: Folder, name: str, target: Folder, other: str) -> None:
        """See :class:`Exchange`."""
        self._api.move_file(source.full(name), target.full(other))


class _Kernel32:
    """:class:`WindowsApi` by ctypes."""

    def __init__(self) -> None:
        library: Any = ctypes
        self._kernel32 = library.WinDLL("kernel32", use_last_error=True)

    def _check(self, done: int, path: str) -> None:
        if not done:
            library: Any = ctypes
            code = library.get_last_error()
            raise OSError(0, library.FormatError(code), path, code)

    def replace_file(self, replaced: str, replacement: str, backup: str) -> None:
        """See :class:`WindowsApi`."""
        # 2: REPLACEFILE_IGNORE_MERGE_ERRORS, attributes that cannot be carried over are no reason to fail.
        self._check(self._kernel32.ReplaceFileW(replaced, replacement, backup, 2, None, None), replaced)

    def move_file(self, source: str, target: str) -> None:
        """See :class:`WindowsApi`."""
        self._check(self._kernel32.MoveFileExW(source, target, 0), target)


def _errno_call(function: Any, swap_flag: int, free_flag: int) -> AtomicRename:
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int

    def rename(source: Folder, name: str, target: Folder, other: str, swap: bool) -> None:
        flag = swap_flag if swap else free_flag
        if function(source.fd, os.fsencode(name), target.fd, os.fsencode(other), flag):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name, None, other)

    return rename


def system_exchange() -> Exchange:
    """Return the best exchange that this operating system has; whether a file system takes part is another question."""
    if sys.platform == "win32":
        return WindowsExchange(_Kernel32())
    library = ctypes.CDLL(None, use_errno=True)
    for symbol, swap, free in (
        ("renameat2", _RENAME_EXCHANGE, _RENAME_NOREPLACE),
        ("renameatx_np", _RENAME_SWAP, _RENAME_EXCL),
    ):
        function = getattr(library, symbol, None)
        if function is not None:
            return AtomicExchange(_errno_call(function, swap, free))
    return LinkExchange()


def pick_exchange(folder: Folder, exchange: Exchange | None = None) -> Exchange:
    """Try the exchange in a folder of ours and return it, or the fallback where the file system does not support it.

    Args:
        folder: Folder on the file system in question; two short files are made in it and removed.
        exchange: What to try; by default that of the system.

    Raises:
        OSError: the folder cannot be written to.
    """
    tried = exchange or system_exchange()
    if folder.fd is None:
        return tried
    names = (f"probe-{os.getpid()}-a", f"probe-{os.getpid()}-b", f"probe-{os.getpid()}-c")
    try:
        for name in names[:2]:
            _write(folder, name)
        tried.swap(folder, names[0], folder, names[1])
        tried.place(folder, names[0], folder, names[2])
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return LinkExchange()
    finally:
        for name in names:
            _forget(folder, name)
    return tried


def _write(folder: Folder, name: str) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=folder.fd))


def _forget(folder: Folder, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder.fd)
    except FileNotFoundError:
        return
