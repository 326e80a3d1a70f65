"""The trash: what the engine took out of the tree, by transaction, on the file system of the root.

``trash/<txn>/<n>`` is an object, ``trash/<txn>/manifest`` one JSON line for each: where it stood, and what it was
expected to be, written *before* the first object moves, so that a crash leaves nothing without a name. When the
transaction has ended, the manifest also tells how each object looked; a program that still had the old file open and
writes into it later is found by that (:meth:`Trash.changed_since`).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .ops import TXN
from .place import Calls, Places, remove_all
from .platform_folder import Folder
from .root import STATE_FOLDER, Root
from .trash_box import MANIFEST, NUMBER, RETURNED, Seen, TrashBox, digest_of
from .verify import Looker

__all__ = ["Trash", "TrashEntry", "TrashFault"]


class TrashFault(Exception):
    """Something cannot be restored.

    Attributes:
        code: ``missing``, ``exists`` or ``failed``.
        sentence: For people, one line.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


@dataclass(frozen=True)
class TrashEntry:
    """One object in the trash.

    Attributes:
        id: ``<txn>/<n>``, for :meth:`Trash.restore`.
        path: Where it stood, empty when that is not known.
        why: Name of the action that moved it out; :data:`DISPLACED` for what was saved in the middle of one.
        kind: ``file``, ``link`` or ``folder``.
        size: Bytes; of a folder those of everything in it.
        removed_s: When, seconds since 1970.
        digest: Digest it was expected to have, empty when it is no file.
    """

    id: str
    path: str
    why: str
    kind: str
    size: int
    removed_s: float
    digest: bytes


class Trash:
    """Trash of one root.

    Args:
        root: The root.
        key: Key of the pairing for digests.
        calls: File-system calls, shared with the stage.

    Raises:
        OSError: the folder of the trash is missing or no folder.
    """

    def __init__(self, root: Root, key: bytes, calls: Calls) -> None:
        self._root = root
        self._calls = calls
        self._looker = Looker(calls, key, None)
        self.folder: Folder = root.folder(f"{STATE_FOLDER}/trash")

    def box(self, txn: str, *, create: bool = True) -> TrashBox:
        """Open the part of a transaction.

        Raises:
            ValueError: the name of the transaction is not acceptable.
            FileNotFoundError: it has none, and none is to be made.
            OSError: it could not be made.
        """
        if not TXN.fullmatch(txn):
            raise ValueError("no name of a transaction")
        if create:
            with suppress(FileExistsError):
                self._calls.make_folder(self.folder, txn)
        folder = self._calls.child(self.folder, txn)
        try:
            return TrashBox(self._calls, folder, txn)
        except BaseException:
            folder.close()
            raise

    def transactions(self) -> list[str]:
        """Return the transactions that have a part, by name."""
        return sorted(name for name in self._calls.names(self.folder) if TXN.fullmatch(name))

    def list(self) -> list[TrashEntry]:
        """Return what people may want back, the newest first."""
        found: list[TrashEntry] = []
        for txn in self.transactions():
            with self.box(txn, create=False) as box:
                found.extend(entry for entry in self._entries(box) if entry.why != RETURNED)
        return sorted(found, key=lambda entry: (-entry.removed_s, entry.id))

    def _entries(self, box: TrashBox, numbers: Iterable[int] | None = None) -> Iterator[TrashEntry]:
        for number in box.numbers() if numbers is None else numbers:
            row = box.row(number)
            seen = self._calls.stat(box.folder, str(number))
            kind = "folder" if stat.S_ISDIR(seen.st_mode) else "link" if stat.S_ISLNK(seen.st_mode) else "file"
            yield TrashEntry(
                id=f"{box.txn}/{number}",
                path=str(row.get("path", "")),
                why=str(row.get("why", "")),
                kind=kind,
                size=_size(self._calls, box.folder, str(number), seen),
                removed_s=float(row.get("t", seen.st_ctime)),
                digest=digest_of(row),
            )

    def _find(self, entry_id: str) -> tuple[TrashBox, int]:
        txn, _, number = entry_id.partition("/")
        if not TXN.fullmatch(txn) or not NUMBER.fullmatch(number):
            raise TrashFault("missing", "there is nothing in the trash under this id")
        try:
            return self.box(txn, create=False), int(number)
        except OSError as error:
            raise TrashFault("missing", "there is nothing in the trash under this id") from error

    def open(self, entry_id: str) -> int:
        """Return a descriptor for reading a file in the trash.

        Raises:
            TrashFault: there is no such entry.
            OSError: it is no file, or cannot be read.
        """
        box, number = self._find(entry_id)
        with box:
            return self._calls.open_file(box.folder, str(number))

    def restore(self, entry_id: str, to: str | None = None) -> str:
        """Move an object back into the tree, to a path where nothing stands.

        Args:
            entry_id: Id of the entry.
            to: Where; by default where it stood. Missing folders are made.

        Returns:
            The path.

        Raises:
            TrashFault: there is no such entry, its path is not known, or something stands there.
        """
        box, number = self._find(entry_id)
        with box:
            path = to if to is not None else str(box.row(number).get("path", ""))
            if not path or path.split("/", 1)[0].casefold() == STATE_FOLDER:
                raise TrashFault("missing", "the place where it stood is not known; name one")
            places = Places(self._root, self._calls)
            try:
                self._make_parents(places, path)
                folder, name = places.find(path)
                self._calls.place(box.folder, str(number), folder, name)
            except FileExistsError as error:
                raise TrashFault("exists", "something stands there already") from error
            except FileNotFoundError as error:
                raise TrashFault("missing", "there is nothing in the trash under this id") from error
            except (OSError, ValueError) as error:
                raise TrashFault("failed", f"it could not be moved back: {error}") from error
            finally:
                places.close()
            self._calls.commit(self._root.top)
        return path

    def _make_parents(self, places: Places, path: str) -> None:
        names = path.split("/")[:-1]
        for depth in range(1, len(names) + 1):
            folder, name = places.find("/".join(names[:depth]))
            try:
                self._calls.make_folder(folder, name)
            except FileExistsError:
                continue

    def contents(self) -> dict[bytes, str]:
        """Return the ids of files by the digest that they were expected to have; to be verified when one is taken."""
        found: dict[bytes, str] = {}
        for txn in self.transactions():
            with self.box(txn, create=False) as box:
                for number in box.numbers():
                    digest = digest_of(box.row(number))
                    if digest and box.row(number).get("kind") == "file":
                        found[digest] = f"{txn}/{number}"
        return found

    def changed_since(self, txn: str) -> Sequence[TrashEntry]:
        """Return objects of an ended transaction into which a program has written since; each is told once.

        An editor that had the old file open writes into the object in the trash, so the caller keeps a copy of it as a
        conflict. To be called at the next barrier.

        Raises:
            OSError: something could not be looked at.
        """
        try:
            box = self.box(txn, create=False)
        except FileNotFoundError:
            return []
        with box:
            changed: set[int] = set()
            looked = False
            known = box.seen()
            for number in sorted({*known} & {*box.numbers()}):
                seen = self._looked_again(box, number, known[number])
                if seen is known[number]:
                    continue
                if seen.digest != known[number].digest:
                    changed.add(number)
                elif box.row(number).get("why") == RETURNED:
                    self._calls.unlink(box.folder, str(number))
                box.note_seen(number, seen)
                looked = True
            found = list(self._entries(box, sorted(changed)))
            if looked:
                box.seal()
        return found

    def _looked_again(self, box: TrashBox, number: int, before: Seen) -> Seen:
        """Stamps move also by a chmod or a backup program, and they are coarse; in doubt the content decides."""
        name, now_s = str(number), time.time()
        stamps = self._looker.stamps(box.folder, name)
        if stamps == before.stamps and not before.is_racy:
            return before
        kind = self._looker.kind_of(self._calls.stat(box.folder, name))
        digest = b"" if kind is None else self._looker.fingerprint(box.folder, name, kind)
        return Seen(stamps, digest, now_s)

    def note_kept(self, entry_id: str) -> None:
        """Write down that somebody keeps a copy of an object, so that it may go one day.

        Raises:
            TrashFault: there is no such entry.
            OSError: it could not be written.
        """
        box, number = self._find(entry_id)
        with box:
            box.note_told(number)

    def prune(self, *, max_bytes: int, max_age_s: float, keep: Collection[str] = (), now_s: float | None = None) -> int:
        """Remove what is too old, and the oldest of what is too much; never a version that nobody else has.

        Args:
            max_bytes: Most that stays.
            max_age_s: Older transactions go.
            keep: Transactions that stay whatever happens: open ones, and those of the last two barriers.
            now_s: Seconds since 1970, by default now.

        Returns:
            Bytes that were removed.

        Raises:
            OSError: something could not be removed.
        """
        now = time.time() if now_s is None else now_s
        boxes: list[tuple[float, str, int]] = []
        lone: set[str] = set(keep)
        for txn in self.transactions():
            with self.box(txn, create=False) as box:
                entries = list(self._entries(box))
                if not box.sealed or box.unsaved():
                    lone.add(txn)
                moved = self._calls.stat(box.folder, MANIFEST).st_mtime if not entries else 0.0
            boxes.append(
                (max((entry.removed_s for entry in entries), default=moved), txn, sum(e.size for e in entries))
            )
        total, freed = sum(size for _, _, size in boxes), 0
        for moved, txn, size in sorted(boxes):
            if txn in lone or (now - moved <= max_age_s and total - freed <= max_bytes):
                continue
            remove_all(self._calls, self.folder, txn)
            freed += size
        return freed

    def close(self) -> None:
        """Let go of it."""
        self.folder.close()


def _size(calls: Calls, folder: Folder, name: str, seen: os.stat_result) -> int:
    if not stat.S_ISDIR(seen.st_mode):
        return seen.st_size
    with calls.child(folder, name) as inside:
        return sum(_size(calls, inside, one, calls.stat(inside, one)) for one in calls.names(inside))
