"""One transaction: prepare in the stage, make durable, exchange and look, make durable again."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .failures import code_of
from .new_folders import NewFolders
from .ops import Action, ApplyOp, Code, Expected, Kind, OpResult, link_digest
from .place import Places
from .platform_folder import Folder
from .root import STATE_FOLDER
from .trash_box import Intent, TrashBox

if TYPE_CHECKING:
    from .apply import Applier

__all__ = ["Transaction"]

_TURNS = 3
_SECOND_NS = 1_000_000_000


class Transaction:
    """One transaction of an applier; used once.

    Args:
        applier: Whose it is.
        box: Its part of the trash.
        ops: Operations, in order.

    Attributes:
        lost: Something that was written did not reach the disk.

    Raises:
        OSError: the trash cannot be looked at; nothing was done.
    """

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
        self._new: NewFolders | None = None
        self.lost = False

    def close(self) -> None:
        """Let go of the folders.

        Raises:
            OSError: a folder that has not taken its place could not be put back.
        """
        self._places.close()
        if self._new is not None:
            self._new.end()

    def all(self, on_staged: Callable[[], None] | None) -> list[OpResult]:
        """Prepare, carry out, make durable.

        Args:
            on_staged: Called when everything is prepared and durable.
        """
        try:
            self._prepare()
            if on_staged is not None:
                on_staged()
            for index, op in enumerate(self._ops):
                if self._codes[index] is None:
                    self._codes[index] = self._guarded(op, index, self._carry_out)
            self._make_durable()
        except OSError as error:
            # Nothing is known to be durable: what was done is found by the next scan, the ancestor does not move.
            failed = code_of(error)
            self._codes = [failed if code in {None, Code.APPLIED} else code for code in self._codes]
        return [self._result(index, op) for index, op in enumerate(self._ops)]

    def _make_durable(self) -> None:
        try:
            self._calls.commit(self._applier.root.top)
        except OSError:
            self.lost = True
            raise

    def _result(self, index: int, op: ApplyOp) -> OpResult:
        code = self._codes[index] or Code.FAILED
        ok = code is Code.APPLIED or code is Code.ALREADY
        return OpResult(op.path, ok, code, self._after.get(index) if ok else None)

    def _guarded(self, op: ApplyOp, index: int, step: Callable[[ApplyOp, int], Code]) -> Code:
        try:
            return step(op, index)
        except OSError as error:
            return code_of(error)

    # -- preparation -----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._new = self._stage.growing.take(self._box.txn, self._ops)
        waiting = [(index, op) for index, op in enumerate(self._ops) if not self._has_grown(op)]
        users = Counter(op.digest for _, op in waiting if op.action is Action.WRITE)
        now_s = time.time()
        intents: list[Intent] = []
        for index, op in waiting:
            if STATE_FOLDER in {path.split("/", 1)[0].casefold() for path in (op.path, op.old_path)}:
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
        self._make_durable()

    def _has_grown(self, op: ApplyOp) -> bool:
        return self._new is not None and self._new.holds(op)

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
        new = self._new
        if new is not None and new.holds(op) and new.is_placed(op.path):
            return self._note_grown(new, op, index)
        try:
            folder, name = self._places.find(op.path)
        except FileNotFoundError:
            return Code.ALREADY if op.action in {Action.DELETE, Action.RMDIR} else Code.NO_PARENT
        if new is not None and new.is_topmost(op) and self._place_grown(new, op, folder, name):
            return Code.APPLIED
        if op.action is Action.WRITE and index not in self._works:
            # It has grown in a folder that could neither take its place nor be dissolved.
            return Code.NO_CONTENT
        if op.action in {Action.WRITE, Action.LINK} or index in self._works:
            return self._put(op, index, folder, name)
        if op.action is Action.MKDIR:
            return self._make_folder(folder, name)
        if op.action is Action.MOVE:
            return self._move(op, folder, name)
        if op.action is Action.DELETE:
            return self._delete(op, index, folder, name)
        if op.action is Action.RMDIR:
            return self._remove_folder(folder, name)
        if op.action is Action.EXEC:
            return self._set_bit(op, index, folder, name)
        old = folder.disk_name(op.old_path.rpartition("/")[2])
        return self._applier.spelling.change(op, folder, old)

    def _place_grown(self, new: NewFolders, op: ApplyOp, folder: Folder, name: str) -> bool:
        """Move a folder with all that has grown in it; where that fails, each file is placed alone."""
        try:
            new.place(op.path, folder, name)
        except OSError:
            numbers = {op.path: index for index, op in enumerate(self._ops) if new.holds(op)}

            def work_for(grown: ApplyOp) -> str:
                index = numbers[grown.path]
                self._works[index] = f"{grown.digest.hex()}~{self._box.txn}~{self._first + index}"
                return self._works[index]

            new.dissolve(op.path, work_for)
            return False
        return True

    def _note_grown(self, new: NewFolders, op: ApplyOp, index: int) -> Code:
        if op.action is Action.WRITE:
            seen = self._after[index] = new.look(op.path)
            if self._applier.placed is not None:
                self._applier.placed(op.path, seen, seen, op.digest)
        return Code.APPLIED

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

    def _move(self, op: ApplyOp, folder: Folder, name: str) -> Code:
        """Move a whole folder, then look at what was moved; one that is not as expected is put back."""
        expected = op.expected
        if expected is None or expected.kind is not Kind.FOLDER:
            return Code.MOVED
        places = Places(self._applier.root, self._calls)
        try:
            old, old_name = places.find(op.old_path)
            if not stat.S_ISDIR(self._calls.stat(old, old_name).st_mode):
                return Code.MOVED
            self._calls.place(old, old_name, folder, name)
            if self._is_moved(op, folder, name):
                return Code.APPLIED
            # Somebody has changed something in it at this moment. Where its old name is taken by now, both stay.
            with suppress(FileExistsError):
                self._calls.place(folder, name, old, old_name)
            return Code.MOVED
        except FileExistsError:
            return Code.EXISTS
        except FileNotFoundError:
            return Code.ALREADY if self._is_moved(op, folder, name) else Code.MISSING
        finally:
            places.close()

    def _is_moved(self, op: ApplyOp, folder: Folder, name: str) -> bool:
        assert op.expected is not None
        with suppress(OSError):
            return self._looker.is_moved(folder, name, op.old_path, op.expected)
        return False

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
