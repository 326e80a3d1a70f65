"""A copy of an older version that is begun before anybody knows what the new one is.

A large file that has changed is read for a second and more before anything can be sent of it. Most of it stands in its
older version on the other side, so that side copies this meanwhile, in a thread of its own. The bytes count for nothing
until somebody who knows the new version says which ranges of the older one it has; see :meth:`.parts.Part.fill`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Event, Thread

from ..transfer.patch import Copy
from .place import Calls
from .platform_folder import Folder

__all__ = ["AHEAD_NAME", "COPY_BYTES", "AheadCopy", "copy_some"]

AHEAD_NAME = "ahead.copy"
"""Name in the stage; what is there after a start is removed."""
COPY_BYTES = 32 * 2**20
"""Most bytes of one call."""
_BUFFER_BYTES = 2**20


def copy_some(calls: Calls, source: int, target: int, copy: Copy) -> int:
    """Copy the beginning of a range between two open files, inside the system where it can.

    Returns:
        How many bytes; 0 at the end of the source.

    Raises:
        OSError: reading or writing failed.
    """
    with suppress(OSError):
        return calls.copy_range(source, copy.source, target, copy.target, min(COPY_BYTES, copy.length))
    calls.seek(source, copy.source)
    data = calls.read(source, min(_BUFFER_BYTES, copy.length))
    calls.seek(target, copy.target)
    calls.write(target, data)
    return len(data)


class AheadCopy:
    """Copies from now on; :meth:`end` must be called.

    Args:
        calls: File-system calls.
        folder: The stage.
        source: The older version, open for reading; may be closed afterwards.
        copy: The range, and where the new version is thought to have it.

    Raises:
        OSError: the copy cannot be begun.
    """

    def __init__(self, calls: Calls, folder: Folder, source: int, copy: Copy) -> None:
        self._calls = calls
        self._copy = copy
        self._done = 0
        self._ended = Event()
        self._source = os.dup(source)
        try:
            with suppress(FileNotFoundError):
                calls.unlink(folder, AHEAD_NAME)
            self._fd = calls.create(folder, AHEAD_NAME, os.O_RDWR | os.O_EXCL)
        except BaseException:
            os.close(self._source)
            raise
        self._stamp = self._stamp_now()
        self._thread = Thread(target=self._run, name="copy ahead")
        self._thread.start()

    def _run(self) -> None:
        copy = self._copy
        # Whatever goes wrong is met again by whoever copies the rest.
        with suppress(OSError):
            while self._done < copy.length and not self._ended.is_set():
                rest = Copy(copy.source + self._done, copy.target + self._done, copy.length - self._done)
                count = copy_some(self._calls, self._source, self._fd, rest)
                if not count:
                    break
                self._stamp = self._stamp_now()
                self._done += count
                self._calls.start_writing_out(self._fd, rest.target, count)

    def _stamp_now(self) -> tuple[int, int]:
        seen = os.fstat(self._fd)
        return seen.st_mtime_ns, seen.st_ctime_ns

    def end(self) -> Copy:
        """Stop, and return what has been copied; nothing where somebody else has written into it."""
        self._ended.set()
        self._thread.join()
        try:
            mine = self._stamp == self._stamp_now()
        finally:
            os.close(self._source)
            os.close(self._fd)
        return Copy(self._copy.source, self._copy.target, self._done if mine else 0)
