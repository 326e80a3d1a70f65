"""Sends a journal down a stream, at the pace of whoever reads there.

Each stream has its own place in the journal. One that keeps up gets new entries as they are written; one that does not
gets them from the disk later, so that a slow or absent daemon costs no memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from ..faults import ChannelError
from ..process.service import ServerStream
from ..record import Entry, EntryKind, RecordUnreadable
from .journal import Journal

__all__ = ["JournalReader"]

log = logging.getLogger(__name__)

PIECE_BYTES = 256 * 1024
# Room for the header of a message.
_HEADER_BYTES = 1024
_BATCH_BYTES = 1024 * 1024
_TURN_BYTES = 2 * 1024 * 1024
# A longer entry is given up after this many seconds of waiting, and read again when there is room.
_LONG_BYTES = 1024 * 1024
_HOLD_S = 5.0
_RETRY_S = 1.0
# For so long an entry that is not urgent waits for one that is, and at most so much of them.
_COMPANY_S = 0.005
_COMPANY_BYTES = 16 * 1024
_COMPANY_ENTRIES = 16


class JournalReader:
    """One stream's way through the journal.

    Attributes:
        cursor: Number of the last entry that was handed to the stream as a whole.

    Args:
        stream: Where entries go.
        loop: The event loop.
    """

    def __init__(self, stream: ServerStream, loop: asyncio.AbstractEventLoop) -> None:
        self.cursor = max(0, stream.resume_from - 1)
        self._stream = stream
        self._loop = loop
        self._journal: Journal | None = None
        self._batch: deque[Entry] = deque()
        self._sent_bytes = 0  # of the entry that is being sent
        self._torn = 0  # its number, while only a part of it has been sent
        self._blocked = False
        self._timer: asyncio.TimerHandle | None = None
        self._company: asyncio.TimerHandle | None = None
        self._closed = False

    def begin(self, journal: Journal) -> None:
        """Start to send."""
        if not self._closed:
            self._journal = journal
            journal.add_reader(self)
            self.pump()

    def close(self) -> None:
        """End; nothing is sent any more."""
        self._closed = True
        if self._journal is not None:
            self._journal.remove_reader(self)
        self._stop_timer()
        self._batch.clear()

    @property
    def is_held_up(self) -> bool:
        """Whether entries wait for room, or for another turn."""
        return self._blocked or self._timer is not None

    def offer(self, number: int, kind: EntryKind, time_s: float, body: Sequence[bytes], *, urgent: bool) -> None:
        """Send a new entry at once if everything before it has been sent and there is room; later otherwise.

        One that is not urgent waits a moment for others: each sending on its own takes a turn of five processes, for
        which the answer that follows would have to wait.
        """
        if self._closed or self.is_held_up:
            return
        if number == (self._batch[-1].seq if self._batch else self.cursor) + 1:
            self._batch.append(Entry(number, kind, time_s, b"".join(body)))
        if urgent or sum(map(len, body)) > _COMPANY_BYTES or len(self._batch) >= _COMPANY_ENTRIES:
            self.pump()
        elif self._company is None:
            self._company = self._loop.call_later(_COMPANY_S, self.pump)

    def writable(self) -> None:
        """Go on, because there is room again."""
        if self._blocked:
            self._blocked = False
            self._stop_timer()
            self.pump()

    def pump(self) -> None:
        """Send until there is no room or nothing more; leave the loop to others in between."""
        self._stop_timer()
        budget = _TURN_BYTES
        while not self._blocked and not self._closed and budget > 0:
            if not self._batch and not self._fetch():
                return
            budget -= self._send_piece()
        if budget <= 0 and not self._blocked and not self._closed:
            self._timer = self._loop.call_later(0, self.pump)

    def _fetch(self) -> bool:
        journal = self._journal
        if journal is None:
            return False
        try:
            self._batch.extend(journal.record.read(self.cursor, max_bytes=_BATCH_BYTES, max_entries=500))
        except RecordUnreadable as error:
            log.warning("journal cannot be read now", extra={"why": str(error)})
            self._timer = self._loop.call_later(_RETRY_S, self.pump)
        return bool(self._batch)

    def _send_piece(self) -> int:
        """Send the next piece of the next entry; return its size, or note that there is no room."""
        entry = self._batch[0]
        if self._torn and entry.seq != self._torn:
            return self._end_torn(entry)
        piece = memoryview(entry.body)[self._sent_bytes : self._sent_bytes + PIECE_BYTES]
        if not self._has_room(len(piece)):
            if len(entry.body) > _LONG_BYTES:
                self._timer = self._loop.call_later(_HOLD_S, self._give_up_batch)
            return 0
        final = self._sent_bytes + len(piece) >= len(entry.body)
        self._send(entry, piece, entry.seq, final=final, first=self._sent_bytes == 0)
        self._sent_bytes += len(piece)
        self._torn = entry.seq
        if final and not self._closed:
            self._batch.popleft()
            self._done(entry.seq)
        return len(piece) + _HEADER_BYTES

    def _end_torn(self, entry: Entry) -> int:
        """End an entry that left the journal while it was being sent; its reader sees that it is torn."""
        if not self._has_room(0):
            return 0
        self._send(entry, b"", self._torn, final=True, first=False)
        self._done(self._torn)
        return _HEADER_BYTES

    def _done(self, number: int) -> None:
        self._sent_bytes = self._torn = 0
        self.cursor = number

    def _has_room(self, size: int) -> bool:
        self._blocked = not self._stream.can_send(size + _HEADER_BYTES)
        return not self._blocked

    def _send(self, entry: Entry, piece: bytes | memoryview, number: int, *, final: bool, first: bool) -> None:
        header = {"k": int(entry.kind), "t": entry.time_s} if first else None
        try:
            self._stream.send(header, piece, number=number, final=final)
        except ChannelError as error:
            # The stream has ended, and its handler is about to be told.
            log.info("stream of a journal ended", extra={"why": str(error)})
            self.close()

    def _give_up_batch(self) -> None:
        self._timer = None
        self._batch.clear()

    def _stop_timer(self) -> None:
        for timer in (self._timer, self._company):
            if timer is not None:
                timer.cancel()
        self._timer = self._company = None
