"""What one read of a large file leaves behind, so that its next version costs less.

While one thread hashes a file that has changed, another one signs its blocks and compares them with those of the
version before. So whoever wants to send the new version knows by then what stands in both at the same place, and needs
no signatures from the other side; what has moved is looked for only when the file is sent, unless a few blocks say that
all of it has moved. Of a file that only grew no more than the new end is signed. A file that is met for the first time
is only hashed. States of the hash at some places spare whoever puts a next version together the hashing of
what is copied from the front of this one, where the stamps of the file prove that it is this one still.

A trail belongs to a content, not to a path, and is only kept in memory: without it everything is read and asked for.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from .guess import likely_copy
from .patch import Copy, copies_in_new, gaps
from .search import Found, SearchBudget, find_blocks
from .signatures import (
    WORKERS,
    Signatures,
    block_size_for,
    read_at,
    read_signatures,
    sign,
    sign_again,
    sign_grown,
    sums,
)

__all__ = ["Hashing", "Mark", "Origin", "Trail", "Trails", "read_large", "search_between"]

_BUFFER_BYTES = 2**20
_MARK_BYTES = 64 * 2**20
_KEPT_BYTES = 16 * 2**20
_MARK_COST_BYTES = 512
# Of a search during a look: without numpy some tenths of a second.
_LITTLE = SearchBudget(rolled=(2 * 2**20, 16 * 2**20), verified=16 * 2**20)

Mark = tuple[int, blake2b]
"""An offset, and the state of the hash of everything before it; not to be updated, only copied."""


class Hashing:
    """A hash on its way through a file, which leaves marks.

    Args:
        key: Key of the pairing.
        marks: Of an equal beginning, ascending; the hash goes on behind the last one.
    """

    def __init__(self, key: bytes, marks: Sequence[Mark] = ()) -> None:
        self._marks = list(marks)
        self.offset, self._state = marks[-1] if marks else (0, blake2b(digest_size=32, key=key))
        self._state = self._state.copy()

    def update(self, data: bytes | memoryview) -> None:
        """Take in the bytes at :attr:`offset`."""
        self._state.update(data)
        self.offset += len(data)
        if self.offset - (self._marks[-1][0] if self._marks else 0) >= _MARK_BYTES:
            self._marks.append((self.offset, self._state.copy()))

    def digest(self) -> bytes:
        """Return the digest of everything so far."""
        return self._state.digest()

    def marks(self) -> tuple[Mark, ...]:
        """Return all marks, the last one at the present place."""
        last = self._marks[-1][0] if self._marks else 0
        return (*self._marks, *([(self.offset, self._state.copy())] if self.offset > last else []))


@dataclass(frozen=True)
class Origin:
    """What a content has in common with the version before it.

    Attributes:
        digest: Of that version.
        grew: All of that version stands in front, proven by its digest.
        copies: Ranges of it that the content has, at the same place or all moved; None where nobody had signed it.
    """

    digest: bytes
    grew: bool
    copies: tuple[Copy, ...] | None


@dataclass(frozen=True)
class Trail:
    """See the module.

    Attributes:
        digest: Of the content.
        size: Its length in bytes.
        marks: States of the hash, ascending, the last one at the end.
        signatures: In their form on the wire; empty where nobody has signed it.
        origin: What it has from the version before; None where that is not known.
    """

    digest: bytes
    size: int
    marks: tuple[Mark, ...]
    signatures: bytes = field(default=b"", repr=False)
    origin: Origin | None = None


class Trails:
    """Keeps the trails that were used last; not for several threads at once.

    Args:
        most_bytes: About how much memory they may take.
    """

    def __init__(self, most_bytes: int = _KEPT_BYTES) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[bytes, Trail] = OrderedDict()
        self._used = 0

    def get(self, digest: bytes) -> Trail | None:
        """Return the trail of a content."""
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def add(self, trail: Trail) -> None:
        """Keep a trail, in place of one of the same content that tells less."""
        before = self._kept.pop(trail.digest, None)
        if before is not None:
            self._used -= _cost(before)
            trail = replace(
                trail, signatures=trail.signatures or before.signatures, origin=trail.origin or before.origin
            )
        self._kept[trail.digest] = trail
        self._used += _cost(trail)
        while self._used > self._most and self._kept:
            self._used -= _cost(self._kept.popitem(last=False)[1])


def _cost(trail: Trail) -> int:
    copies = 0 if trail.origin is None or trail.origin.copies is None else len(trail.origin.copies)
    return len(trail.signatures) + _MARK_COST_BYTES * (len(trail.marks) + 1 + copies // 2)


def read_large(fd: int, size: int, key: bytes, before: tuple[bytes, int] | None, trails: Trails) -> Trail:
    """Read an open file once: its digest, and what it has from the version before.

    Args:
        fd: Regular file, open for reading, at its start.
        size: Its length in bytes; where it is longer or shorter by now, the trail is one byte longer or shorter.
        key: Key of the pairing.
        before: Digest and length of the content that stood at its path.
        trails: What is known of that content; nothing is added.

    Raises:
        OSError: the file cannot be read.
    """
    if before is None or WORKERS == 1:
        # With one worker, two threads cannot read one file at two places, or there is no processor for the second.
        return _hashed(fd, size, key, before)
    older = trails.get(before[0])
    old = read_signatures(older.signatures) if older is not None and older.signatures else None
    if old is not None and _seems_grown(fd, size, old):
        trail = _hashed(fd, size, key, before)
        grew = trail.origin is not None and trail.origin.grew
        packed, copies = _signed_grown(fd, old) if grew else _signed(fd, size, old)
    else:
        with ThreadPoolExecutor(1) as other:
            signing = other.submit(_signed, fd, size, old)
            trail = _hashed(fd, size, key, before)
            packed, copies = signing.result()
    origin = trail.origin
    if origin is not None and not origin.grew:
        origin = replace(origin, copies=copies)
    return replace(trail, signatures=packed, origin=origin)


def _hashed(fd: int, size: int, key: bytes, before: tuple[bytes, int] | None) -> Trail:
    hashing = Hashing(key)
    grew = False
    room = memoryview(bytearray(_BUFFER_BYTES))
    stops = sorted({size + 1} | ({before[1]} if before is not None and before[1] <= size else set()))
    with open(fd, "rb", buffering=0, closefd=False) as file:
        for stop in stops:
            while hashing.offset < stop and (count := file.readinto(room[: min(_BUFFER_BYTES, stop - hashing.offset)])):
                hashing.update(room[:count])
            if before is not None and hashing.offset == stop == before[1]:
                grew = hashing.digest() == before[0]
    copies = None if before is None or not grew else (Copy(0, 0, before[1]),) if before[1] else ()
    origin = None if before is None else Origin(before[0], grew, copies)
    return Trail(hashing.digest(), hashing.offset, hashing.marks(), origin=origin)


def _seems_grown(fd: int, size: int, old: Signatures) -> bool:
    """Return whether the end of an older version stands where it stood, and more behind it."""
    last = old.file_size // old.block_size - 1
    if last < 0 or size <= old.file_size or old.block_size != block_size_for(size):
        return False
    return sums(read_at(fd, old.block_size, last * old.block_size)) == old.sums[last]


def _signed_grown(fd: int, old: Signatures) -> tuple[bytes, None]:
    try:
        return sign_grown(fd, old), None
    except ValueError:
        # It has too many blocks, or it changes at this moment.
        return b"", None


def _signed(fd: int, size: int, old: Signatures | None) -> tuple[bytes, tuple[Copy, ...] | None]:
    """Sign a file, and compare it with an older version; the digest tells later whether it held still."""
    block_size = block_size_for(size)
    try:
        if old is None or old.block_size != block_size:
            return sign(fd, block_size, workers=1), None if old is None else ()
        packed, same = sign_again(fd, old)
    except ValueError:
        # It has too many blocks, or it changes at this moment.
        return b"", None
    copies = copies_in_new((Found(index * block_size, index) for index in same), old)
    moved = likely_copy(fd, size, old) if 2 * len(same) * block_size < size else None
    if moved is not None and moved.source != moved.target:
        # All of it has moved: while the other thread still hashes, little more is needed to know.
        copies = search_between(fd, copies, old, _LITTLE)
    return packed, tuple(copies)


def search_between(fd: int, copies: Sequence[Copy], old: Signatures, budget: SearchBudget | None = None) -> list[Copy]:
    """Look for blocks of an older version in what no copy covers yet.

    Args:
        fd: The file, open for reading.
        copies: Ranges that are known to be in both, ascending.
        old: Signatures of the older version.
        budget: Bounds of the work.

    Returns:
        All copies, ascending and without overlaps.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.fstat(fd).st_size
    ranges = [(start, start + length) for start, length in gaps(copies, size)]
    found = copies_in_new(find_blocks(fd, old, ranges=ranges, budget=budget), old)
    out: list[Copy] = []
    end = 0
    for copy in sorted([*copies, *found], key=lambda copy: copy.target):
        if copy.target >= end:
            out.append(copy)
            end = copy.target + copy.length
    return out
