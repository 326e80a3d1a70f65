"""Where the blocks of one file stand in another: one search for both directions.

Upload: the runtime has signed its old file, the new file here is searched. Download: the runtime has signed its new
file, the old file here is searched. While blocks match, the search goes from block to block; byte by byte only where
they do not. The other side may have made the signatures to cost as much as they can, so all work has a budget.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from .signatures import Signatures, read_at, sums

__all__ = ["Found", "SearchBudget", "find_blocks"]

_MOD = 65_521  # zlib.adler32
_WINDOW_BYTES = 2**20
_FIRST_WINDOW_BYTES = 2**16
_READ_BYTES = 4 * 2**20
_TABLE_BITS = 20
_MISSES_PER_WEAK = 4


@dataclass(frozen=True)
class SearchBudget:
    """Bounds of one search, in bytes.

    Attributes:
        rolled: Searched byte by byte, without and with numpy; what is left is compared in steps of blocks only.
        verified: Read once more because a weak hash was equal and the block was not.
    """

    rolled: tuple[int, int] = (64 * 2**20, 256 * 2**20)
    verified: int = 256 * 2**20


@dataclass(frozen=True)
class Found:
    """A block of the signatures in the searched file.

    Attributes:
        offset: Where it starts in the searched file.
        index: Which block it is.
    """

    offset: int
    index: int


class _File:
    """Reads of an open file through one window; bytes that vanish while it is read are simply not there."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size
        self._start = 0
        self._data = memoryview(b"")

    def get(self, offset: int, length: int) -> memoryview:
        inside = offset - self._start
        if inside < 0 or inside + length > len(self._data):
            self._start, inside = offset, 0
            self._data = memoryview(read_at(self._fd, max(length, _READ_BYTES), offset))
        return self._data[inside : inside + length]


class _Weak(Protocol):
    """A set of weak hashes that answers where in some bytes one of them begins."""

    def hits(self, data: memoryview, block_size: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, weak hash) for every offset with a full block behind it."""

    def drop(self, weak: int) -> None:
        """Forget a hash that misled too often."""


class _PlainWeak:
    """Standard library only: 11 MB/s."""

    def __init__(self, weak: Sequence[int]) -> None:
        self._known = set(weak)

    def drop(self, weak: int) -> None:
        self._known.discard(weak)

    def hits(self, data: memoryview, block_size: int) -> Iterator[tuple[int, int]]:
        if len(data) < block_size:
            return
        known = self._known
        start = zlib.adler32(data[:block_size])
        low, high = start & 0xFFFF, start >> 16
        if start in known:
            yield 0, start
        for offset, (out, new) in enumerate(zip(data[: len(data) - block_size], data[block_size:], strict=True), 1):
            low = (low - out + new) % _MOD
            high = (high - block_size * out + low - 1) % _MOD
            if (high << 16 | low) in known:
                yield offset, high << 16 | low


class _NumpyWeak:
    """With numpy: 85 MB/s, by prefix sums over the window."""

    def __init__(self, numpy: Any, weak: Sequence[int]) -> None:
        self._np = numpy
        self._known = numpy.unique(numpy.array(weak, dtype=numpy.uint32))
        self._fill()

    def _fill(self) -> None:
        self._table = self._np.zeros(1 << _TABLE_BITS, dtype=bool)
        self._table[self._slot(self._known)] = True

    def _slot(self, weak: Any) -> Any:
        return (weak ^ (weak >> 12)) & ((1 << _TABLE_BITS) - 1)

    def drop(self, weak: int) -> None:
        self._known = self._known[self._known != weak]
        self._fill()

    def _all(self, data: memoryview, block_size: int) -> Any:
        np = self._np
        raw = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
        count = len(raw) - block_size + 1
        sums = np.zeros(len(raw) + 1, dtype=np.int64)
        np.cumsum(raw, out=sums[1:])
        moments = np.zeros(len(raw) + 1, dtype=np.int64)
        raw *= np.arange(len(raw), dtype=np.int64)
        np.cumsum(raw, out=moments[1:])
        inside = sums[block_size:] - sums[:count]
        high = np.arange(block_size, block_size + count, dtype=np.int64)
        high *= inside
        high -= moments[block_size:] - moments[:count]
        high += block_size
        high %= _MOD
        inside += 1
        inside %= _MOD
        return (high.astype(np.uint32) << np.uint32(16)) | inside.astype(np.uint32)

    def hits(self, data: memoryview, block_size: int) -> Iterator[tuple[int, int]]:
        if len(data) < block_size or not len(self._known):
            return
        np = self._np
        weak = self._all(data, block_size)
        places = np.flatnonzero(self._table[self._slot(weak)])
        while True:
            known = self._known
            places = places[np.isin(weak[places], known)]
            used = 0
            for place in places.tolist():
                yield place, int(weak[place])
                used += 1
                if self._known is not known:
                    break
            else:
                return
            places = places[used:]


def _weak_set(weak: Sequence[int], *, use_numpy: bool) -> tuple[_Weak, bool]:
    if use_numpy:
        try:
            return _NumpyWeak(import_module("numpy"), weak), True
        except ImportError:
            pass
    return _PlainWeak(weak), False


class _Search:
    def __init__(self, fd: int, signatures: Signatures, budget: SearchBudget, *, use_numpy: bool) -> None:
        self._file = _File(fd)
        self._signatures = signatures
        self._full = full = signatures.file_size // signatures.block_size
        self._index = {signatures.sums[index]: index for index in range(full - 1, -1, -1)}
        self._weak, numeric = _weak_set([both >> 32 for both in signatures.sums[:full]], use_numpy=use_numpy)
        self._misses: dict[int, int] = {}
        self._roll = budget.rolled[numeric]
        self._verify = budget.verified

    def run(self, ranges: Sequence[tuple[int, int]] | None) -> list[Found]:
        found: list[Found] = []
        for start, end in ((0, self._file.size),) if ranges is None else ranges:
            self._run(start, min(end, self._file.size), found)
        self._tail(found)
        return found

    def _run(self, position: int, end: int, found: list[Found]) -> None:
        block = self._signatures.block_size
        expected: int | None = None
        while position + block <= end:
            index = self._block_at(position, expected)
            if index is None:
                after = self._next_match(position + 1, end)
                position = position + block if after is None else after
                expected = None
                continue
            found.append(Found(position, index))
            position, expected = position + block, index + 1

    def _block_at(self, position: int, expected: int | None) -> int | None:
        """Return the known block at an offset.

        Args:
            position: Offset.
            expected: The block behind the one that has just matched. There the weak hash is enough: it is four times
                as fast, and the digest of the whole file is compared in the end anyway.
        """
        signatures = self._signatures
        data = self._file.get(position, signatures.block_size)
        if len(data) < signatures.block_size:
            return None
        if expected is not None and expected < self._full and zlib.adler32(data) == signatures.sums[expected] >> 32:
            return expected
        return self._index.get(sums(data))

    def _next_match(self, start: int, end: int) -> int | None:
        """Return the next offset with a known block; None when the budget is spent or there is none."""
        block, window = self._signatures.block_size, _FIRST_WINDOW_BYTES
        while self._roll > 0 and start + block <= end:
            data = self._file.get(start, min(window + block - 1, end - start))
            for offset, weak in self._weak.hits(data, block):
                if self._verified(data[offset : offset + block], weak):
                    self._roll -= offset
                    return start + offset
            self._roll -= window
            start += window
            window = _WINDOW_BYTES
        return end if start + block > end else None

    def _verified(self, data: memoryview, weak: int) -> bool:
        if self._verify <= 0:
            self._roll = 0
            return False
        if weak << 32 | zlib.crc32(data) in self._index:
            return True
        self._verify -= len(data)
        self._misses[weak] = self._misses.get(weak, 0) + 1
        if self._misses[weak] >= _MISSES_PER_WEAK:
            self._weak.drop(weak)
        return False

    def _tail(self, found: list[Found]) -> None:
        """Look for the short last block at the end of the file, the only place where it is likely."""
        signatures, size = self._signatures, self._file.size
        short = signatures.file_size % signatures.block_size
        end = found[-1].offset + signatures.block_size if found else 0
        if short and size - short >= end and sums(self._file.get(size - short, short)) == signatures.sums[-1]:
            found.append(Found(size - short, len(signatures.sums) - 1))


def find_blocks(
    fd: int,
    signatures: Signatures,
    *,
    ranges: Sequence[tuple[int, int]] | None = None,
    budget: SearchBudget | None = None,
    use_numpy: bool = True,
) -> list[Found]:
    """Return where blocks of the signatures stand in an open file, ascending and without overlaps.

    Args:
        fd: Regular file, open for reading.
        signatures: Blocks to look for.
        ranges: Where to look, (start, end) ascending; everywhere by default.
        budget: Bounds of the work; what is not found is only sent again.
        use_numpy: Whether numpy may be used where it is installed.

    Raises:
        OSError: the file cannot be read.
    """
    return _Search(fd, signatures, budget or SearchBudget(), use_numpy=use_numpy).run(ranges)
