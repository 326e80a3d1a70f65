"""Large files of one side: their signatures, and new versions put together out of what stands here already."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

from .disk.mapped import MappedUnavailable, mapped_files
from .disk.ops import signature_of
from .disk.root import Root
from .disk.stage import Stage
from .disk.verify import Known
from .transfer.patch import Copy
from .transfer.signatures import block_size_for, read_signatures, sign
from .transfer.trail import Origin, Trails, search_between

__all__ = ["LargeFiles"]

# So much is sent sooner than searched for what has only moved.
_FEW_BYTES = 1_250_000


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
        is the content that was hashed already, and no program has it mapped into memory. So nothing is trusted here
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
