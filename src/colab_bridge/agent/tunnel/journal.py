"""The journal of one kernel: everything that it said and that was said to it, numbered, and who reads along."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..record import EntryKind, Record

__all__ = ["Journal", "Reader"]


class Reader(Protocol):
    """Somebody who follows a journal."""

    def offer(self, number: int, kind: EntryKind, time_s: float, body: Sequence[bytes], *, urgent: bool) -> None:
        """Learn of a new entry; it is in the journal already. One that is not urgent may wait for the next."""


class Journal:
    """Appends to a record and tells the readers.

    Attributes:
        record: Where it is kept.

    Args:
        record: Opened already.
        clock: Unix seconds.
    """

    def __init__(self, record: Record, clock: Callable[[], float] = time.time) -> None:
        self.record = record
        self._clock = clock
        self._readers: list[Reader] = []
        self._lost_number = 0

    @classmethod
    def open(cls, folder: Path, *, max_bytes: int, guard: Callable[[], None]) -> Journal:
        """Open the record in a folder; blocks for as long as reading one file of it takes."""
        return cls(Record.open(folder, max_bytes=max_bytes, guard=guard))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever written."""
        return self.record.next_seq == 1

    def add_reader(self, reader: Reader) -> None:
        """Tell somebody of each new entry from now on."""
        self._readers.append(reader)

    def remove_reader(self, reader: Reader) -> None:
        """Tell them no more."""
        if reader in self._readers:
            self._readers.remove(reader)

    def down(self, body: Sequence[bytes], *, urgent: bool = True) -> int:
        """Write a message of the kernel; return its number.

        Args:
            body: The message, in chunks that follow each other.
            urgent: False when it only announces what comes next.
        """
        return self._append(EntryKind.DOWN, body, urgent=urgent)

    def up(self, body: bytes) -> int:
        """Write a message to the kernel; return its number."""
        return self._append(EntryKind.UP, [body], urgent=False)

    def note(self, note: Mapping[str, Any]) -> int:
        """Write a word of our own; return its number."""
        return self._append(EntryKind.NOTE, [json.dumps(note, separators=(",", ":")).encode("ascii")], urgent=True)

    def lift(self, number: int) -> None:
        """Give no number below this any more, and say that what had those numbers is lost.

        A daemon that has seen higher numbers than were ever given here knows a journal that does not exist any more.
        """
        if number > self.record.next_seq:
            self.record.lift(number)
            self.note({"type": "lost", "text": "the runtime's journal was lost; output of that time may be missing"})

    def read_one(self, number: int) -> bytes | None:
        """Return the body of an entry; None when it is not there any more."""
        entries = self.record.read(number - 1, max_entries=1)
        return entries[0].body if entries and entries[0].seq == number else None

    def _append(self, kind: EntryKind, body: Sequence[bytes], *, urgent: bool) -> int:
        now = self._clock()
        number = self.record.append(kind, body, now)
        for reader in tuple(self._readers):
            reader.offer(number, kind, now, body, urgent=urgent)
        return number
