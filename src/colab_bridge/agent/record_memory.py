"""Entries of a record that are kept in memory: those that the disk refused, and the newest ones."""

from __future__ import annotations

from collections import deque

from .record_segment import Entry

__all__ = ["KeptEntries"]

# What one entry costs besides its body: the object, its number, its time, its place in the queue.
_OVERHEAD_BYTES = 200


class KeptEntries:
    """Entries in order, the oldest of which go when they take more than a limit.

    Attributes:
        most_bytes: The limit.

    Args:
        most_bytes: The limit.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> Entry:
        """The oldest entry; only where there is one."""
        return self._entries[0]

    def add(self, entry: Entry) -> None:
        """Keep one more; one that is larger than the limit is not kept, and nothing before it."""
        self._entries.append(entry)
        self._bytes += len(entry.body) + _OVERHEAD_BYTES
        while self._bytes > self.most_bytes:
            self.drop_first()

    def drop_first(self) -> None:
        """Forget the oldest entry."""
        self._bytes -= len(self._entries.popleft().body) + _OVERHEAD_BYTES

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._bytes = 0

    def read(self, after: int, max_bytes: int, max_entries: int) -> list[Entry]:
        """Return the first entries behind a number within the limits, at least one where there is one."""
        found: list[Entry] = []
        taken = 0
        for entry in self._entries:
            if entry.seq <= after:
                continue
            taken += len(entry.body)
            if found and (taken > max_bytes or len(found) >= max_entries):
                break
            found.append(entry)
        return found
