"""The daemon's numbered record of everything that passed for one kernel, which its viewers can wait for.

What it is, and its files, are in :mod:`colab_bridge.agent.record`: the agent on a runtime keeps the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel

from colab_bridge.agent.record import Entry, EntryKind, Record, RecordUnreadable
from colab_bridge.errors import TransientError

__all__ = ["Entry", "EntryKind", "MessageRecord"]


class MessageRecord(Record):
    """A record whose readers can wait for the next entry; made by :meth:`open`."""

    _news: anyio.Event | None = None

    def read(self, after: int, *, max_bytes: int = 256 * 1024, max_entries: int = 2000) -> list[Entry]:
        """Return the next entries in order, as :meth:`Record.read` does.

        Raises:
            TransientError: a file cannot be opened just now, for example because too many are open.
        """
        try:
            return super().read(after, max_bytes=max_bytes, max_entries=max_entries)
        except RecordUnreadable as error:
            raise TransientError(str(error), hint="Try again.") from error

    async def wait(self, after: int) -> None:
        """Return as soon as there is an entry behind ``after``, or the record is closed."""
        if self.next_seq - 1 > after or self.closed:
            await anyio.lowlevel.checkpoint()
        while self.next_seq - 1 <= after and not self.closed:
            if self._news is None:
                self._news = anyio.Event()
            await self._news.wait()

    async def follow(self, after: int) -> AsyncIterator[list[Entry]]:
        """Iterate over the entries in batches, from a cursor, waiting for more at the end until the record is closed.

        Args:
            after: Number of the last entry that the caller has seen; 0 for all.

        Raises:
            TransientError: as :meth:`read`.
        """
        # Numbers above the last one come from a time whose end a power cut took away.
        cursor = min(after, self.next_seq - 1)
        while True:
            batch = self.read(cursor)
            if batch:
                cursor = batch[-1].seq
                yield batch
                if cursor + 1 < self.next_seq:
                    # A reader that never waits would starve the loop while it catches up.
                    await anyio.lowlevel.checkpoint()
            elif self.closed:
                return
            else:
                await self.wait(cursor)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None
