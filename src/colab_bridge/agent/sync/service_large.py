"""Large files of one side: their signatures, and new versions put together out of what stands here already."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

from .disk.mapped import MappedUnavailable, mapped_files
from .disk.ops import signature_of
from .disk.root import Root
from .disk.stage import Stage
from .disk.verify import Known
from .transfer.guess import likely_copy
from .transfer.patch import Copy
from .transfer.signatures import block_size_for, read_signatures, sign
from .transfer.trail import Origin, Trails, search_between
from .tree import Directory, File, entry_at

__all__ = ["Foreseen", "LargeFiles"]

# So much is sent sooner than searched for what has only moved.
_FEW_BYTES = 1_250_000
# What is shorter is read before a copy of it could be begun.
_AHEAD_BYTES = 32 << 20

Foreseen = Callable[[str, bytes, Copy], None]
"""Told path, digest of the content at the last look, and what the file is likely to have of it still."""


@dataclass(frozen=True)
class _Ahead:
    """What a copy that was begun ahead is of.

    Attributes:
        path: Where the older version stood.
        old: Its digest.
        stamps: Its stamps when the copy was begun.
        proven: They proved then that it was that content.
        begun: When, by the monotonic clock.
    """

    path: str
    old: bytes
    stamps: tuple[int, ...]
    proven: bool
    begun: float


class LargeFiles:
    """See the module.

    Args:
        root: The root.
        stage: Its stage.
        trails: What reading large files has left behind.
        open_file: Opens a path of the tree for reading.
        known: Stamps and digest of a path at the last look, where the look trusted them.
    """

    def __init__(
        self,
        root: Root,
        stage: Stage,
        trails: Trails,
        open_file: Callable[[str], AbstractContextManager[int]],
        known: Known,
    ) -> None:
        self._root = root
        self._stage = stage
        self._trails = trails
        self._open_file = open_file
        self._known = known
        self._ahead: _Ahead | None = None
        self._taken: dict[bytes, _Ahead] = {}

    # -- ahead of the look -------------------------------------------------------------------------------------------

    def foresee(self, dirty: Iterable[str] | None, last: Directory | None, foreseen: Foreseen | None) -> None:
        """Tell of the first large file that has changed and is likely to have much of its older version still.

        Args:
            dirty: What may have changed; None where only a walk can tell.
            last: The tree at the last look.
            foreseen: Told of it; None where nobody wants to know.
        """
        if dirty is None or last is None or foreseen is None:
            return
        for path in dirty:
            old = entry_at(last, path)
            if isinstance(old, File) and old.size >= _AHEAD_BYTES:
                copy = self._likely_copy(path, old.digest)
                if copy is not None:
                    foreseen(path, old.digest, copy)
                    return

    def _likely_copy(self, path: str, old: bytes) -> Copy | None:
        trail = self._trails.get(old)
        with suppress(OSError), self._open_file(path) as fd:
            seen = os.fstat(fd)
            if trail is None or not trail.signatures or self._known(path) == (signature_of(seen), old):
                return None
            copy = likely_copy(fd, seen.st_size, read_signatures(trail.signatures))
            return copy if copy is not None and copy.length >= _AHEAD_BYTES else None
        return None

    def copy_ahead(self, path: str, old: bytes, copy: Copy) -> None:
        """Begin to copy a range of the content at a path, for a new version that nobody knows yet.

        Raises:
            OSError: it is not there, or the copy cannot be begun.
        """
        self.end_ahead()
        with self._open_file(path) as fd:
            stamps = signature_of(os.fstat(fd))
            if shutil.disk_usage(self._root.path).free < 2 * (copy.target + copy.length):
                # What is not sure to be used takes no room that somebody may need.
                return
            proven = self._is_proven(path, fd, old)
            self._stage.copy_ahead(fd, copy)
            self._ahead = _Ahead(path, old, stamps, proven, time.monotonic())

    def end_ahead(self, older_than_s: float = 0.0) -> None:
        """Remove what was copied ahead and not used.

        Raises:
            OSError: it cannot be removed.
        """
        if self._ahead is not None and time.monotonic() - self._ahead.begun >= older_than_s:
            self._ahead = None
            self._stage.end_ahead()

    def begin(self, digest: bytes, size: int, old: bytes) -> None:
        """Begin a large content that is made of an older one, with what was copied ahead of that.

        Raises:
            OSError: the files cannot be made.
        """
        ahead, self._ahead = self._ahead, None
        fits = ahead is not None and ahead.old == old
        if ahead is not None and fits:
            self._taken[digest] = ahead
        self._stage.begin_large(digest, size, take_ahead=fits)
        # Of something else, or the content is here already.
        self._stage.end_ahead()

    # -- what stands in both -----------------------------------------------------------------------------------------

    def origin(self, digest: bytes) -> Origin | None:
        """Return what a content has from the version before; None where nobody has compared them."""
        trail = self._trails.get(digest)
        return None if trail is None else trail.origin

    def copies_from(self, path: str, digest: bytes, old: bytes) -> list[Copy] | None:
        """Return which ranges of an older content the one at a path has too.

        Returns:
            None where that cannot be told without signatures from the other side.

        Raises:
            OSError: the file cannot be read.
        """
        trail, older = self._trails.get(digest), self._trails.get(old)
        origin = None if trail is None else trail.origin
        if trail is None or origin is None or origin.digest != old or origin.copies is None:
            return None
        if origin.grew or trail.size - sum(copy.length for copy in origin.copies) <= _FEW_BYTES:
            return list(origin.copies)
        if older is None or not older.signatures:
            return None
        with self._open_file(path) as fd:
            return search_between(fd, origin.copies, read_signatures(older.signatures))

    def signatures(self, path: str, digest: bytes, block_size: int) -> bytes:
        """Return the signatures of a file that had this content at the last look.

        Raises:
            OSError: it is not there or cannot be read.
            ValueError: it has too many blocks, or changes at this moment.
        """
        trail = self._trails.get(digest)
        kept = trail is not None and block_size == block_size_for(trail.size)
        if trail is not None and kept and trail.signatures:
            return trail.signatures
        with self._open_file(path) as fd:
            before = os.fstat(fd)
            packed = sign(fd, block_size)
            if trail is not None and kept and self._known(path) == (signature_of(before), digest):
                self._trails.add(replace(trail, signatures=packed))
        return packed

    def fill(self, digest: bytes, copies: Iterable[Copy], path: str, old: bytes) -> None:
        """Take ranges of a large content that was begun out of the older version of it that stands at a path.

        What is copied from the front of a file is not hashed again where its stamps prove, before and after, that it
        is the content that was hashed already, and no program has it mapped into memory; before is when the first byte
        was copied ahead, where that was done. So nothing is trusted here
        that a scan would not trust: a change that no stamp tells of stays unseen until the file is audited.

        Args:
            digest: The content.
            copies: Ranges of the older version, and where they belong.
            path: Where that stands.
            old: Its digest.

        Raises:
            OSError: it is not there, or reading or writing failed.
        """
        with self._open_file(path) as fd:
            trail = self._trails.get(old) if self._is_proven(path, fd, old) else None
            ahead = self._taken.pop(digest, None)
            if ahead is not None and (ahead.path, ahead.old, ahead.stamps) != (path, old, signature_of(os.fstat(fd))):
                self._stage.forget_ahead(digest)
            elif ahead is not None and not ahead.proven:
                trail = None
            self._stage.fill(digest, copies, fd, () if trail is None else trail.marks)
            if trail is not None and not self._is_proven(path, fd, old):
                self._stage.hash_anew(digest)

    def _is_proven(self, path: str, fd: int, digest: bytes) -> bool:
        if not path.isascii() or self._known(path) != (signature_of(os.fstat(fd)), digest):
            # Other names may be spelled otherwise by the list of mapped files.
            return False
        try:
            return path not in mapped_files(self._root)
        except MappedUnavailable:
            return False
