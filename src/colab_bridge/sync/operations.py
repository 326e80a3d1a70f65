"""From the changes of a plan to the operations of one side. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from colab_bridge.agent.sync.disk.ops import Action as Act
from colab_bridge.agent.sync.disk.ops import ApplyOp, Expected, Kind, expect
from colab_bridge.agent.sync.tree import Directory, Entry, File, Link
from colab_bridge.sync.carry import Older
from colab_bridge.sync_core.changes import Action, Change
from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.plan import Plan

__all__ = ["failed_decisions", "older_versions", "operations_of"]

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


def failed_decisions(changes: Iterable[Change], failed: Collection[str]) -> set[str]:
    """Return the paths of the decisions to which failed paths of one side belong."""
    return {c.decision.path for c in changes if c.path in failed or (c.old_path and c.old_path in failed)}


def older_versions(plan: Plan, side: Side) -> Mapping[bytes, Older]:
    """Return the versions that a side has of files that it gets anew, by the new digest."""
    found: dict[bytes, Older] = {}
    for change in plan.changes_on(side):
        before: Entry | None = change.before
        if change.action is Action.WRITE and isinstance(before, File) and isinstance(change.after, File):
            found[change.after.digest] = Older(path=change.path, file=before)
    return found
