"""A large file under way: its bytes so far, and a list of the ranges that are there.

``<digest>.part`` holds the bytes at their places, ``<digest>.map`` one record for each range that was written, with a
hash of what was written. Both survive a restart, so a cut costs at most the chunk that was under way; a range whose
bytes are not what the record says (a power cut, a bad disk) is found when the file is finished, and fetched again.

Map, big-endian: ``size u64``, then ``offset u64 | length u64 | blake2b-128``; the hash of copied ranges is zero.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from itertools import pairwise

from ..transfer.patch import Copy
from ..transfer.signatures import WORKERS, read_at
from ..transfer.trail import Hashing, Mark, Trail
from .ahead import COPY_BYTES, copy_some
from .place import Calls
from .platform_folder import Folder

__all__ = ["MAP_SUFFIX", "PART_SUFFIX", "Part", "hash_file"]

PART_SUFFIX = ".part"
MAP_SUFFIX = ".map"
_HEAD = struct.Struct(">Q")
_RECORD = struct.Struct(">QQ16s")
_COPIED = bytes(16)
_BUFFER_BYTES = 2**20
_MAX_MAP_BYTES = 64 * 2**20

Record = tuple[int, int, bytes]


def hash_file(calls: Calls, fd: int, key: bytes) -> bytes:
    """Return the keyed digest of an open file, from its position to its end.

    Args:
        calls: Through which it is read.
        fd: Open for reading.
        key: Key of the pairing.
    """
    state = blake2b(digest_size=32, key=key)
    while data := calls.read(fd, _BUFFER_BYTES):
        state.update(data)
    return state.digest()


def _short_hash(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _gaps(records: Iterable[Record], size: int) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    position = 0
    for offset, length, _ in sorted(records):
        if offset > position:
            out.append((position, offset - position))
        position = max(position, offset + length)
    if position < size:
        out.append((position, size - position))
    return out


class _Gaps:
    """Ranges that are missing, ascending."""

    def __init__(self, missing: Sequence[tuple[int, int]]) -> None:
        self._starts = [offset for offset, _ in missing]
        self._ends = [offset + length for offset, length in missing]

    def touch(self, copy: Copy) -> bool:
        """Return whether any of the range is missing."""
        index = bisect_left(self._starts, copy.target + copy.length) - 1
        return index >= 0 and self._ends[index] > copy.target

    def hold(self, copy: Copy) -> bool:
        """Return whether all of the range is missing."""
        index = bisect_right(self._starts, copy.target) - 1
        return index >= 0 and self._ends[index] >= copy.target + copy.length


def _are_apart(copies: Sequence[Copy]) -> bool:
    return all(one.target + one.length <= two.target for one, two in pairwise(copies))


class Part:
    """One large file under way; open until :meth:`close`.

    Args:
        calls: File-system calls.
        folder: The stage.
        digest: What it will be.
        size: Its length in bytes; a map of another length is thrown away.
        key: Key of the pairing.
        ahead: What was copied into the file before anybody knew what it will be; nothing of it counts as there.
    """

    def __init__(
        self, calls: Calls, folder: Folder, digest: bytes, size: int, key: bytes, ahead: Copy | None = None
    ) -> None:
        self._calls = calls
        self._folder = folder
        self._ahead = ahead
        self._digest = digest
        self._key = key
        self._name = digest.hex()
        self.size = size
        # What went through it while it was written; everything before its place is there.
        self._hashing = Hashing(key)
        self._records: list[Record] = []
        self._stamp = (0, 0)
        self._fd = calls.create(folder, self._name + PART_SUFFIX, os.O_RDWR)
        try:
            self._map = calls.create(folder, self._name + MAP_SUFFIX, os.O_RDWR)
            try:
                self._load()
            except BaseException:
                os.close(self._map)
                raise
        except BaseException:
            os.close(self._fd)
            raise

    def _load(self) -> None:
        raw = self._calls.read(self._map, _MAX_MAP_BYTES)
        there = os.fstat(self._fd).st_size
        if raw[: _HEAD.size] == _HEAD.pack(self.size) and there <= self.size:
            whole = (len(raw) - _HEAD.size) // _RECORD.size * _RECORD.size
            for offset, length, short in _RECORD.iter_unpack(raw[_HEAD.size : _HEAD.size + whole]):
                if offset + length <= there:
                    self._records.append((offset, length, short))
        self._rewrite()

    def _rewrite(self) -> None:
        self._calls.truncate(self._map, 0)
        self._calls.seek(self._map, 0)
        rows = b"".join(_RECORD.pack(*record) for record in self._records)
        self._calls.write(self._map, _HEAD.pack(self.size) + rows)
        if not self._records:
            # Bytes that were copied ahead may stay, as far as there can be any.
            most = 0 if self._ahead is None else min(self.size, self._ahead.target + self._ahead.length)
            self._calls.truncate(self._fd, most)
        self._stamp = self._stamp_now()

    def _note(self, offset: int, length: int, short: bytes) -> None:
        self._calls.write(self._map, _RECORD.pack(offset, length, short))
        self._records.append((offset, length, short))

    def put(self, offset: int, data: bytes | memoryview) -> None:
        """Write a range.

        Raises:
            ValueError: it is not inside the file.
            OSError: it could not be written; it still counts as missing.
        """
        if offset < 0 or not len(data) or offset + len(data) > self.size:
            raise ValueError("the chunk does not lie inside the file")
        self._write(offset, data, _short_hash(data))

    def _write(self, offset: int, data: bytes | memoryview, short: bytes) -> None:
        self._doubt(offset)
        self._calls.seek(self._fd, offset)
        self._calls.write(self._fd, data)
        if offset == self._hashing.offset:
            self._hashing.update(data)
        self._calls.start_writing_out(self._fd, offset, len(data))
        self._stamp = self._stamp_now()
        self._note(offset, len(data), short)

    def _stamp_now(self) -> tuple[int, int]:
        """What changes when anybody else writes: then nothing that was hashed while it was written counts."""
        seen = os.fstat(self._fd)
        return seen.st_mtime_ns, seen.st_ctime_ns

    def fill(self, copies: Iterable[Copy], source: int, marks: Sequence[Mark] = ()) -> None:
        """Take ranges out of an older file; what is complete from the start on is hashed meanwhile.

        So it is best called when the other ranges are there already.

        Args:
            copies: Ranges; those that do not fit are left out and stay missing.
            source: The older file, open for reading.
            marks: States of the hash of the older file, where it is proven that it has not changed since: what is
                copied from its front need not be hashed again.

        Raises:
            OSError: a file could not be read or written.
        """
        missing = _Gaps(self.missing())
        wanted = [copy for copy in copies if copy.target + copy.length <= self.size and missing.touch(copy)]
        # While one thread hashes, the other may only write where nothing is yet.
        follow = WORKERS > 1 and _are_apart(wanted) and all(missing.hold(copy) for copy in wanted)
        with ThreadPoolExecutor(1) as beside:
            for copy in wanted:
                self._doubt(copy.target)
                front = copy.source == copy.target == self._hashing.offset == 0
                known = [mark for mark in marks if front and mark[0] <= copy.length]
                done = self._take_ahead(copy, missing)
                since = 0
                if follow and not known and done:
                    beside.submit(self._hash_up_to, self._complete_up_to())
                while done < copy.length:
                    rest = Copy(copy.source + done, copy.target + done, copy.length - done)
                    count = copy_some(self._calls, source, self._fd, rest)
                    if not count:
                        break
                    self._stamp = self._stamp_now()
                    self._note(copy.target + done, count, _COPIED)
                    done += count
                    since += count
                    beside.submit(self._calls.start_writing_out, self._fd, copy.target + done - count, count)
                    if follow and not known and since >= COPY_BYTES:
                        beside.submit(self._hash_up_to, self._complete_up_to())
                        since = 0
                if known and done == copy.length:
                    self._hashing = Hashing(self._key, known)
        self._ahead = None

    def _take_ahead(self, copy: Copy, missing: _Gaps) -> int:
        """Take a range that was copied ahead as there; returns how many bytes of its front were."""
        ahead = self._ahead
        if ahead is None or copy.source - copy.target != ahead.source - ahead.target or copy.target < ahead.target:
            return 0
        count = min(copy.length, ahead.target + ahead.length - copy.target)
        if count <= 0 or not missing.hold(Copy(copy.source, copy.target, count)):
            # Nothing, or something else has been written there since.
            return 0
        self._note(copy.target, count, _COPIED)
        return count

    def forget_ahead(self) -> None:
        """Have everything copied that is to be copied: what was copied ahead was of something else."""
        self._ahead = None

    def hash_anew(self) -> None:
        """Hash everything in the end: the older file was not what its marks belong to."""
        self._hashing = Hashing(self._key)

    def _complete_up_to(self) -> int:
        missing = self.missing()
        return missing[0][0] if missing else self.size

    def _hash_up_to(self, end: int) -> None:
        """Hash on in a thread of its own; whatever goes wrong is met again when the file is checked."""
        with suppress(OSError):
            state = self._hashing
            while left := max(0, end - state.offset):
                data = read_at(self._fd, min(_BUFFER_BYTES, left), state.offset)
                if not data:
                    break
                state.update(data)

    def _doubt(self, offset: int) -> None:
        """What is hashed already is written anew, or somebody else has written: all is hashed again at the end."""
        if offset < self._hashing.offset or self._stamp != self._stamp_now():
            self._hashing = Hashing(self._key)

    def missing(self) -> list[tuple[int, int]]:
        """Return the ranges (offset, length in bytes) that are not there."""
        return _gaps(self._records, self.size)

    def check(self) -> bool:
        """Return whether the whole file has its digest; otherwise forget the ranges that are wrong.

        Damaged chunks are missing again afterwards, copied ranges too; when every chunk is what was written, all are.

        Raises:
            OSError: the file could not be read.
        """
        self._doubt(self._hashing.offset)
        state = self._hashing
        self._calls.seek(self._fd, state.offset)
        while data := self._calls.read(self._fd, _BUFFER_BYTES):
            state.update(data)
        if state.digest() == self._digest and os.fstat(self._fd).st_size == self.size:
            self._calls.written(self._fd, self._folder)
            return True
        good = [record for record in self._records if record[2] != _COPIED and self._is_good(record)]
        self._records = good if len(good) < len(self._records) else []
        self._hashing = Hashing(self._key)
        self._rewrite()
        return False

    def trail(self) -> Trail:
        """Return what hashing a verified file has left behind."""
        return Trail(self._digest, self.size, self._hashing.marks())

    def _is_good(self, record: Record) -> bool:
        offset, length, short = record
        state = blake2b(digest_size=16)
        self._calls.seek(self._fd, offset)
        while length and (data := self._calls.read(self._fd, min(length, _BUFFER_BYTES))):
            state.update(data)
            length -= len(data)
        return not length and state.digest() == short

    def close(self) -> None:
        """Let go of the files; they stay."""
        os.close(self._fd)
        os.close(self._map)
