"""The files that a message record consists of: their format, and how they are written, checked and read.

A segment is a file named by the number of its first entry. It starts with::

    8 bytes   fixed
    8 bytes   random: the *salt*
    8 bytes   the highest origin of all entries before this file
    4 bytes   CRC-32 of the 24 bytes above, then 4 zero bytes

and goes on with entries::

    4 bytes   marker: first half of the salt
    4 bytes   length of the body
    8 bytes   number of the entry
    8 bytes   Unix seconds, a double
    8 bytes   origin
    1 byte    kind, then 3 zero bytes
    4 bytes   CRC-32 of the 36 bytes above and the body, started with the CRC-32 of the salt
    the body

All integers are little-endian. The salt is there because bodies are what foreign code prints: without it, a kernel
could print something that looks like an entry, and a search for the next intact entry behind damaged bytes would
believe it.

Numbers go up by one from entry to entry; where some are missing (damage), a new :class:`Run` starts. Only every 64th
entry, or one in 64 KiB, is remembered by its offset, so the index of a segment costs a few kilobytes however small its
entries are.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "ENTRY_HEADER_BYTES",
    "FILE_HEADER_BYTES",
    "Body",
    "DamagedSegmentError",
    "Entry",
    "EntryKind",
    "Run",
    "SegmentFile",
    "SegmentWriter",
    "body_chunks",
]

_MAGIC = b"CBREC2\r\n"
_SALT_BYTES = 8
_FILE = struct.Struct("<8s8sQI4x")
_FILE_CHECKED_BYTES = 24
FILE_HEADER_BYTES = _FILE.size
_ENTRY = struct.Struct("<4sIQdQB3xI")
_CHECKED = struct.Struct("<4sIQdQB3x")
ENTRY_HEADER_BYTES = _ENTRY.size
_MAX_BODY_BYTES = 0xFFFF_FFFF
_MARK_EVERY_ENTRIES = 64
_MARK_EVERY_BYTES = 64 * 1024
_BLOCK_BYTES = 1024 * 1024
# Below this size, one joined write is cheaper than a vectored one.
_JOIN_BYTES = 64 * 1024
# Windows would translate line ends and hand the file to child processes; elsewhere the bits do not exist.
if sys.platform == "win32":
    _OPEN_BITS = os.O_BINARY | os.O_NOINHERIT
else:
    _OPEN_BITS = os.O_CLOEXEC

Body = bytes | bytearray | memoryview
"""One chunk of a body."""


class EntryKind(IntEnum):
    """What an entry holds."""

    DOWN = 0  # from the kernel; the body is a v1 websocket frame
    UP = 1  # to the kernel; a v1 frame
    NOTE = 2  # ours; a JSON object


_KINDS = tuple(EntryKind)


@dataclass(frozen=True, slots=True)
class Entry:
    """One numbered entry.

    Attributes:
        seq: Its number, from 1.
        kind: What the body is.
        time_s: Unix seconds at which it was appended.
        body: The bytes as they were given.
        origin: Its number in the record that it was copied from; 0 for none.
    """

    seq: int
    kind: EntryKind
    time_s: float
    body: bytes
    origin: int = 0


class DamagedSegmentError(Exception):
    """A segment holds something else than it held when it was written or scanned."""


class Run:
    """Entries of one file whose numbers follow each other, with a sparse index of offsets.

    Attributes:
        first: Number of the first entry.
        next: Number after the last entry.
        end: Offset behind the last entry.
    """

    __slots__ = ("_numbers", "_offsets", "end", "first", "next")

    def __init__(self, first: int, offset: int) -> None:
        self.first = self.next = first
        self.end = offset
        self._numbers = array("Q", [first])
        self._offsets = array("Q", [offset])

    def add(self, size_bytes: int) -> None:
        """Count one more entry of the given size, header included."""
        if self.end - self._offsets[-1] >= _MARK_EVERY_BYTES or self.next - self._numbers[-1] >= _MARK_EVERY_ENTRIES:
            self._numbers.append(self.next)
            self._offsets.append(self.end)
        self.next += 1
        self.end += size_bytes

    def offset_before(self, seq: int) -> int:
        """Return the offset of an entry at or shortly before number ``seq``."""
        return self._offsets[max(0, bisect_right(self._numbers, seq) - 1)]


class SegmentFile:
    """One file of a record, as far as reading goes.

    No descriptor stays open between calls, so that the file can be deleted at any time on Windows, too.

    Attributes:
        path: The file.
        first: Number in its name.
        limit: Numbers from here on belong to the next segment; None for the last one.
        size_bytes: Size of the file, for the limit of the whole record.
        damaged: Whether a scan had to skip bytes in the middle, or found the beginning to be no segment.
        origin: Highest origin of its entries and of all before it; known when ``scanned``.
        runs: What it holds; empty until :meth:`scan`, or filled by the writer.
        scanned: Whether ``runs`` is known.
    """

    __slots__ = ("damaged", "first", "limit", "origin", "path", "runs", "salt", "scanned", "size_bytes")

    def __init__(self, path: Path, first: int, size_bytes: int, *, limit: int | None = None) -> None:
        self.path = path
        self.first = first
        self.limit = limit
        self.size_bytes = size_bytes
        self.salt = b""
        self.origin = 0
        self.runs: list[Run] = []
        self.scanned = False
        self.damaged = False

    @property
    def next(self) -> int:
        """Number after the last entry; call it only when the segment is scanned."""
        return self.runs[-1].next if self.runs else self.first

    @property
    def empty(self) -> bool:
        """Whether there is no entry that can be read; call it only when the segment is scanned."""
        return self.next == self.first

    def scan(self) -> None:
        """Read the whole file, check every entry and fill ``runs``.

        Bytes behind the last intact entry are ignored. A file shorter than its header counts as empty.

        Raises:
            OSError: the file cannot be read.
        """
        with open(self.path, "rb", buffering=_BLOCK_BYTES) as file:
            self.size_bytes = os.fstat(file.fileno()).st_size
            self.runs, self.damaged, self.scanned = [], False, True
            header = file.read(FILE_HEADER_BYTES)
            if len(header) < FILE_HEADER_BYTES:
                return
            magic, self.salt, self.origin, crc = _FILE.unpack(header)
            if magic != _MAGIC or crc != zlib.crc32(header[:_FILE_CHECKED_BYTES]):
                self.damaged, self.origin = True, 0
                return
            found = _intact_entries(file, self.size_bytes, self.salt, self.first, self.limit)
            for seq, offset, size, origin in found:
                self.origin = max(self.origin, origin)
                if not self.runs or seq != self.runs[-1].next:
                    self.damaged |= bool(self.runs) or seq != self.first
                    self.runs.append(Run(seq, offset))
                self.runs[-1].add(size)

    def read(self, after: int, *, max_bytes: int, max_entries: int) -> list[Entry]:
        """Return the first entries behind ``after``, all of one run; at least one unless there is none.

        Raises:
            DamagedSegmentError: the file is not what the index says.
            OSError: the file cannot be read.
        """
        run = next((run for run in self.runs if run.next > after + 1), None)
        if run is None:
            return []
        first = max(after + 1, run.first)
        descriptor = os.open(self.path, os.O_RDONLY | _OPEN_BITS)
        try:
            return self._read_run(descriptor, run, first, max_bytes, max_entries)
        finally:
            os.close(descriptor)

    def _read_run(self, descriptor: int, run: Run, first: int, max_bytes: int, max_entries: int) -> list[Entry]:
        offset = run.offset_before(first)
        os.lseek(descriptor, offset, os.SEEK_SET)
        # So much lies before the entry at most. A long one is read below, once and into its own place.
        near = _MARK_EVERY_BYTES + ENTRY_HEADER_BYTES
        block = _read_exactly(descriptor, min(run.end - offset, near))
        if not _begins_long(block, first):
            os.lseek(descriptor, offset, os.SEEK_SET)
            block = _read_exactly(descriptor, min(run.end - offset, near + max_bytes))
        entries: list[Entry] = []
        position, taken = 0, 0
        seed = zlib.crc32(self.salt)
        while position + ENTRY_HEADER_BYTES <= len(block) and len(entries) < max_entries:
            length, seq = struct.unpack_from("<IQ", block, position + 4)
            stop = position + ENTRY_HEADER_BYTES + length
            if offset + stop > run.end:
                raise DamagedSegmentError(self.path.name)
            if seq >= first:
                if entries and taken + length > max_bytes:
                    break
                start = position + ENTRY_HEADER_BYTES
                if stop <= len(block):
                    body = block[start:stop]
                else:
                    # Read as a whole: joining two pieces would copy what may be many megabytes.
                    os.lseek(descriptor, offset + start, os.SEEK_SET)
                    body = _read_exactly(descriptor, length)
                entries.append(self._decode(block, position, body, first + len(entries), seed))
                taken += length
            position = stop
        if not entries:
            raise DamagedSegmentError(self.path.name)
        return entries

    def _decode(self, block: bytes, position: int, body: bytes, expected: int, seed: int) -> Entry:
        marker, _, seq, time_s, origin, kind, crc = _ENTRY.unpack_from(block, position)
        actual = zlib.crc32(body, zlib.crc32(block[position : position + _CHECKED.size], seed))
        if crc != actual or seq != expected or marker != self.salt[:4] or kind >= len(_KINDS):
            raise DamagedSegmentError(self.path.name)
        return Entry(seq, _KINDS[kind], time_s, body, origin)


class SegmentWriter:
    """Appends to one segment file.

    Attributes:
        segment: The file, whose index grows with each entry.
    """

    __slots__ = ("_descriptor", "_marker", "_seed", "segment")

    def __init__(self, segment: SegmentFile, descriptor: int) -> None:
        self.segment = segment
        self._descriptor = descriptor
        self._marker = segment.salt[:4]
        self._seed = zlib.crc32(segment.salt)

    @classmethod
    def create(cls, path: Path, first: int, origin: int) -> SegmentWriter:
        """Make a new file, in place of one of the same name that holds no entry.

        Args:
            path: The file.
            first: Number of its first entry.
            origin: Highest origin of all entries before it.

        Raises:
            OSError: there is no room or no permission; nothing is left behind then.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _OPEN_BITS, 0o600)
        segment = SegmentFile(path, first, FILE_HEADER_BYTES)
        segment.salt = secrets.token_bytes(_SALT_BYTES)
        segment.origin = origin
        segment.scanned = True
        checked = _MAGIC + segment.salt + origin.to_bytes(8, "little")
        try:
            _write_all(descriptor, checked + zlib.crc32(checked).to_bytes(4, "little") + bytes(4))
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        segment.runs.append(Run(first, FILE_HEADER_BYTES))
        return cls(segment, descriptor)

    @classmethod
    def adopt(cls, segment: SegmentFile) -> SegmentWriter:
        """Go on behind the last intact entry of a scanned segment; what follows it is cut off.

        Raises:
            OSError: the file cannot be opened for writing or cut.
        """
        descriptor = os.open(segment.path, os.O_RDWR | _OPEN_BITS)
        try:
            end = segment.runs[-1].end
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
        except OSError:
            os.close(descriptor)
            raise
        segment.size_bytes = end
        return cls(segment, descriptor)

    def append(self, seq: int, kind: EntryKind, time_s: float, chunks: Sequence[Body], length: int, origin: int) -> int:
        """Write one entry and return its size in bytes, header included.

        Raises:
            OSError: it could not be written; the file ends where it ended before, or has bytes behind its end that a
                later scan ignores.
        """
        checked = _CHECKED.pack(self._marker, length, seq, time_s, origin, kind)
        crc = zlib.crc32(checked, self._seed)
        for chunk in chunks:
            crc = zlib.crc32(chunk, crc)
        header = checked + crc.to_bytes(4, "little")
        try:
            if length <= _JOIN_BYTES:
                _write_all(self._descriptor, b"".join((header, *chunks)))
            else:
                self._write_chunks(header, chunks)
        except OSError:
            self._cut()
            raise
        size = ENTRY_HEADER_BYTES + length
        self.segment.runs[-1].add(size)
        self.segment.origin = max(self.segment.origin, origin)
        self.segment.size_bytes += size
        return size

    def _write_chunks(self, header: bytes, chunks: Sequence[Body]) -> None:
        """Write a long body: short chunks together, long ones as they are."""
        short: list[Body] = [header]
        for chunk in chunks:
            if len(chunk) <= _JOIN_BYTES:
                short.append(chunk)
                continue
            _write_all(self._descriptor, b"".join(short))
            short.clear()
            _write_all(self._descriptor, chunk)
        _write_all(self._descriptor, b"".join(short))

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _cut(self) -> None:
        end = self.segment.runs[-1].end
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)


def body_chunks(body: Body | Sequence[Body]) -> tuple[list[Body], int]:
    """Return a body as a list of flat chunks, and its length in bytes.

    Raises:
        ValueError: it is longer than the format can say (4 GiB).
    """
    given = [body] if isinstance(body, (bytes, bytearray, memoryview)) else body
    chunks = [chunk.cast("B") if isinstance(chunk, memoryview) else chunk for chunk in given]
    length = sum(len(chunk) for chunk in chunks)
    if length > _MAX_BODY_BYTES:
        raise ValueError(f"an entry of {length} bytes is too long for the record")
    return chunks, length


def _begins_long(block: bytes, first: int) -> bool:
    """Return whether the entry ``first``, or the one after it where that is missing, goes on behind a block."""
    position = 0
    while position + ENTRY_HEADER_BYTES <= len(block):
        length, seq = struct.unpack_from("<IQ", block, position + 4)
        position += ENTRY_HEADER_BYTES + length
        if seq >= first:
            return bool(position > len(block))
    return False


def _write_all(descriptor: int, data: Body) -> None:
    written = os.write(descriptor, data)
    if written == len(data):
        return
    view = memoryview(data)
    while written < len(view):
        written += os.write(descriptor, view[written:])


def _read_exactly(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    if len(data) == size:
        return data
    parts = [data]
    missing = size - len(data)
    while missing:
        part = os.read(descriptor, missing)
        if not part:
            raise DamagedSegmentError("the file is shorter than it was")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _intact_entries(
    file: BinaryIO, size_bytes: int, salt: bytes, low: int, limit: int | None
) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, offset, size and origin of each intact entry with numbers that rise from ``low``."""
    high = limit if limit is not None else 1 << 63
    marker, seed = salt[:4], zlib.crc32(salt)
    position, base, block = FILE_HEADER_BYTES, 0, memoryview(b"")
    while position + ENTRY_HEADER_BYTES <= size_bytes:
        at = position - base
        if at + ENTRY_HEADER_BYTES > len(block):
            at, base, block = 0, position, _block_at(file, position)
            if len(block) < ENTRY_HEADER_BYTES:
                return
        found, length, seq, _, origin, kind, crc = _ENTRY.unpack_from(block, at)
        size = ENTRY_HEADER_BYTES + length
        good = found == marker and kind < len(_KINDS) and low <= seq < high and position + size <= size_bytes
        if good:
            if at and at + size > len(block):
                at, base, block = 0, position, _block_at(file, position)
            actual = zlib.crc32(block[at : at + _CHECKED.size], seed)
            actual = zlib.crc32(block[at + ENTRY_HEADER_BYTES : at + size], actual)
            good = crc == _crc_behind(file, base + len(block), position + size, actual)
        if good:
            yield seq, position, size, origin
            low = seq + 1
            position += size
        else:
            position = _find_marker(file, position + 1, marker)
            if position < 0:
                return


def _block_at(file: BinaryIO, position: int) -> memoryview:
    file.seek(position)
    return memoryview(file.read(_BLOCK_BYTES))


def _crc_behind(file: BinaryIO, position: int, end: int, crc: int) -> int:
    """Go on with a checksum over what lies between two offsets; nothing to do when ``end`` comes first."""
    if position < end:
        file.seek(position)
    while position < end:
        block = file.read(min(end - position, _BLOCK_BYTES))
        if not block:
            return -1
        crc = zlib.crc32(block, crc)
        position += len(block)
    return crc


def _find_marker(file: BinaryIO, position: int, marker: bytes) -> int:
    """Return the offset of the next marker at or behind ``position``; -1 when there is none."""
    file.seek(position)
    tail = b""
    while block := file.read(_BLOCK_BYTES):
        at = (tail + block).find(marker)
        if at >= 0:
            return position - len(tail) + at
        position += len(block)
        tail = (tail + block)[-(len(marker) - 1) :]
    return -1
