"""Carries out the operations of one side, so that nothing is ever overwritten or unlinked.

A transaction: everything is prepared in the stage; made durable; each operation exchanges or moves one object and then
looks at what came out; made durable again. Operations are independent: one that fails leaves the others valid. What
was expected goes to the trash; what was not expected is a newer save, and it is put back to its path.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .failures import code_of
from .ops import ApplyOp, DisplacedFile, Expected, Kind, OpResult
from .place import remove_all
from .platform_folder import Folder
from .root import Root
from .spelling import Spelling
from .stage import LARGE_BYTES, Leftover, Stage
from .transaction import Transaction
from .trash import Trash
from .trash_box import DISPLACED, RETURNED, Intent, Seen, TrashBox, digest_of
from .verify import Known, Looker

__all__ = ["Applier", "Placed", "current_umask"]

Placed = Callable[[str, os.stat_result, os.stat_result, bytes], None]
"""``(path, stamps in the stage, stamps in place, digest)`` of a placed file: the next scan need not hash it."""


def current_umask() -> int:
    """Return the umask of the process; where the system does not tell it, it is set and set back."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


class Applier:
    """Applies operations below one root. Blocking, one transaction at a time.

    Args:
        root: The root.
        stage: Its stage, with the contents that the operations need.
        trash: Its trash.
        on_displaced: Called with each newer save that could not stay at its path, to keep a copy of it in the conflict
            store; it stays in the trash too. May be called twice for one after a crash. OSError from it is passed over.
        known: What the last scan knows; without it every file that is replaced is read.
        placed: Told of each file that was placed.
    """

    def __init__(
        self,
        root: Root,
        stage: Stage,
        trash: Trash,
        *,
        on_displaced: Callable[[DisplacedFile], None],
        known: Known | None = None,
        placed: Placed | None = None,
    ) -> None:
        self.root = root
        self.stage = stage
        self.trash = trash
        self.calls = stage.calls
        self.looker = Looker(self.calls, stage.key, known)
        self.placed = placed
        self.umask = current_umask()
        self._on_displaced = on_displaced
        self.spelling = Spelling(root, stage)

    def apply(self, txn: str, ops: Sequence[ApplyOp], *, on_staged: Callable[[], None] | None = None) -> list[OpResult]:
        """Carry out operations, in their order.

        Args:
            txn: Name of the transaction: letters, digits, ``.``, ``_`` and ``-``, at most 80.
            ops: Operations in the order of the plan.
            on_staged: Called when everything is prepared and durable, before anything is changed.

        Returns:
            One result for each operation. Operations that are done already are no failures, so a transaction may be
            repeated. No OSError leaves this method.

        Raises:
            ValueError: the name of the transaction is not acceptable.
        """
        try:
            with self.trash.box(txn) as box:
                run = Transaction(self, box, ops)
                try:
                    return run.all(on_staged)
                finally:
                    # What an error has left behind is looked at again at the next start.
                    with suppress(OSError):
                        run.close()
                        self._settle(box, stays=not run.lost)
                        if run.lost:
                            self.stage.distrust()
        except OSError as error:
            # Before anything was prepared; afterwards each operation has a result of its own.
            return [OpResult(op.path, ok=False, code=code_of(error)) for op in ops]

    def _settle(self, box: TrashBox, *, stays: bool) -> None:
        """Tidy up after a transaction, and close the part of the trash that belongs to it."""
        for leftover in self.stage.working(box.txn):
            self._sort(box, leftover, stays=stays)
        if box.numbers():
            box.seal()
        else:
            remove_all(self.calls, self.trash.folder, box.txn)

    def _sort(self, box: TrashBox, leftover: Leftover, *, stays: bool = True) -> None:
        """Find the right place for what an operation has left in the stage.

        Args:
            box: Part of the trash that belongs to the transaction.
            leftover: What it left.
            stays: Content of ours stays in the stage for another try.
        """
        row, here = box.row(leftover.number), self.stage.folder
        if leftover.ours and _announced(row) is None:
            self.stage.put_back(leftover.name)
            digest = _digest_in(leftover.name)
            if not stays and digest is not None:
                self.stage.discard(digest)
        elif leftover.ours:
            self.retire(box, leftover.name, str(row.get("path", "")), stays=stays)
        else:
            seen = self.verified(here, leftover.name, _announced(row))
            if seen is not None and leftover.number not in box.numbers():
                self.calls.rename(here, leftover.name, box.folder, str(leftover.number))
                box.note_seen(leftover.number, seen)
            else:
                self.displace(box, leftover.name, str(row.get("path", "")))

    def retire(self, box: TrashBox, name: str, path: str, *, stays: bool = True) -> None:
        """Take back an object of ours that may have stood in the tree for a moment.

        A program may have opened a file in that moment and write into it later, so it goes to the trash, where that is
        noticed, and the stage gets a copy of its own where the content is to stay.

        Raises:
            OSError: it stays where it is.
        """
        digest = _digest_in(name)
        if digest is None or not stat.S_ISREG(self.calls.stat(self.stage.folder, name).st_mode):
            self.stage.put_back(name)
            return
        seen = self.verified(self.stage.folder, name, Expected(Kind.FILE, digest))
        if seen is None:
            self.displace(box, name, path)
            return
        if stays:
            fd = self.calls.open_file(self.stage.folder, name)
            try:
                self.stage.take_copy(digest, fd)
            finally:
                os.close(fd)
        number = box.free_number()
        box.take(self.stage.folder, name, Intent(number, path, RETURNED, Kind.FILE.value, digest), time.time())
        box.note_seen(number, seen)

    def verified(
        self, folder: Folder, name: str, expected: Expected | None, proof: os.stat_result | None = None
    ) -> Seen | None:
        """Return how an object looked before it was found to be what is expected; None when it is something else.

        Raises:
            OSError: it could not be read.
        """
        seen = Seen(self.looker.stamps(folder, name), b"" if expected is None else expected.digest, time.time())
        return seen if expected is not None and self.looker.is_expected(folder, name, expected, proof) else None

    def displace(self, box: TrashBox, name: str, path: str) -> None:
        """Move an unexpected object from the stage to the trash and hand it to the conflict store.

        Raises:
            OSError: it stays where it is.
        """
        number = box.free_number()
        box.take(self.stage.folder, name, Intent(number, path, DISPLACED, "", b""), time.time())
        self.tell(box, number, path)

    def tell(self, box: TrashBox, number: int, path: str) -> None:
        """Hand an unexpected object, which is in the trash, to the conflict store."""
        name, now_s = str(number), time.time()
        looks = self.looker.stamps(box.folder, name)
        seen = self.calls.stat(box.folder, name)
        kind = Looker.kind_of(seen)
        digest = b"" if kind is None else self.looker.fingerprint(box.folder, name, kind)
        box.note_seen(number, Seen(looks, digest, now_s))
        displaced = DisplacedFile(
            path=path,
            kind=kind or Kind.FILE,
            location=Path(box.folder.full(name)),
            trash_id=f"{box.txn}/{number}",
            size=0 if kind is Kind.FOLDER else seen.st_size,
            txn=box.txn,
        )
        with suppress(OSError):
            self._on_displaced(displaced)
            box.note_told(number)

    def recover(self) -> None:
        """Tidy up after a start, before anything else: what a transaction that did not end has left is sorted.

        The names in the stage and the manifests in the trash say what was going on. Objects that are not ours go to
        the trash and to ``on_displaced``; large contents of ours stay in the stage.

        Raises:
            OSError: something could not be looked at or moved; nothing is lost, and it can be called again.
        """
        self.spelling.recover()
        for leftover in self.stage.recover():
            with self.trash.box(leftover.txn or "recovered") as box:
                self._sort(box, leftover, stays=leftover.size >= LARGE_BYTES)
        for txn in self.trash.transactions():
            with self.trash.box(txn, create=False) as box:
                if not box.numbers():
                    remove_all(self.calls, self.trash.folder, txn)
                elif not box.sealed:
                    self._verify_box(box)
                    box.seal()

    def _verify_box(self, box: TrashBox) -> None:
        """Tell of what was moved to the trash before anybody could look at it."""
        told = box.told
        for number in box.numbers():
            row = box.row(number)
            seen = self.verified(box.folder, str(number), _announced(row))
            if seen is not None:
                box.note_seen(number, seen)
            elif number not in told:
                self.tell(box, number, str(row.get("path", "")))


def _digest_in(name: str) -> bytes | None:
    """Return the content that a working name is named after; None for a folder."""
    try:
        return bytes.fromhex(name.split("~", 1)[0])
    except ValueError:
        return None


def _announced(row: Mapping[str, Any]) -> Expected | None:
    """Return what a manifest says about an object; None when it says nothing."""
    try:
        return Expected(Kind(str(row.get("kind", ""))), digest_of(row))
    except ValueError:
        return None
