"""The numbered record of everything that passed for one kernel; the daemon and the agent keep one each.

Whatever a viewer sees comes from here, so a viewer can vanish and come back with the number it saw last. An entry is in
the page cache of the operating system when :meth:`Record.append` returns: killing the process loses nothing,
while a power cut may lose the last seconds, since no entry waits for the disk. After a power cut numbers may therefore
be given a second time.

On disk the record is a folder (0700) of segment files (0600), see :mod:`.record_segment`. The
oldest file goes when the whole exceeds its limit. What is damaged is skipped and leaves a gap in the numbers: a file
with damage in the middle stays as it is and is never written again; one that is no segment at all is renamed to
``*.damaged``.

While the disk cannot be written, entries go to a ring in memory and the numbers go on; see
:attr:`Record.degraded`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import re
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .record_memory import KeptEntries
from .record_segment import (
    ENTRY_HEADER_BYTES,
    Body,
    DamagedSegmentError,
    Entry,
    EntryKind,
    SegmentFile,
    SegmentWriter,
    body_chunks,
)

if TYPE_CHECKING:
    from typing import Self  # Python 3.10 has none

__all__ = ["Entry", "EntryKind", "Record", "RecordUnreadable"]

log = logging.getLogger(__name__)

_SEGMENT_BYTES = 32 * 1024 * 1024
_MAX_BYTES = 1024 * 1024 * 1024
_RING_BYTES = 8 * 1024 * 1024
# Seconds between two attempts to write to a disk that refused; one attempt may write the whole ring.
_RETRY_S = 1.0
_NAME = re.compile(r"(\d{20})\.rec(\.damaged)?\Z")
_MAX_ORIGIN = 2**64 - 1
# The fewest bytes that an entry had in any version of the format.
_SMALLEST_ENTRY_BYTES = 32
# The newest entries that are kept in memory as well, for readers that are up to date; each kernel has a record.
_RECENT_BYTES = 64 * 1024
_RECENT_ENTRY_BYTES = 8 * 1024
# After this much the guard of the disk is asked again.
_GUARDED_BYTES = 1024 * 1024
# These say that the file is gone or unreadable for good; others (too many open files) may pass.
_LASTING = {errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP}


class RecordUnreadable(Exception):
    """A file of the record cannot be opened just now, for example because too many are open."""


class Monotonic(Protocol):
    """A clock that never goes back."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        ...


class Record:
    """Append-only log of one kernel's messages; made by :meth:`open`, used from one thread, the event loop's.

    One process writes a record at a time (the lock of the daemon or the agent sees to that). The files of a predecessor
    that was killed are taken over.

    Attributes:
        folder: Where it lives.
        next_seq: Number that the next entry gets; numbers start at 1.
        closed: Whether :meth:`close` was called; reading still works then.
        degraded: Empty, or one line saying why entries are kept in memory only.
        last_origin: Highest origin of all entries that were ever in the record, as far as its files tell; 0 for none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        max_bytes: int,
        ring_bytes: int,
        recent_bytes: int,
        clock: Monotonic,
        guard: Callable[[], None] | None,
    ) -> None:
        self.folder = folder
        self.next_seq = 1
        self.closed = False
        self.degraded = ""
        self.last_origin = 0
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._clock = clock
        self._guard = guard
        self._guarded_bytes = 0
        self._segments: list[SegmentFile] = []
        self._total_bytes = 0
        self._writer: SegmentWriter | None = None
        self._ring = KeptEntries(ring_bytes)
        self._retry_at = 0.0
        self._recent = KeptEntries(recent_bytes)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        segment_bytes: int = _SEGMENT_BYTES,
        max_bytes: int = _MAX_BYTES,
        ring_bytes: int = _RING_BYTES,
        recent_bytes: int = _RECENT_BYTES,
        clock: Monotonic | None = None,
        guard: Callable[[], None] | None = None,
    ) -> Self:
        """Create a record, or take over what a predecessor left.

        Only the newest segment is checked now; the others are when they are first read. An entry that was being written
        when its writer died is cut off. A folder that cannot be used is no error: the record is then :attr:`degraded`.

        Args:
            folder: A folder of the record's own; made when absent.
            segment_bytes: Size at which a new file is begun; a single larger entry gets a file of its own.
            max_bytes: Size of all files above which the oldest goes.
            ring_bytes: Memory for entries that the disk refused.
            recent_bytes: Memory for the newest small entries: a reader that is up to date needs no file then.
            clock: Monotonic time for the retries after such a refusal.
            guard: Asked before about each MiB; raises OSError when the disk must not be filled any further, which is
                like a disk that is full.
        """
        record = cls(
            folder,
            segment_bytes=segment_bytes,
            max_bytes=max_bytes,
            ring_bytes=ring_bytes,
            recent_bytes=recent_bytes,
            clock=clock or time,
            guard=guard,
        )
        try:
            record._recover()
        except OSError as error:
            record._degrade(error)
        return record

    @staticmethod
    def delete(folder: Path) -> bool:
        """Remove a record for good, and return whether nothing of it is left.

        Close it first: Windows does not delete files that are open. A record that was not there counts as removed.
        """
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    @property
    def first_seq(self) -> int:
        """Number of the oldest entry that can be read; ``next_seq`` when there is none."""
        for segment in self._segments:
            if not segment.scanned:
                return segment.first
            if not segment.empty:
                return segment.runs[0].first
        return self._ring.first.seq if self._ring else self.next_seq

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, files with damage included, renamed ones not."""
        return self._total_bytes

    def gaps(self) -> list[tuple[int, int]]:
        """Return first and last number of each gap known so far between ``first_seq`` and ``next_seq``.

        Segments that nobody has read since the record was opened are taken to be whole.
        """
        spans = [span for segment in self._segments for span in _spans(segment)]
        if self._ring:
            spans.append((self._ring.first.seq, self.next_seq))
        spans.append((self.next_seq, self.next_seq))
        return [(one[1], two[0] - 1) for one, two in itertools.pairwise(spans) if one[1] < two[0]]

    def append(self, kind: EntryKind, body: Body | Sequence[Body], time_s: float, *, origin: int = 0) -> int:
        """Write an entry and wake those who wait.

        Never fails for want of a disk, see :attr:`degraded`.

        Args:
            kind: What the body is.
            body: The bytes, or chunks that follow each other; copied only when they must be kept in memory.
            time_s: Unix seconds.
            origin: Number of the entry in the record that it is copied from, less than 2**64; 0 for none.

        Returns:
            The number of the entry.

        Raises:
            ValueError: the record is closed, the body is longer than 4 GiB, or the origin is no such number.
        """
        if self.closed:
            raise ValueError("the record is closed")
        if not 0 <= origin <= _MAX_ORIGIN:
            raise ValueError(f"{origin} cannot be an origin")
        chunks, length = body_chunks(body)
        if length <= _RECENT_ENTRY_BYTES and len(chunks) > 1:
            chunks = [b"".join(chunks)]
        seq = self.next_seq
        if not self.degraded or (self._clock.monotonic() >= self._retry_at and self._resume()):
            try:
                self._write(seq, kind, time_s, chunks, length, origin)
            except OSError as error:
                self._degrade(error)
        if self.degraded:
            self._ring.add(Entry(seq, kind, time_s, b"".join(chunks), origin))
        elif length > _RECENT_ENTRY_BYTES or not self._recent.most_bytes:
            self._recent.clear()  # the newest ones, without a gap
        else:
            self._recent.add(Entry(seq, kind, time_s, b"".join(chunks), origin))
        self.next_seq = seq + 1
        self.last_origin = max(self.last_origin, origin)
        self._wake()
        return seq

    def read(self, after: int, *, max_bytes: int = 256 * 1024, max_entries: int = 2000) -> list[Entry]:
        """Return the next entries in order.

        Where numbers are missing, the first entry has a number larger than ``after + 1``; within one list they never
        jump.

        Args:
            after: Number of the last entry that the caller has; 0 for none.
            max_bytes: Limit for the bodies together; one entry is returned whatever its size.
            max_entries: Limit for their number, at least 1.

        Returns:
            At least one entry if there is one behind ``after``; fewer than the limits allow is possible.

        Raises:
            RecordUnreadable: a file cannot be opened just now, for example because too many are open.
        """
        max_entries = max(1, max_entries)
        after = max(0, after)
        if self._recent and self._recent.first.seq <= after + 1 < self.next_seq:
            return self._recent.read(after, max_bytes, max_entries)
        while after + 1 < self.next_seq:
            index = self._segment_for(after)
            if index is None:
                return self._ring.read(after, max_bytes, max_entries)
            entries = self._read_segment(self._segments[index], after, max_bytes, max_entries)
            if entries:
                return entries
        return []

    def lift(self, next_seq: int) -> None:
        """Give no number below ``next_seq`` any more; one that is not above the present one changes nothing."""
        if next_seq > self.next_seq:
            self._seal()
            self._recent.clear()
            self.next_seq = next_seq

    def set_limit(self, max_bytes: int) -> None:
        """Change the size of all files above which the oldest goes."""
        self._max_bytes = max_bytes
        self._trim()

    def drop_oldest(self) -> bool:
        """Delete the oldest file, unless it is the only one; return whether there was one to delete."""
        if len(self._segments) < 2:
            return False
        self._forget(self._segments[0])
        return True

    def close(self) -> None:
        """Stop writing and give the file back; a second call does nothing.

        What is in memory only is offered to the disk once more.
        """
        if self.closed:
            return
        if self.degraded and self._ring:
            self._resume()
        self._seal()
        self._recent.clear()
        self.closed = True
        self._wake()

    def _recover(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._list_segments()
        while self._segments:
            last = self._segments[-1]
            last.scan()
            if not last.empty:
                break
            if last.damaged:
                self.next_seq = max(self.next_seq, _number_above(last.first, last.size_bytes))
            self._drop(last)
        if self._segments:
            self._take_over(self._segments[-1])
        self._trim()

    def _list_segments(self) -> None:
        """Fill the list of segments from the names, and set ``next_seq`` above all that renamed files may have held."""
        with os.scandir(self.folder) as found:
            names = sorted(
                (entry.name, entry.stat(follow_symlinks=False).st_size) for entry in found if entry.is_file()
            )
        lost_above = 1
        for name, size in names:
            match = _NAME.match(name)
            if match is None:
                continue
            first = max(1, int(match[1]))
            if match[2]:
                lost_above = _number_above(first, size)
                continue
            if self._segments:
                self._segments[-1].limit = first
            self._segments.append(SegmentFile(self.folder / name, first, size))
            self._total_bytes += size
            lost_above = first
        self.next_seq = lost_above

    def _take_over(self, last: SegmentFile) -> None:
        following = last.next >= self.next_seq
        self.next_seq = max(self.next_seq, last.next)
        self.last_origin = last.origin
        if last.damaged or not following:
            return
        before = last.size_bytes
        self._writer = SegmentWriter.adopt(last)
        self._total_bytes += last.size_bytes - before

    def _write(
        self, seq: int, kind: EntryKind, time_s: float, chunks: Sequence[Body], length: int, origin: int
    ) -> None:
        size = ENTRY_HEADER_BYTES + length
        self._ask_guard(size)
        writer = self._writer
        if writer is None or (not writer.segment.empty and writer.segment.size_bytes + size > self._segment_bytes):
            writer = self._begin_segment(seq)
        self._total_bytes += writer.append(seq, kind, time_s, chunks, length, origin)
        if self._total_bytes > self._max_bytes:
            self._trim()

    def _ask_guard(self, size: int) -> None:
        self._guarded_bytes -= size
        if self._guard is not None and self._guarded_bytes < 0:
            self._guard()
            self._guarded_bytes = _GUARDED_BYTES

    def _begin_segment(self, first: int) -> SegmentWriter:
        writer = SegmentWriter.create(self.folder / f"{first:020d}.rec", first, self.last_origin)
        self._seal()
        self._writer = writer
        if self._segments:
            self._segments[-1].limit = first
        self._segments.append(writer.segment)
        self._total_bytes += writer.segment.size_bytes
        return writer

    def _seal(self) -> None:
        """End the current file; one without an entry goes."""
        if self._writer is None:
            return
        segment = self._writer.segment
        self._writer.close()
        self._writer = None
        if segment.empty:
            self._drop(segment)

    def _trim(self) -> None:
        while self._total_bytes > self._max_bytes and len(self._segments) > 1:
            self._forget(self._segments[0])

    def _forget(self, segment: SegmentFile) -> None:
        self._recent.clear()
        self._segments.remove(segment)
        self._total_bytes -= segment.size_bytes
        # A file that another program holds open on Windows stays, and is found and removed at the next start.
        with contextlib.suppress(OSError):
            segment.path.unlink()

    def _drop(self, segment: SegmentFile) -> None:
        """Take a segment without a readable entry out of the record; bytes worth a look are kept under another name."""
        self._segments.remove(segment)
        self._total_bytes -= segment.size_bytes
        with contextlib.suppress(OSError):
            if segment.damaged:
                log.warning("record segment unreadable", extra={"segment": str(segment.path)})
                os.replace(segment.path, f"{segment.path}.damaged")
            else:
                segment.path.unlink()

    def _degrade(self, error: OSError) -> None:
        """Go on in memory. The entry in flight is not on disk, and the file's index does not know it."""
        reason = error.strerror or type(error).__name__
        if not self.degraded:
            log.warning("record kept in memory", extra={"folder": str(self.folder), "reason": reason})
        self.degraded = f"output is kept in memory only, because {self.folder} cannot be written: {reason}"
        self._retry_at = self._clock.monotonic() + _RETRY_S
        self._recent.clear()
        self._seal()

    def _resume(self) -> bool:
        """Try to bring the ring to the disk; return whether writing works again."""
        reason, self.degraded = self.degraded, ""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            while self._ring:
                entry = self._ring.first
                self._write(entry.seq, entry.kind, entry.time_s, [entry.body], len(entry.body), entry.origin)
                self._ring.drop_first()
        except OSError as error:
            self.degraded = reason
            self._degrade(error)
            return False
        log.info("record written to disk again", extra={"folder": str(self.folder)})
        return True

    def _segment_for(self, after: int) -> int | None:
        """Return the index of the segment to read from; None when what follows is in the ring, if anywhere."""
        index = max(0, bisect_right(self._segments, after + 1, key=lambda segment: segment.first) - 1)
        while index < len(self._segments):
            segment = self._segments[index]
            if not segment.scanned or segment.next > after + 1:
                return index
            index += 1
        return None

    def _read_segment(self, segment: SegmentFile, after: int, max_bytes: int, max_entries: int) -> list[Entry]:
        """Read from one segment; an empty list means that it holds nothing behind ``after``, or has left the record."""
        rescanned = not segment.scanned
        while True:
            try:
                if not segment.scanned:
                    self._scan(segment)
                return segment.read(after, max_bytes=max_bytes, max_entries=max_entries) if segment.runs else []
            except DamagedSegmentError:
                self._seal_if_current(segment)
                if rescanned:
                    self._lose(segment)
                    return []
                segment.scanned, rescanned = False, True
            except OSError as error:
                if error.errno not in _LASTING:
                    raise RecordUnreadable(f"the record cannot be read now: {error.strerror}") from error
                self._seal_if_current(segment)
                self._lose(segment)
                return []

    def _scan(self, segment: SegmentFile) -> None:
        before = segment.size_bytes
        segment.scan()
        self._total_bytes += segment.size_bytes - before
        if segment.empty:
            self._drop(segment)

    def _seal_if_current(self, segment: SegmentFile) -> None:
        if self._writer is not None and self._writer.segment is segment:
            self._seal()

    def _lose(self, segment: SegmentFile) -> None:
        segment.damaged = True
        if segment in self._segments:
            self._drop(segment)

    def _wake(self) -> None:
        """Learn that there is something new, or that the record was closed; for subclasses."""


def _spans(segment: SegmentFile) -> list[tuple[int, int]]:
    """Return first number and number after the last, for each run of a segment."""
    if not segment.scanned:
        return [(segment.first, segment.limit or segment.first)]
    return [(run.first, run.next) for run in segment.runs if run.next > run.first]


def _number_above(first: int, size_bytes: int) -> int:
    """Return a number that no entry of an unreadable file can have had, so that none is given twice."""
    return first + max(1, size_bytes // _SMALLEST_ENTRY_BYTES)
