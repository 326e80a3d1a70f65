"""From decisions to operations: what each side has to do, in which order, and what the ancestor is afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum

from colab_bridge.agent.sync.tree import (
    EMPTY,
    Blocked,
    Directory,
    Entry,
    File,
    Link,
    TreeEditor,
    Unknown,
    is_tracked,
    join,
    same,
)
from colab_bridge.sync_core.model import Decision, Side

__all__ = ["Action", "Change", "advance", "agreed", "apply_changes", "changes_of", "in_order", "without_full_folders"]


class Action(IntEnum):
    """Kinds of operations; the value is the order inside a transaction, conflict copies come before all of them."""

    RENAME = 1  # another spelling of a name, one step, top down: everything below is meant under the new name
    MAKE_FOLDER = 2  # top down; a file in its place is moved to the trash in the same step
    WRITE = 3  # a file; what is in its place, a whole folder too, is moved to the trash in the same step
    MAKE_LINK = 4
    SET_EXECUTABLE = 5
    REMOVE = 6  # to the trash; removals go bottom up
    REMOVE_FOLDER = 7  # only when nothing is in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One operation on one side.

    Attributes:
        side: Where.
        action: What.
        path: Path on that side, renamed parents under their new names.
        before: What must stand there, else the operation fails alone; for ``RENAME`` the entry itself.
        after: What stands there afterwards; None for removals.
        old_path: For ``RENAME``: the path before.
        decision: What it comes from.
    """

    side: Side
    action: Action
    path: str
    before: Entry | None
    after: Entry | None
    decision: Decision
    old_path: str = ""

    @property
    def files_lost(self) -> int:
        """How many files and links go to the trash of that side without a new version in their place."""
        if self.action in {Action.REMOVE, Action.MAKE_FOLDER}:
            return 0 if self.before is None or isinstance(self.before, Directory) else 1
        if isinstance(self.before, Directory) and self.action in {Action.WRITE, Action.MAKE_LINK}:
            return self.before.kept.files
        return 0


def changes_of(decision: Decision) -> tuple[Change, ...]:
    """Return what the two sides have to do for one decision."""
    if not decision.settled:
        return ()
    sides: tuple[Side, ...] = (Side.LOCAL, Side.REMOTE)
    if decision.old_names is None and not decision.remote_keeps_exec:
        # A side that has the outcome itself has nothing to do: most decisions change one side only.
        sides = tuple(side for side in sides if decision.on(side) is not decision.outcome)
        if len(sides) == 1:
            return tuple(_changes_on(decision, sides[0]))
    return tuple(change for side in sides for change in _changes_on(decision, side))


def _wanted(decision: Decision, side: Side) -> Entry | None:
    """What the side shall have: the outcome, with the executable bit that the runtime may keep for itself."""
    outcome = decision.outcome
    if side is Side.REMOTE and decision.remote_keeps_exec and isinstance(outcome, File):
        return File(outcome.digest, outcome.size, executable=True)
    return outcome


def _changes_on(decision: Decision, side: Side) -> Iterable[Change]:
    now = decision.on(side)
    now = now if is_tracked(now) else None
    old_path = decision.path_on(side)
    if decision.on(side) is not None and old_path != decision.path and decision.outcome is not None:
        yield Change(
            side=side,
            action=Action.RENAME,
            path=decision.path,
            before=decision.on(side),
            after=decision.on(side),
            decision=decision,
            old_path=old_path,
        )
        old_path = decision.path
    wanted = _wanted(decision, side)
    if isinstance(wanted, Directory) and isinstance(decision.on(side), Directory):
        return
    action = None if decision.adopted else _action(now, wanted)
    if action is not None:
        yield Change(side=side, action=action, path=old_path, before=now, after=wanted, decision=decision)


def _action(now: Entry | None, wanted: Entry | None) -> Action | None:
    if wanted is None:
        if now is None:
            return None
        return Action.REMOVE_FOLDER if isinstance(now, Directory) else Action.REMOVE
    if isinstance(wanted, Directory):
        return Action.MAKE_FOLDER
    if same(now, wanted):
        return None
    if isinstance(wanted, Link):
        return Action.MAKE_LINK
    if isinstance(now, File) and isinstance(wanted, File) and now.digest == wanted.digest:
        return Action.SET_EXECUTABLE
    return Action.WRITE


def _names(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def in_order(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return the operations in the order of the transaction; ties by side and path."""
    ahead: list[Change] = []
    removals: list[Change] = []
    for change in changes:
        (removals if change.action >= Action.REMOVE else ahead).append(change)
    ahead.sort(key=lambda change: (change.action, _names(change.path), change.side))
    # Bottom up: reverse tree order puts everything in a folder before the folder.
    removals.sort(key=lambda change: (_names(change.path), change.side), reverse=True)
    return (*ahead, *removals)


def without_full_folders(changes: Iterable[Change]) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Take out the removals of folders in which something stays: held, blocked or ignored content.

    Returns:
        The operations that are left, and the removals that were taken out.
    """
    ordered = in_order(changes)
    gone = {(change.side, change.path) for change in ordered if change.action is Action.REMOVE}
    kept: list[Change] = []
    dropped: list[Change] = []
    for change in ordered:
        if change.action is not Action.REMOVE_FOLDER or not isinstance(change.before, Directory):
            kept.append(change)
            continue
        folder = change.before
        empty = all((change.side, join(change.path, name)) in gone for name in folder.children)
        if empty and not folder.has_ignored:
            gone.add((change.side, change.path))
            kept.append(change)
        else:
            dropped.append(change)
    return tuple(kept), tuple(dropped)


def apply_changes(tree: Directory, changes: Iterable[Change], side: Side, *, ordered: bool = False) -> Directory:
    """Return the tree of one side after its operations, as a model: what a walk would find.

    The digest of the result is what the side must report when all went well.

    Args:
        tree: The tree before.
        changes: Operations; those of the other side do not count.
        side: The side.
        ordered: They are in the order of the transaction already.
    """
    editor = TreeEditor(tree)
    mine = (change for change in changes if change.side is side)
    for change in mine if ordered else in_order(mine):
        if change.action is Action.RENAME:
            entry = editor.get(change.old_path)
            editor.remove(change.old_path)
            if entry is not None:
                editor.put(change.path, entry)
        elif change.action is Action.MAKE_FOLDER:
            editor.make_folder(change.path)
        elif change.action is Action.REMOVE_FOLDER:
            editor.remove_bare(change.path)
        elif change.after is None:
            editor.remove(change.path)
        else:
            editor.put(change.path, change.after)
    return editor.done()


def agreed(entry: Directory) -> Directory:
    """Return a tree as an ancestor may hold it: no blocked or unknown entries, no phantoms, no marks."""
    children: dict[str, Entry] = {}
    changed = entry.has_ignored
    for name, child in entry.children.items():
        if isinstance(child, (Blocked, Unknown)) or not is_tracked(child):
            changed = True
            continue
        kept = agreed(child) if isinstance(child, Directory) else child
        changed = changed or kept is not child
        children[name] = kept
    return Directory(children) if changed else entry


def advance(base: Directory, decisions: Iterable[Decision], left_alone: Collection[str] = ()) -> Directory:
    """Return the ancestor after a transaction.

    Args:
        base: The ancestor before, made by :func:`agreed` where ignore rules have stripped it.
        decisions: All decisions of the plan.
        left_alone: Paths of decisions that were held or of which an operation failed; their rows stay.
    """
    done = [decision for decision in decisions if decision.settled and decision.path not in left_alone]
    editor = TreeEditor(base)
    for decision in done:
        if decision.old_names is not None and decision.old_names[0] != decision.path:
            moved = editor.get(decision.old_names[0])
            editor.remove(decision.old_names[0])
            if moved is not None:
                editor.put(decision.path, moved)
        outcome = decision.outcome
        if isinstance(outcome, Directory):
            _set_folder(editor, decision, outcome)
        elif outcome is not None:
            editor.put(decision.path, outcome)
    for decision in reversed(done):
        if decision.outcome is None:
            _forget(editor, decision)
    return editor.done()


def _set_folder(editor: TreeEditor, decision: Decision, outcome: Directory) -> None:
    if decision.adopted:
        editor.put(decision.path, agreed(outcome))
    elif isinstance(decision.local, Directory) != isinstance(decision.remote, Directory) and (
        isinstance(decision.local, (File, Link)) or isinstance(decision.remote, (File, Link))
    ):
        # A folder took the place of a file: nothing that was known inside is known any more.
        editor.put(decision.path, EMPTY)
    else:
        editor.make_folder(decision.path)


def _forget(editor: TreeEditor, decision: Decision) -> None:
    was_folder = isinstance(decision.base, Directory)
    if was_folder and (decision.local is not None or decision.remote is not None):
        editor.remove_bare(decision.path)
    else:
        editor.remove(decision.path)
