"""A delta as copies and gaps, its form on the wire, and the test for a file that only grew.

A delta never carries content: the copies say which ranges of the old file are also in the new one, everything else are
gaps, and gaps are filled with chunks like those of any large file. So a cut costs at most a chunk here too.

Layout on the wire, big-endian, for each copy: ``source u64 | target u64 | length u64``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ..pages import WireError
from .search import Found
from .signatures import MAX_BLOCKS, MIN_DELTA_BYTES, Signatures, read_at

__all__ = [
    "Copy",
    "Growth",
    "copies_in_new",
    "copies_in_old",
    "gaps",
    "growth",
    "pack_copies",
    "unpack_copies",
    "worth_a_delta",
]

_COPY = struct.Struct(">QQQ")
_BUFFER_BYTES = 2**20
_HASHED_PER_S = 0.9e9


@dataclass(frozen=True)
class Copy:
    """A range of the old file that the new file has too.

    Attributes:
        source: Offset in the old file.
        target: Offset in the new file.
        length: Bytes.
    """

    source: int
    target: int
    length: int


def _merged(copies: Iterable[Copy]) -> list[Copy]:
    out: list[Copy] = []
    for copy in copies:
        last = out[-1] if out else None
        if last and last.source + last.length == copy.source and last.target + last.length == copy.target:
            out[-1] = Copy(last.source, last.target, last.length + copy.length)
        else:
            out.append(copy)
    return out


def copies_in_new(found: Iterable[Found], signatures: Signatures) -> list[Copy]:
    """Return the copies for an upload: the old file was signed, the new one was searched."""
    size = signatures.block_size
    return _merged(Copy(hit.index * size, hit.offset, signatures.length(hit.index)) for hit in found)


def copies_in_old(found: Iterable[Found], signatures: Signatures) -> list[Copy]:
    """Return the copies for a download: the new file was signed, the old one was searched."""
    where: dict[int, int] = {}
    for hit in found:
        where.setdefault(signatures.sums[hit.index], hit.offset)
    size = signatures.block_size
    return _merged(
        Copy(where[both], index * size, signatures.length(index))
        for index, both in enumerate(signatures.sums)
        if both in where
    )


def gaps(copies: Sequence[Copy], size: int) -> list[tuple[int, int]]:
    """Return the ranges (offset, length) of the new file that no copy covers.

    Args:
        copies: Ascending by target, without overlaps.
        size: Length of the new file.
    """
    out: list[tuple[int, int]] = []
    position = 0
    for copy in copies:
        if copy.target > position:
            out.append((position, copy.target - position))
        position = copy.target + copy.length
    if position < size:
        out.append((position, size - position))
    return out


def pack_copies(copies: Sequence[Copy]) -> bytes:
    """Return the wire form."""
    return b"".join(_COPY.pack(copy.source, copy.target, copy.length) for copy in copies)


def unpack_copies(data: bytes | memoryview, old_size: int, new_size: int) -> list[Copy]:
    """Check and read the copies of the other side.

    Args:
        data: Wire form.
        old_size: Length of the old file.
        new_size: Length of the new file.

    Raises:
        WireError: too many, out of a file, out of order or overlapping.
    """
    count, rest = divmod(len(data), _COPY.size)
    if rest or count > MAX_BLOCKS:
        raise WireError("the copies of a delta are damaged or too many")
    out: list[Copy] = []
    position = 0
    for source, target, length in _COPY.iter_unpack(data):
        if target < position or not length or source + length > old_size or target + length > new_size:
            raise WireError("a copy of a delta lies outside its file")
        position = target + length
        out.append(Copy(source, target, length))
    return out


def worth_a_delta(old_size: int, new_size: int, *, bytes_per_s: float, round_trip_s: float) -> bool:
    """Return whether a delta is likely to be quicker than the whole file.

    Args:
        old_size: Length of the older version, bytes.
        new_size: Length of the newer version, bytes.
        bytes_per_s: Measured rate of the link.
        round_trip_s: Measured round trip.
    """
    if min(old_size, new_size) < MIN_DELTA_BYTES or bytes_per_s <= 0:
        return False
    return (old_size + new_size) / _HASHED_PER_S + round_trip_s < new_size / bytes_per_s


@dataclass(frozen=True)
class Growth:
    """What one read of a file tells.

    Attributes:
        grew: The file begins with the older version, unchanged.
        digest: Digest of the whole file.
        size: Its length in bytes.
    """

    grew: bool
    digest: bytes
    size: int


def growth(fd: int, old_size: int, old_digest: bytes, key: bytes) -> Growth:
    """Read an open file once and tell whether it begins with the older version (L03).

    The hasher is copied at the old length, so the digest of the whole file costs no second read.

    Raises:
        OSError: the file cannot be read.
    """
    hasher = blake2b(digest_size=32, key=key)
    size = 0
    grew = old_size == 0 and hasher.digest() == old_digest
    while data := read_at(fd, _BUFFER_BYTES if size >= old_size else min(_BUFFER_BYTES, old_size - size), size):
        hasher.update(data)
        size += len(data)
        if size == old_size:
            grew = hasher.copy().digest() == old_digest
    return Growth(grew, hasher.digest(), size)
