"""Small files in one message: a table of digests and lengths, then the contents, packed together.

Layout, numbers big-endian::

    codec u8 | raw length u32 | packed( count u32 | count x (digest 32 | length u32) | contents )

Where a file belongs and what it may do is said by operations, never here: a batch is only content by digest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..pages import WireError
from .compress import Codec, deflate, inflate

__all__ = ["BATCH_BYTES", "DIGEST_BYTES", "SMALL_FILE_BYTES", "BatchLimits", "group", "pack_batch", "unpack_batch"]

DIGEST_BYTES = 32
BATCH_BYTES = 2**20
"""Contents of one batch, in bytes, as far as single files allow."""
SMALL_FILE_BYTES = 2**20
"""Files below this size travel in batches, others in chunks."""
_BATCH_FILES = 4096
_HEAD = struct.Struct(">BI")
_COUNT = struct.Struct(">I")
_ROW = struct.Struct(f">{DIGEST_BYTES}sI")


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of what is accepted.

    Attributes:
        raw_bytes: Unpacked length with the table.
        files: Number of files.
    """

    raw_bytes: int = 8 * 2**20
    files: int = _BATCH_FILES


def group(sizes: Iterable[tuple[bytes, int]]) -> Iterator[list[bytes]]:
    """Cut a list of (digest, size in bytes) into batches of at most about 1 MiB, keeping the order."""
    batch: list[bytes] = []
    total = 0
    for digest, size in sizes:
        if batch and (total + size > BATCH_BYTES or len(batch) >= _BATCH_FILES):
            yield batch
            batch, total = [], 0
        batch.append(digest)
        total += size
    if batch:
        yield batch


def pack_batch(files: Sequence[tuple[bytes, bytes]], *, allowed: tuple[Codec, ...] = (Codec.ZLIB,)) -> bytes:
    """Return one message for these files.

    Args:
        files: Digest and content of each.
        allowed: Codecs of the receiver.
    """
    table = b"".join(_ROW.pack(digest, len(data)) for digest, data in files)
    parts = [_COUNT.pack(len(files)), table, *(data for _, data in files)]
    if not allowed:
        return b"".join([_HEAD.pack(Codec.RAW, sum(len(part) for part in parts)), *parts])
    raw = b"".join(parts)
    codec, packed = deflate(raw, allowed=allowed)
    return b"".join([_HEAD.pack(codec, len(raw)), packed])


def unpack_batch(data: bytes | memoryview, limits: BatchLimits | None = None) -> list[tuple[bytes, memoryview]]:
    """Return digest and content of each file; the contents are not yet compared with their digests.

    Raises:
        WireError: damaged, longer than declared or than accepted, or a digest twice.
    """
    bounds = limits or BatchLimits()
    view = memoryview(data)
    if len(view) < _HEAD.size:
        raise WireError("a batch is cut off")
    codec, declared = _HEAD.unpack_from(view)
    raw = memoryview(inflate(codec, view[_HEAD.size :], declared, bounds.raw_bytes))
    if len(raw) < _COUNT.size:
        raise WireError("a batch has no table")
    (count,) = _COUNT.unpack_from(raw)
    start = _COUNT.size + count * _ROW.size
    if count > bounds.files or start > len(raw):
        raise WireError("a batch has more files than it can hold")
    out: list[tuple[bytes, memoryview]] = []
    for digest, length in _ROW.iter_unpack(raw[_COUNT.size : start]):
        if length > len(raw) - start:
            raise WireError("a batch is shorter than its table says")
        out.append((digest, raw[start : start + length]))
        start += length
    if start != len(raw) or len({digest for digest, _ in out}) != count:
        raise WireError("a batch and its table disagree")
    return out
