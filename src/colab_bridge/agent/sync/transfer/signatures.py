"""Signatures of a file by fixed blocks: adler32 to find, crc32 to tell apart what adler32 cannot.

The runtime only signs (2 GB/s with the standard library); the search is done on this machine, in both directions. Two
sums of 32 bits are enough to find blocks by: two different blocks of a file of 1 GiB have equal ones once in a million
such files. Nothing rests on them, for the digest of the file that is put together decides; blocks that were made to
have equal sums cost their author's reader a second transfer.

Layout, numbers big-endian::

    version u8 | block size u32 | file size u64 | for each block: adler32 u32, crc32 u32

The last block may be short; it is signed like the others.
"""

from __future__ import annotations

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isqrt

from ..pages import WireError

__all__ = [
    "MAX_BLOCKS",
    "MAX_BLOCK_BYTES",
    "MIN_BLOCK_BYTES",
    "MIN_DELTA_BYTES",
    "WORKERS",
    "Signatures",
    "block_size_for",
    "read_at",
    "read_signatures",
    "sign",
    "sign_again",
    "sign_grown",
    "sums",
]

MIN_BLOCK_BYTES = 16 * 1024
MAX_BLOCK_BYTES = 256 * 1024
MAX_BLOCKS = 65_536
MIN_DELTA_BYTES = 4 * 2**20
"""Below this size a delta is not worth its round trip."""
WORKERS = min(4, os.cpu_count() or 1) if hasattr(os, "pread") else 1
"""Threads for hashing; without reads at an offset there can only be one."""
_HEAD = struct.Struct(">BIQ")
_BLOCK = struct.Struct(">Q")
_VERSION = 2
_CRC = 0xFFFFFFFF


@dataclass(frozen=True)
class Signatures:
    """Signed blocks of a file.

    Attributes:
        block_size: Bytes of every block but the last.
        file_size: Bytes of the file.
        sums: Both sums of each block, adler32 in the upper half.
    """

    block_size: int
    file_size: int
    sums: tuple[int, ...]

    def length(self, index: int) -> int:
        """Return the length of a block in bytes."""
        return min(self.block_size, self.file_size - index * self.block_size)


def block_size_for(size: int) -> int:
    """Return the block size for a file: twice the root of its size, a power of two from 16 KiB to 256 KiB.

    For 1 GiB that is 64 KiB, so the signatures are 128 KiB and a change costs at most two blocks more than it is long.
    """
    wanted = MIN_BLOCK_BYTES
    while wanted < MAX_BLOCK_BYTES and wanted < 2 * isqrt(max(0, size)):
        wanted *= 2
    return wanted


def sums(block: bytes | memoryview) -> int:
    """Return both sums of a block, adler32 in the upper half."""
    return zlib.adler32(block) << 32 | zlib.crc32(block)


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Read a range of a file; less than asked only at its end. Threads may share the descriptor if ``WORKERS`` > 1."""
    parts: list[bytes] = []
    while count:
        if hasattr(os, "pread"):
            part = os.pread(fd, count, offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            part = os.read(fd, count)
        if not part:
            break
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def sign(fd: int, block_size: int, workers: int = WORKERS) -> bytes:
    """Return the signatures of an open file, read from its start.

    Args:
        fd: Regular file, open for reading.
        block_size: 16 KiB to 256 KiB.
        workers: Threads.

    Raises:
        ValueError: the block size is out of bounds, the file has more than 65,536 blocks of it, or it shrinks.
        OSError: the file cannot be read.
    """
    if not MIN_BLOCK_BYTES <= block_size <= MAX_BLOCK_BYTES:
        raise ValueError("the block size is out of bounds")
    if os.fstat(fd).st_size > MAX_BLOCKS * block_size:
        raise ValueError("the file has too many blocks")
    count = -(-os.fstat(fd).st_size // block_size)
    share = -(-count // workers)
    starts = range(0, count, share) if count else ()
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda first: _sign_blocks(fd, block_size, first, min(share, count - first)), starts))
    size = sum(found for _, found in parts)
    if count != -(-size // block_size):
        raise ValueError("the file changed while it was signed")
    return b"".join([_HEAD.pack(_VERSION, block_size, size), *(rows for rows, _ in parts)])


def _sign_blocks(fd: int, block_size: int, first: int, count: int) -> tuple[bytes, int]:
    """Sign some blocks; hashing lets other threads run."""
    rows: list[bytes] = []
    size = 0
    for index in range(first, first + count):
        block = read_at(fd, block_size, index * block_size)
        if not block:
            break
        size += len(block)
        rows.append(_BLOCK.pack(sums(block)))
    return b"".join(rows), size


def sign_again(fd: int, old: Signatures) -> tuple[bytes, list[int]]:
    """Return the signatures of a new version, and the blocks that stand in it where they stood in the older one.

    That one of the two sums is the same is enough to say so, as for blocks that are found: half the work.

    Args:
        fd: Regular file, open for reading.
        old: Signatures of the older version.

    Raises:
        ValueError: the file has too many blocks, or it shrinks.
        OSError: the file cannot be read.
    """
    block_size, size = old.block_size, os.fstat(fd).st_size
    count, full = -(-size // block_size), old.file_size // old.block_size
    if count > MAX_BLOCKS:
        raise ValueError("the file has too many blocks")
    rows: list[int] = []
    same: list[int] = []
    found = 0
    for index in range(count):
        block = read_at(fd, min(block_size, size - found), found)
        found += len(block)
        crc = zlib.crc32(block)
        if index < full and len(block) == block_size and old.sums[index] & _CRC == crc:
            same.append(index)
            rows.append(old.sums[index])
        else:
            rows.append(zlib.adler32(block) << 32 | crc)
    if found != size:
        raise ValueError("the file changed while it was signed")
    return _HEAD.pack(_VERSION, block_size, size) + struct.pack(f">{count}Q", *rows), same


def sign_grown(fd: int, old: Signatures) -> bytes:
    """Return the signatures of a file that begins with an older version: only what comes behind that is read.

    Args:
        fd: Regular file, open for reading.
        old: Signatures of the older version.

    Raises:
        ValueError: the file has too many blocks, or it shrinks.
        OSError: the file cannot be read.
    """
    block_size, size = old.block_size, os.fstat(fd).st_size
    full, count = old.file_size // block_size, -(-size // block_size)
    if count > MAX_BLOCKS:
        raise ValueError("the file has too many blocks")
    rows, found = _sign_blocks(fd, block_size, full, max(0, count - full))
    if full * block_size + found != size:
        raise ValueError("the file changed while it was signed")
    kept = struct.pack(f">{full}Q", *old.sums[:full])
    return b"".join([_HEAD.pack(_VERSION, block_size, size), kept, rows])


def read_signatures(data: bytes | memoryview) -> Signatures:
    """Check and read signatures of the other side.

    Raises:
        WireError: damaged, or out of the bounds of this module.
    """
    if len(data) < _HEAD.size:
        raise WireError("signatures are cut off")
    version, block_size, size = _HEAD.unpack_from(data)
    if version != _VERSION or not MIN_BLOCK_BYTES <= block_size <= MAX_BLOCK_BYTES:
        raise WireError("signatures of an unknown form")
    count, rest = divmod(len(data) - _HEAD.size, _BLOCK.size)
    if rest or count > MAX_BLOCKS or count != -(-size // block_size):
        raise WireError("signatures do not fit the size of the file")
    return Signatures(block_size, size, struct.unpack_from(f">{count}Q", data, _HEAD.size))
