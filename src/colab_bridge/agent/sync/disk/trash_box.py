"""The part of the trash that belongs to one transaction: objects by number, and the manifest that names them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .place import Calls
from .platform_folder import Folder
from .verify import Stamps

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["DISPLACED", "MANIFEST", "NUMBER", "RETURNED", "Intent", "Seen", "TrashBox", "digest_of"]

NUMBER = re.compile(r"[0-9]{1,9}")
MANIFEST = "manifest"
_MAX_MANIFEST_BYTES = 128 * 2**20
_COARSEST_CLOCK_S = 3.0  # FAT counts in steps of two seconds
DISPLACED = "displaced"
RETURNED = "returned"
"""A new version of ours that stood at a path for a moment and was taken back, because a newer save had its place.
A program may have opened it in that moment, so it is kept until the next look; people are not shown it."""


@dataclass(frozen=True)
class Intent:
    """What an operation may put into the trash.

    Attributes:
        number: Number of the operation in its transaction.
        path: Where the object stands.
        why: Name of the action.
        kind: What it is expected to be: ``file``, ``link`` or ``folder``; empty when nothing was expected.
        digest: Its fingerprint; of a file the keyed digest.
    """

    number: int
    path: str
    why: str
    kind: str
    digest: bytes


@dataclass(frozen=True)
class Seen:
    """How an object in the trash looked when its content was known.

    Attributes:
        stamps: See :data:`~.verify.Stamps`.
        digest: Fingerprint of the content.
        when_s: Seconds since 1970.
    """

    stamps: Stamps
    digest: bytes
    when_s: float

    @property
    def is_racy(self) -> bool:
        """Whether a write right after it could have left the same stamps: clocks of file systems are coarse."""
        return any(stamp[1] > (self.when_s - _COARSEST_CLOCK_S) * 1e9 for stamp in self.stamps.values())

    def to_json(self) -> list[Any]:
        """Return the form in the manifest."""
        return [self.stamps, self.digest.hex(), self.when_s]

    @classmethod
    def from_json(cls, row: Any) -> Seen:
        """Read the form in the manifest; what is damaged looks like nothing, so it is compared by content."""
        try:
            return cls({str(path): list(stamp) for path, stamp in row[0].items()}, bytes.fromhex(row[1]), float(row[2]))
        except (TypeError, ValueError, LookupError, AttributeError):
            return cls({}, b"", 0.0)


class TrashBox:
    """The part of the trash that belongs to one transaction; a context manager.

    Args:
        calls: File-system calls.
        folder: Its folder.
        txn: Transaction.
    """

    def __init__(self, calls: Calls, folder: Folder, txn: str) -> None:
        self.calls = calls
        self.folder = folder
        self.txn = txn
        self._rows: list[dict[str, Any]] = []
        self._by_number: dict[int, dict[str, Any]] = {}
        self._take_rows(_read_manifest(calls, folder))
        self._seen: dict[int, Seen] = {}

    def announce(self, intents: Sequence[Intent], now_s: float) -> None:
        """Write down what may come, before anything moves.

        Raises:
            OSError: it could not be written; nothing may be moved then.
        """
        self._append(
            [
                {"n": i.number, "path": i.path, "why": i.why, "kind": i.kind, "digest": i.digest.hex(), "t": now_s}
                for i in intents
            ],
            durable=True,
        )

    def _append(self, rows: Sequence[dict[str, Any]], *, durable: bool = False) -> None:
        """Write rows; those that tell what was seen may be lost in a power cut, then it is looked at again."""
        if not rows:
            return
        fd = self.calls.create(self.folder, MANIFEST, os.O_WRONLY | os.O_APPEND)
        try:
            # Begins with a line end, in case the last line was cut off by a crash.
            self.calls.write(fd, b"\n" + b"\n".join(json.dumps(row).encode() for row in rows) + b"\n")
            if durable:
                self.calls.written(fd, self.folder)
        finally:
            os.close(fd)
        self._take_rows(rows)

    def _take_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            self._rows.append(row)
            if isinstance(row.get("n"), int):
                self._by_number[row["n"]] = row

    @property
    def sealed(self) -> bool:
        """Whether the transaction has ended."""
        return any("seals" in row for row in self._rows)

    def row(self, number: int) -> dict[str, Any]:
        """Return what is known about a number; empty when nothing is."""
        return self._by_number.get(number, {})

    def numbers(self) -> list[int]:
        """Return the numbers of the objects that are here."""
        return sorted(int(name) for name in self.calls.names(self.folder) if NUMBER.fullmatch(name))

    def free_number(self) -> int:
        """Return a number above all that were announced or are here."""
        return max([*self._by_number, *self.numbers(), -1]) + 1

    def take(self, source: Folder, name: str, intent: Intent, now_s: float) -> None:
        """Move an object here that nobody announced.

        Raises:
            OSError: it is where it was.
        """
        self.announce([intent], now_s)
        self.calls.rename(source, name, self.folder, str(intent.number))

    def note_told(self, number: int) -> None:
        """Write down that the conflict store has an object, so that it is not told again after a crash."""
        self._append([{"told": number}])

    @property
    def told(self) -> set[int]:
        """Numbers of the objects that the conflict store has."""
        return {row["told"] for row in self._rows if isinstance(row.get("told"), int)}

    def unsaved(self) -> set[int]:
        """Return the numbers of objects that nobody else has: saved in the middle of an operation, or written later."""
        seen = self.seen()
        return {
            number
            for number in set(self.numbers()) - self.told
            if self.row(number).get("why") == DISPLACED
            or (number in seen and seen[number].digest != digest_of(self.row(number)))
        }

    def note_seen(self, number: int, seen: Seen) -> None:
        """Remember how an object looked *before* its content was found to be what it should be.

        The order matters: a program that still had it open may write at any time after that, also before the seal.
        """
        self._seen[number] = seen

    def seal(self) -> None:
        """Write down how the objects looked when they were verified; the transaction has ended.

        Raises:
            OSError: nothing could be written.
        """
        rows = {str(number): seen.to_json() for number, seen in {**self.seen(), **self._seen}.items()}
        self._append([{"seals": rows, "t": time.time()}])

    def seen(self) -> dict[int, Seen]:
        """Return the looks of the objects, as last written down."""
        found: dict[int, Seen] = {}
        for row in self._rows:
            if isinstance(row.get("seals"), dict):
                found = {int(number): Seen.from_json(seen) for number, seen in row["seals"].items()}
        return found

    def close(self) -> None:
        """Let go of it."""
        self.folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read_manifest(calls: Calls, folder: Folder) -> Iterator[dict[str, Any]]:
    try:
        fd = calls.open_file(folder, MANIFEST)
    except FileNotFoundError:
        return
    try:
        raw = b""
        while len(raw) < _MAX_MANIFEST_BYTES and (data := calls.read(fd, 2**20)):
            raw += data
    finally:
        os.close(fd)
    for line in raw.split(b"\n"):
        try:
            row = json.loads(line) if line else None
        except ValueError:
            # Cut off by a crash; what it would have told is found by looking at the objects.
            continue
        if isinstance(row, dict):
            yield row


def digest_of(row: Mapping[str, Any]) -> bytes:
    """Return the fingerprint in a row of a manifest, empty when there is none."""
    try:
        return bytes.fromhex(str(row.get("digest", "")))
    except ValueError:
        return b""
