"""Large contents of a stage: put together piece by piece, and begun ahead out of an older version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from ..transfer.patch import Copy
from ..transfer.trail import Mark, Trails
from .ahead import AHEAD_NAME, AheadCopy
from .parts import MAP_SUFFIX, PART_SUFFIX, Part
from .place import Calls
from .platform_folder import Folder

__all__ = ["LargeContents"]


class LargeContents:
    """The large contents of one stage.

    Args:
        key: Key of the pairing for digests, 16 to 64 bytes.
        calls: File-system calls.
        folder: The folder of the stage.
        trails: Takes what putting them together leaves behind.
    """

    def __init__(self, key: bytes, calls: Calls, folder: Folder, trails: Trails) -> None:
        self.key = key
        self.calls = calls
        self.folder = folder
        self._trails = trails
        self._parts: dict[bytes, Part] = {}
        self._ahead: AheadCopy | None = None

    def have_one(self, digest: bytes) -> bool:
        """Return whether a content is here, complete."""
        try:
            self.calls.stat(self.folder, digest.hex())
        except FileNotFoundError:
            return False
        return True

    def _unlink_if_there(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.calls.unlink(self.folder, name)

    def copy_ahead(self, source: int, copy: Copy) -> None:
        """Begin to copy a range of an older version for a large content that nobody knows yet, in place of another.

        Args:
            source: The older version, open for reading.
            copy: The range, and where the content is thought to have it.

        Raises:
            OSError: the copy cannot be begun.
        """
        self.end_ahead()
        self._ahead = AheadCopy(self.calls, self.folder, source, copy)

    def end_ahead(self) -> None:
        """Remove what was copied ahead, if anything was."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.end()
            self._unlink_if_there(AHEAD_NAME)

    def _take_ahead(self, name: str) -> Copy | None:
        """Give what was copied ahead to a content under way that has nothing yet; returns what it is."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        copied = ahead.end()
        if {name + PART_SUFFIX, name + MAP_SUFFIX}.isdisjoint(self.calls.names(self.folder)):
            self.calls.rename(self.folder, AHEAD_NAME, self.folder, name + PART_SUFFIX)
            return copied
        self._unlink_if_there(AHEAD_NAME)
        return None

    def begin_large(self, digest: bytes, size: int, *, take_ahead: bool = False) -> list[tuple[int, int]]:
        """Begin a large content, or go on with one that was cut off.

        Args:
            digest: What it will be.
            size: Its length in bytes; the caller has compared it with the limits.
            take_ahead: What was copied ahead is of its older version.

        Returns:
            The ranges (offset, length) that are missing; none when it is here, complete and verified.

        Raises:
            OSError: the files cannot be made.
        """
        if self.have_one(digest):
            return []
        part = self._parts.get(digest)
        if part is None or part.size != size:
            self._forget_part(digest)
            ahead = self._take_ahead(digest.hex()) if take_ahead else None
            part = self._parts[digest] = Part(self.calls, self.folder, digest, size, self.key, ahead)
        if not part.missing():
            # Cut off between its last range and its verification.
            self.finish(digest)
        return self.missing(digest)

    def put_chunk(self, digest: bytes, offset: int, data: bytes | memoryview) -> None:
        """Keep a range of a large content that was begun.

        Raises:
            KeyError: it was not begun in this process.
            ValueError: the range is not inside it.
            OSError: it could not be written; the range still counts as missing.
        """
        part = self._part(digest)
        if part is not None:
            part.put(offset, data)

    def _part(self, digest: bytes) -> Part | None:
        """Return a large content under way; None when it is complete."""
        part = self._parts.get(digest)
        if part is None and not self.have_one(digest):
            raise KeyError(digest)
        return part

    def fill(self, digest: bytes, copies: Iterable[Copy], source: int, marks: Sequence[Mark] = ()) -> None:
        """Take ranges of a large content out of an older version of the file.

        Args:
            digest: A content that was begun.
            copies: Ranges.
            source: The older version, open for reading.
            marks: States of its hash, see :meth:`Part.fill`; :meth:`hash_anew` takes that back.

        Raises:
            KeyError: it was not begun in this process.
            OSError: reading or writing failed.
        """
        part = self._part(digest)
        if part is not None:
            part.fill(copies, source, marks)

    def forget_ahead(self, digest: bytes) -> None:
        """Have a large content copied anew where it took what was copied ahead, if it is under way."""
        part = self._parts.get(digest)
        if part is not None:
            part.forget_ahead()

    def hash_anew(self, digest: bytes) -> None:
        """Have a large content hashed as a whole in the end, if it is under way."""
        part = self._parts.get(digest)
        if part is not None:
            part.hash_anew()

    def missing(self, digest: bytes) -> list[tuple[int, int]]:
        """Return the ranges (offset, length in bytes) that are still missing.

        Raises:
            KeyError: it was not begun in this process.
        """
        part = self._part(digest)
        return [] if part is None else part.missing()

    def finish(self, digest: bytes) -> bool:
        """Verify a large content.

        Returns:
            True: it is here, complete. False: something is missing or was damaged; :meth:`missing` tells what.

        Raises:
            KeyError: it was not begun in this process.
            OSError: it could not be read.
        """
        if self.have_one(digest):
            return True
        part = self._parts[digest]
        if part.missing() or not part.check():
            return False
        self._trails.add(part.trail())
        name = digest.hex()
        self._forget_part(digest)
        self.calls.rename(self.folder, name + PART_SUFFIX, self.folder, name)
        # A map that stays is no content; it goes with the next look at old parts.
        with suppress(OSError):
            self._unlink_if_there(name + MAP_SUFFIX)
        return True

    def _forget_part(self, digest: bytes) -> None:
        part = self._parts.pop(digest, None)
        if part is not None:
            part.close()

    def close_large(self) -> None:
        """Let go of everything; what is under way stays, what was copied ahead does not."""
        with suppress(OSError):
            self.end_ahead()
        for digest in list(self._parts):
            self._forget_part(digest)
