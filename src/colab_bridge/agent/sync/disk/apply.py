"""Carries out the operations of one side, so that nothing is ever overwritten or unlinked.

A transaction: everything is prepared in the stage; made durable; each operation exchanges or moves one object and then
looks at what came out; made durable again. Operations are independent: one that fails leaves the others valid. What
was expected goes to the trash; what was not expected is a newer save, and it is put back to its path.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .ops import Action, ApplyOp, Code, DisplacedFile, Expected, Kind, OpResult, link_digest, signature_of
from .place import Places
from .platform_folder import Folder
from .root import STATE_FOLDER, Root
from .spelling import Spelling
from .stage import Leftover, Stage
from .trash import DISPLACED, RETURNED, Intent, Seen, Trash, TrashBox, digest_of, remove_all
from .verify import Known, Looker

__all__ = ["Applier", "Placed", "current_umask"]

Placed = Callable[[str, os.stat_result, os.stat_result, bytes], None]
"""``(path, stamps in the stage, stamps in place, digest)`` of a placed file: the next scan need not hash it."""
_TURNS = 3
_SECOND_NS = 1_000_000_000
_CODES = {
    errno.ENOSPC: Code.NO_SPACE,
    errno.EDQUOT: Code.NO_SPACE,
    errno.EFBIG: Code.NO_SPACE,
    errno.EACCES: Code.NO_PERMISSION,
    errno.EPERM: Code.NO_PERMISSION,
    errno.EROFS: Code.NO_PERMISSION,
    errno.EXDEV: Code.OTHER_DEVICE,
    errno.ENAMETOOLONG: Code.BAD_NAME,
    errno.EILSEQ: Code.BAD_NAME,
    errno.EINVAL: Code.BAD_NAME,
    errno.EMFILE: Code.BUSY,
    errno.ENFILE: Code.BUSY,
    errno.EBUSY: Code.BUSY,
    errno.ETXTBSY: Code.BUSY,
    errno.EAGAIN: Code.MOVED,
    errno.ENOENT: Code.MISSING,
    errno.EEXIST: Code.EXISTS,
    errno.ENOTDIR: Code.IN_THE_WAY,
    errno.ELOOP: Code.IN_THE_WAY,
    errno.EISDIR: Code.MOVED,
}
# Sharing and lock violations of Windows: an editor or a virus scanner has the file open.
_BUSY_ON_WINDOWS = frozenset({32, 33})


def current_umask() -> int:
    """Return the umask of the process; where the system does not tell it, it is set and set back."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def _code_of(error: OSError) -> Code:
    if getattr(error, "winerror", None) in _BUSY_ON_WINDOWS:
        return Code.BUSY
    return _CODES.get(error.errno or 0, Code.FAILED)


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
                run = _Run(self, box, ops)
                try:
                    return run.all(on_staged)
                finally:
                    run.close()
                    # What an error has left behind is looked at again at the next start.
                    with suppress(OSError):
                        self._settle(box)
        except OSError as error:
            # Before anything was prepared; afterwards each operation has a result of its own.
            return [OpResult(op.path, ok=False, code=_code_of(error)) for op in ops]

    def _settle(self, box: TrashBox) -> None:
        """Tidy up after a transaction, and close the part of the trash that belongs to it."""
        for leftover in self.stage.working(box.txn):
            self._sort(box, leftover)
        if box.numbers():
            box.seal()
        else:
            remove_all(self.calls, self.trash.folder, box.txn)

    def _sort(self, box: TrashBox, leftover: Leftover, wanted: Collection[bytes] | None = None) -> None:
        """Find the right place for what an operation has left in the stage.

        Args:
            box: Part of the trash that belongs to the transaction.
            leftover: What it left.
            wanted: Contents that stay in the stage; None for all.
        """
        row, here = box.row(leftover.number), self.stage.folder
        if leftover.ours and _announced(row) is None:
            self.stage.put_back(leftover.name)
            digest = _digest_in(leftover.name)
            if wanted is not None and digest is not None and digest not in wanted:
                self.stage.discard(digest)
        elif leftover.ours:
            self.retire(box, leftover.name, str(row.get("path", "")), wanted)
        else:
            seen = self.verified(here, leftover.name, _announced(row))
            if seen is not None and leftover.number not in box.numbers():
                self.calls.rename(here, leftover.name, box.folder, str(leftover.number))
                box.note_seen(leftover.number, seen)
            else:
                self.displace(box, leftover.name, str(row.get("path", "")))

    def retire(self, box: TrashBox, name: str, path: str, wanted: Collection[bytes] | None = None) -> None:
        """Take back an object of ours that may have stood in the tree for a moment.

        A program may have opened a file in that moment and write into it later, so it goes to the trash, where that is
        noticed, and the stage gets a copy of its own.

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
        if wanted is None or digest in wanted:
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

    def recover(self, wanted: Collection[bytes] = ()) -> None:
        """Tidy up after a start, before anything else: what a transaction that did not end has left is sorted.

        Objects that are not ours go to the trash and to ``on_displaced``; contents in ``wanted`` and large files under
        way stay in the stage.

        Args:
            wanted: Digests that an open transaction has staged.

        Raises:
            OSError: something could not be looked at or moved; nothing is lost, and it can be called again.
        """
        self.spelling.recover()
        for leftover in self.stage.recover(wanted):
            with self.trash.box(leftover.txn or "recovered") as box:
                self._sort(box, leftover, wanted)
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


class _Failed(Exception):
    """An operation ends with a code."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.value)
        self.code = code


class _Run:
    """One transaction."""

    def __init__(self, applier: Applier, box: TrashBox, ops: Sequence[ApplyOp]) -> None:
        self._applier = applier
        self._calls = applier.calls
        self._stage = applier.stage
        self._looker = applier.looker
        self._box = box
        self._ops = ops
        self._first = box.free_number()
        self._places = Places(applier.root, applier.calls)
        self._codes: list[Code | None] = [None] * len(ops)
        self._works: dict[int, str] = {}
        self._ours: dict[int, os.stat_result] = {}
        self._after: dict[int, os.stat_result] = {}

    def close(self) -> None:
        self._places.close()

    def all(self, on_staged: Callable[[], None] | None) -> list[OpResult]:
        try:
            self._prepare()
            if on_staged is not None:
                on_staged()
            for index, op in enumerate(self._ops):
                if self._codes[index] is None:
                    self._codes[index] = self._guarded(op, index, self._carry_out)
            self._calls.commit(self._applier.root.top)
        except OSError as error:
            # Nothing is known to be durable: what was done is found by the next scan, the ancestor does not move.
            failed = _code_of(error)
            self._codes = [failed if code in {None, Code.APPLIED} else code for code in self._codes]
        return [self._result(index, op) for index, op in enumerate(self._ops)]

    def _result(self, index: int, op: ApplyOp) -> OpResult:
        code = self._codes[index] or Code.FAILED
        ok = code in {Code.APPLIED, Code.ALREADY}
        seen = self._after.get(index)
        return OpResult(op.path, ok=ok, code=code, signature=signature_of(seen) if ok and seen is not None else None)

    def _guarded(self, op: ApplyOp, index: int, step: Callable[[ApplyOp, int], Code]) -> Code:
        try:
            return step(op, index)
        except _Failed as failed:
            return failed.code
        except OSError as error:
            return _code_of(error)

    # -- preparation -----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        users = Counter(op.digest for op in self._ops if op.action is Action.WRITE)
        now_s = time.time()
        intents: list[Intent] = []
        for index, op in enumerate(self._ops):
            if op.path.split("/", 1)[0].casefold() == STATE_FOLDER:
                self._codes[index] = Code.BAD_NAME
                continue
            if op.action is Action.WRITE:
                users[op.digest] -= 1
            code = self._guarded(op, index, lambda op, index: self._stage_op(op, index, users[op.digest] == 0))
            if code is not Code.APPLIED:
                self._codes[index] = code
            elif op.expected is not None and op.action in {Action.WRITE, Action.LINK, Action.MKDIR, Action.DELETE}:
                number = self._first + index
                intents.append(Intent(number, op.path, op.action.value, op.expected.kind.value, op.expected.digest))
        self._box.announce(intents, now_s)
        self._calls.commit(self._applier.root.top)

    def _stage_op(self, op: ApplyOp, index: int, last: bool) -> Code:
        txn, number = self._box.txn, self._first + index
        if op.action is Action.WRITE:
            try:
                self._works[index] = self._work_on(op, txn, number, last=last)
                self._dress(op, index)
            except FileNotFoundError:
                return Code.NO_CONTENT
        elif op.action is Action.LINK:
            self._works[index] = self._stage.link_work(op.target, txn, number)
        elif op.action is Action.MKDIR and op.expected is not None:
            self._works[index] = self._stage.folder_work(txn, number)
        return Code.APPLIED

    def _work_on(self, op: ApplyOp, txn: str, number: int, *, last: bool) -> str:
        if last and op.expected is None and not self._calls.exchange.degraded:
            # Nothing is ever swapped into it: it is moved to a free name, or stays what it is.
            return op.digest.hex()
        return self._stage.work_on(op.digest, txn, number, last=last)

    def _dress(self, op: ApplyOp, index: int) -> None:
        """Give the new file its permissions and time while nobody sees it."""
        here, work = self._stage.folder, self._works[index]
        new = self._calls.stat(here, work)
        before = self._standing(op) if op.expected is not None and op.expected.kind is Kind.FILE else None
        mode = _with_bit(0o666 & ~self._applier.umask if before is None else before.st_mode & 0o777, op.executable)
        now_ns = time.time_ns()
        mtime = self._mtime(op, before, now_ns)
        if mode != new.st_mode & 0o777:
            self._calls.chmod_name(here, work, mode)
        if op.mtime_ns is not None or mtime != now_ns or not 0 <= now_ns - new.st_mtime_ns < _SECOND_NS:
            self._calls.utime(here, work, (mtime, mtime))
            new = self._calls.stat(here, work)
        self._ours[index] = new

    def _standing(self, op: ApplyOp) -> os.stat_result | None:
        try:
            seen = self._calls.stat(*self._places.find(op.path))
        except OSError:
            # Whatever it is, it is met again when the operation is carried out.
            return None
        return seen if stat.S_ISREG(seen.st_mode) else None

    def _mtime(self, op: ApplyOp, before: os.stat_result | None, now_ns: int) -> int:
        """Return the time for a new file; never one that a cached ``.pyc`` of the old one would fit.

        Python trusts the pair of whole second and size of a source file. Later seconds only, so that no earlier version
        of the same size fits either.
        """
        wanted = now_ns if op.mtime_ns is None else op.mtime_ns
        if (
            before is not None
            and before.st_size == op.size
            and wanted // _SECOND_NS <= before.st_mtime_ns // _SECOND_NS
        ):
            return before.st_mtime_ns + _SECOND_NS
        return wanted

    # -- carrying out ----------------------------------------------------------------------------------------------

    def _carry_out(self, op: ApplyOp, index: int) -> Code:
        try:
            folder, name = self._places.find(op.path)
        except FileNotFoundError:
            return Code.ALREADY if op.action in {Action.DELETE, Action.RMDIR} else Code.NO_PARENT
        if op.action in {Action.WRITE, Action.LINK} or index in self._works:
            return self._put(op, index, folder, name)
        if op.action is Action.MKDIR:
            return self._make_folder(folder, name)
        if op.action is Action.DELETE:
            return self._delete(op, index, folder, name)
        if op.action is Action.RMDIR:
            return self._remove_folder(folder, name)
        if op.action is Action.EXEC:
            return self._set_bit(op, index, folder, name)
        old = folder.disk_name(op.old_path.rpartition("/")[2])
        return self._applier.spelling.change(op, folder, old)

    def _wanted(self, op: ApplyOp) -> Expected:
        if op.action is Action.WRITE:
            return Expected(Kind.FILE, op.digest)
        return Expected(Kind.LINK, link_digest(op.target))

    def _is_done(self, op: ApplyOp, folder: Folder, name: str, seen: os.stat_result) -> bool:
        if op.action is Action.MKDIR:
            return stat.S_ISDIR(seen.st_mode)
        if not self._looker.is_expected(folder, name, self._wanted(op)):
            return False
        return op.action is Action.LINK or bool(seen.st_mode & stat.S_IXUSR) is op.executable

    def _put(self, op: ApplyOp, index: int, folder: Folder, name: str) -> Code:
        work = self._works[index]
        ours = self._ours.get(index) or self._calls.stat(self._stage.folder, work)
        if op.expected is None:
            code = self._create(op, work, folder, name)
        else:
            code = self._replace(op, index, work, ours, folder, name)
        if code is Code.APPLIED:
            self._note(op, index, ours, folder, name)
        return code

    def _note(self, op: ApplyOp, index: int, ours: os.stat_result, folder: Folder, name: str) -> None:
        after = self._calls.stat(folder, name)
        self._after[index] = after
        if op.action is Action.WRITE and self._applier.placed is not None and after.st_ino == ours.st_ino:
            self._applier.placed(op.path, ours, after, op.digest)

    def _create(self, op: ApplyOp, work: str, folder: Folder, name: str) -> Code:
        try:
            self._calls.place(self._stage.folder, work, folder, name)
        except FileExistsError:
            done = self._is_done(op, folder, name, self._calls.stat(folder, name))
            return Code.ALREADY if done else Code.EXISTS
        return Code.APPLIED

    def _replace(self, op: ApplyOp, index: int, work: str, ours: os.stat_result, folder: Folder, name: str) -> Code:
        expected = op.expected
        assert expected is not None
        before = self._calls.stat(folder, name)
        if self._looker.refuted(op.path, before, expected):
            return Code.ALREADY if self._is_done(op, folder, name, before) else Code.MOVED
        proof = before if self._looker.proven(op.path, before, expected) else None
        self._calls.swap(self._stage.folder, work, folder, name)
        seen = self._applier.verified(self._stage.folder, work, expected, proof)
        if seen is not None:
            self._calls.rename(self._stage.folder, work, self._box.folder, str(self._first + index))
            self._box.note_seen(self._first + index, seen)
            return Code.APPLIED
        self._give_back(op, work, ours, folder, name)
        return Code.ALREADY if self._is_done_now(op, folder, name) else Code.MOVED

    def _is_done_now(self, op: ApplyOp, folder: Folder, name: str) -> bool:
        with suppress(OSError):
            return self._is_done(op, folder, name, self._calls.stat(folder, name))
        return False

    def _give_back(self, op: ApplyOp, work: str, ours: os.stat_result, folder: Folder, name: str) -> None:
        """Put a newer save back to its path; what a yet newer one leaves in our hands is kept as a conflict."""
        here = self._stage.folder
        awaited = ours
        for _ in range(_TURNS):
            putting = self._calls.stat(here, work)
            try:
                self._calls.swap(here, work, folder, name)
            except FileNotFoundError:
                # Deleted by somebody in this moment; what we hold was theirs.
                break
            out = self._calls.stat(here, work)
            if _same_object(out, awaited):
                break
            # Saved once more in this moment: that is the newest, so it goes back too.
            awaited = putting
        seen = self._calls.stat(here, work)
        if _same_object(seen, ours) and self._stage.is_ours(work, seen):
            self._applier.retire(self._box, work, op.path)
        else:
            self._applier.displace(self._box, work, op.path)

    def _make_folder(self, folder: Folder, name: str) -> Code:
        try:
            self._calls.make_folder(folder, name)
        except FileExistsError:
            is_folder = stat.S_ISDIR(self._calls.stat(folder, name).st_mode)
            return Code.ALREADY if is_folder else Code.EXISTS
        return Code.APPLIED

    def _remove_folder(self, folder: Folder, name: str) -> Code:
        try:
            self._calls.remove_folder(folder, name)
        except FileNotFoundError:
            return Code.ALREADY
        except NotADirectoryError:
            return Code.MOVED
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST} or getattr(error, "winerror", None) == 145:
                return Code.NOT_EMPTY
            raise
        return Code.APPLIED

    def _delete(self, op: ApplyOp, index: int, folder: Folder, name: str) -> Code:
        expected = op.expected
        if expected is None or expected.kind is Kind.FOLDER:
            return Code.MOVED
        try:
            before = self._calls.stat(folder, name)
        except FileNotFoundError:
            return Code.ALREADY
        if self._looker.refuted(op.path, before, expected):
            return Code.MOVED
        proof = before if self._looker.proven(op.path, before, expected) else None
        number = self._first + index
        self._calls.rename(folder, name, self._box.folder, str(number))
        seen = self._applier.verified(self._box.folder, str(number), expected, proof)
        if seen is not None:
            self._box.note_seen(number, seen)
            return Code.APPLIED
        try:
            self._calls.place(self._box.folder, str(number), folder, name)
        except FileExistsError:
            # Saved once more in this moment: the newest stays, the one before it is kept.
            self._applier.tell(self._box, number, op.path)
        return Code.MOVED

    def _set_bit(self, op: ApplyOp, index: int, folder: Folder, name: str) -> Code:
        expected = op.expected
        if expected is None or expected.kind is not Kind.FILE:
            return Code.MOVED
        before = self._calls.stat(folder, name)
        if not stat.S_ISREG(before.st_mode):
            return Code.MOVED
        fd = self._calls.open_file(folder, name)
        try:
            seen = os.fstat(fd)
            proven = self._looker.proven(op.path, seen, expected)
            if not proven and not self._looker.is_expected(folder, name, expected):
                return Code.MOVED
            self._calls.chmod(fd, _with_bit(seen.st_mode & 0o777, op.executable))
            after = os.fstat(fd)
        finally:
            os.close(fd)
        self._after[index] = after
        if self._applier.placed is not None:
            self._applier.placed(op.path, seen, after, expected.digest)
        return Code.APPLIED


def _with_bit(mode: int, executable: bool) -> int:
    """Return permissions with or without the executable bit, for those who may read."""
    return mode | (mode & 0o444) >> 2 if executable else mode & ~0o111


def _same_object(one: os.stat_result, two: os.stat_result) -> bool:
    return (one.st_ino, one.st_dev, one.st_size, one.st_mtime_ns) == (
        two.st_ino,
        two.st_dev,
        two.st_size,
        two.st_mtime_ns,
    )
