"""From the changes of a plan to the operations of one side. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from colab_bridge.agent.sync.disk.ops import Action as Act
from colab_bridge.agent.sync.disk.ops import ApplyOp, Expected, Kind, expect
from colab_bridge.agent.sync.tree import Directory, Entry, File, Link, entry_at, walk
from colab_bridge.sync.carry import Older
from colab_bridge.sync_core.changes import Action, Change, apply_changes, in_order
from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.plan import Plan

__all__ = ["FolderMove", "Parted", "failed_decisions", "folder_moves", "older_versions", "operations_of", "with_moves"]

_ACTIONS = {
    Action.RENAME: Act.RENAME,
    Action.MAKE_FOLDER: Act.MKDIR,
    Action.WRITE: Act.WRITE,
    Action.MAKE_LINK: Act.LINK,
    Action.SET_EXECUTABLE: Act.EXEC,
    Action.REMOVE: Act.DELETE,
    Action.REMOVE_FOLDER: Act.RMDIR,
}
_ANY_FOLDER = Expected(Kind.FOLDER, bytes(32))
_WORTH_MOVING_FILES = 32
"""Smaller folders move file by file, which leaves their old versions in the trash and costs nothing to speak of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderMove:
    """A folder that one side has under another path already, with everything in it.

    Attributes:
        path: Where it belongs.
        old_path: Where it stands.
        folder: What it is.
        changes: What the move does at once.
    """

    path: str
    old_path: str
    folder: Directory
    changes: tuple[Change, ...]

    @property
    def operation(self) -> ApplyOp:
        """The operation."""
        return ApplyOp(Act.MOVE, self.path, expected=expect(self.folder), old_path=self.old_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """The changes of one side: folders that move whole, and the rest.

    Attributes:
        moves: Folders that move whole.
        single: The other changes, in order.
        after: The side's tree after all of them, where it was needed to tell.
    """

    moves: Sequence[FolderMove] = ()
    single: Sequence[Change]
    after: Directory | None = None

    @property
    def moved(self) -> set[str]:
        """Paths of the decisions that moves carry out."""
        return {change.decision.path for move in self.moves for change in move.changes}

    def without(self, left: Collection[str]) -> Parted:
        """Return what is there without some decisions; a folder of which something is left out does not move whole."""
        if not any(change.decision.path in left for change in self.single) and self.moved.isdisjoint(left):
            return self
        whole = [move for move in self.moves if not any(c.decision.path in left for c in move.changes)]
        broken = [change for move in self.moves if move not in whole for change in move.changes]
        single = in_order((*self.single, *broken)) if broken else self.single
        return Parted(moves=whole, single=[c for c in single if c.decision.path not in left])


def operations_of(changes: Iterable[Change], mtime_of: Callable[[Change], int | None]) -> list[ApplyOp]:
    """Return the operations for changes of one side, in their order.

    Args:
        changes: Changes whose content is staged.
        mtime_of: Time of change for a file that is written; None for now.
    """
    return [_operation(change, mtime_of) for change in changes]


def _operation(change: Change, mtime_of: Callable[[Change], int | None]) -> ApplyOp:
    after = change.after
    file = after if isinstance(after, File) else None
    return ApplyOp(
        action=_ACTIONS[change.action],
        path=change.path,
        expected=_expected(change),
        digest=file.digest if file is not None and change.action is Action.WRITE else b"",
        size=file.size if file is not None and change.action is Action.WRITE else 0,
        executable=file is not None and file.executable,
        mtime_ns=mtime_of(change) if change.action is Action.WRITE else None,
        target=after.target if isinstance(after, Link) and change.action is Action.MAKE_LINK else "",
        old_path=change.old_path,
    )


def _expected(change: Change) -> Expected | None:
    before = change.before
    if isinstance(before, Directory) and change.action in {Action.RENAME, Action.REMOVE_FOLDER}:
        return _ANY_FOLDER
    return expect(before)


def folder_moves(changes: Sequence[Change], before: Directory | None, side: Side) -> Parted:
    """Find whole folders that only change their path on one side, so that one operation each does it.

    Only where nothing ignored or blocked lies in a folder, and all of it goes and comes: a folder of which anything is
    held, or was changed too, is moved file by file.

    Args:
        changes: Changes of the side, in order.
        before: The side's tree; None when it is not known.
        side: The side.
    """
    removed = {c.path: c for c in changes if c.action in {Action.REMOVE, Action.REMOVE_FOLDER}}
    large = _large_folders(removed, before)
    if before is None or not large or any(c.action is Action.RENAME for c in changes):
        return Parted(single=changes)
    after = apply_changes(before, changes, side, ordered=True)
    found: dict[str, str] = {}
    for change in changes:
        new = change.path
        if change.action is not Action.MAKE_FOLDER or _is_below(new, found) or entry_at(before, new) is not None:
            continue
        entry = entry_at(after, new)
        digest = entry.kept.digest if isinstance(entry, Directory) else b""
        old = next((old for old in large.get(digest, ()) if not _meet(old, {new, *found.values()})), None)
        if old is not None:
            found[new] = old
    moves, single = _taken(changes, found, before)
    return Parted(moves=moves, single=single, after=after)


def _large_folders(removed: Mapping[str, Change], before: Directory | None) -> dict[bytes, list[str]]:
    """Return the folders that go with everything in them, by their digest."""
    whole: set[str] = set()
    found: dict[bytes, list[str]] = {}
    for path in sorted(path for path, c in removed.items() if c.action is Action.REMOVE_FOLDER):
        entry = entry_at(before, path) if before is not None else None
        if not isinstance(entry, Directory) or not entry.kept.plain or entry.kept.files < _WORTH_MOVING_FILES:
            continue
        if path.rpartition("/")[0] in whole or all(below in removed for below, _ in walk(entry, path)):
            whole.add(path)
            found.setdefault(entry.kept.digest, []).append(path)
    return found


def _is_below(path: str, tops: Collection[str]) -> str | None:
    """Return which of some paths a path is, or lies below."""
    if path in tops:
        return path
    cuts = (cut for cut, letter in enumerate(path) if letter == "/")
    return next((path[:cut] for cut in cuts if path[:cut] in tops), None)


def _meet(path: str, others: Collection[str]) -> bool:
    return _is_below(path, others) is not None or any(_is_below(other, {path}) for other in others)


def _taken(
    changes: Sequence[Change], found: Mapping[str, str], before: Directory
) -> tuple[list[FolderMove], list[Change]]:
    """Part changes into those of moves and the others."""
    new_of = {old: new for new, old in found.items()}
    tops = {*found, *new_of}
    taken: dict[str, list[Change]] = {new: [] for new in found}
    rest: list[Change] = []
    for change in changes:
        top = _is_below(change.path, tops)
        (rest if top is None else taken[new_of.get(top, top)]).append(change)
    moves: list[FolderMove] = []
    for new, old in found.items():
        folder = entry_at(before, old)
        assert isinstance(folder, Directory)
        moves.append(FolderMove(path=new, old_path=old, folder=folder, changes=tuple(taken[new])))
    return moves, rest


def with_moves(operations: Sequence[ApplyOp], moves: Sequence[FolderMove]) -> list[ApplyOp]:
    """Return operations with those of moves, which come when every folder that they go into is there."""
    if not moves:
        return list(operations)
    ahead = {Act.RENAME, Act.MKDIR}
    return [
        *(op for op in operations if op.action in ahead),
        *(move.operation for move in moves),
        *(op for op in operations if op.action not in ahead),
    ]


def failed_decisions(changes: Iterable[Change], failed: Collection[str], moves: Iterable[FolderMove] = ()) -> set[str]:
    """Return the paths of the decisions to which failed paths of one side belong."""
    found = {c.decision.path for c in changes if c.path in failed or (c.old_path and c.old_path in failed)}
    return found | {c.decision.path for move in moves if move.path in failed for c in move.changes}


def older_versions(plan: Plan, side: Side) -> Mapping[bytes, Older]:
    """Return the versions that a side has of files that it gets anew, by the new digest."""
    found: dict[bytes, Older] = {}
    for change in plan.changes_on(side):
        before: Entry | None = change.before
        if change.action is Action.WRITE and isinstance(before, File) and isinstance(change.after, File):
            found[change.after.digest] = Older(path=change.path, file=before)
    return found
