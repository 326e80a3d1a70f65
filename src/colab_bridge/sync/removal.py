"""Takes something out of this machine's folder because a person removed it on the runtime by name."""

from __future__ import annotations

from colab_bridge._util.ids import new_id
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Expected, Kind, expect
from colab_bridge.agent.sync.tree import Directory, File, Link, entry_at, same, walk
from colab_bridge.sync.local import LocalSide

__all__ = ["remove_here"]


def remove_here(local: LocalSide, base: Directory, path: str) -> int:
    """Move a file, or a folder with everything in it, to the trash; blocking.

    Edits that the runtime never had stay, and the folders around them. With both sides gone nothing is in question, so
    no safety stop asks about deletions that a person has named.

    Args:
        local: This machine's side; its lock is held.
        base: The last agreement.
        path: In the project, ``/`` separated.

    Returns:
        How many files and links went.

    Raises:
        RootGone: the folder is missing or another one.
    """
    tree = local.folder.tree
    entry = entry_at(tree, path) if tree is not None else None
    found = [(path, entry), *(walk(entry, path) if isinstance(entry, Directory) else ())]
    operations: list[ApplyOp] = []
    for name, there in reversed(found):
        if isinstance(there, Directory):
            operations.append(ApplyOp(Action.RMDIR, name, Expected(Kind.FOLDER, bytes(32))))
        elif isinstance(there, (File, Link)) and same(there, entry_at(base, name)):
            operations.append(ApplyOp(Action.DELETE, name, expect(there)))
    if not operations:
        return 0
    results = local.folder.apply(new_id("txn"), operations, known=base)
    return sum(result.ok for op, result in zip(operations, results, strict=True) if op.action is Action.DELETE)
