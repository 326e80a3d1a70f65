"""Proof that links stay inside the folder, against the planned tree (T4).

Not a test of the text: the target is resolved component by component, links on the way are followed, and what cannot
be proved is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from colab_bridge.agent.sync.names import check_target
from colab_bridge.agent.sync.tree import Blocked, Directory, Link, TreeEditor, Unknown, Why, entry_at, walk

__all__ = ["block_leaving_links", "links_passed", "links_used", "stays_inside"]

_MAX_STEPS = 40


class _Loop(Exception):
    """The chain comes back to itself: it leads nowhere."""


class _Leaves(Exception):
    """No proof: the chain leaves the root, is too long or meets something that nobody can see through."""


class _TooLong(_Leaves):
    """No proof, for the number of links only."""


def stays_inside(root: Directory, path: str, is_ignored: Callable[[str], bool]) -> bool:
    """Return whether the link at a path provably resolves inside the root, or to nothing inside it.

    Args:
        root: The tree as it will be.
        path: Path of a link in it.
        is_ignored: Whether a path is left out by the rules: what lies there is not known.
    """
    return links_used(root, path, is_ignored) is not None


def links_used(root: Directory, path: str, is_ignored: Callable[[str], bool]) -> set[str] | None:
    """Return the paths of all links that the chain of a link goes through; None when it does not stay inside."""
    used: set[str] = set()
    try:
        _resolve(root, path, is_ignored, used)
    except (_Leaves, _Loop):
        return None
    return used


def links_passed(root: Directory, path: str, is_ignored: Callable[[str], bool]) -> set[str]:
    """Return the paths of the links through which a chain leaves the root; of one that is only too long, none."""
    used: set[str] = set()
    try:
        _resolve(root, path, is_ignored, used)
    except (_TooLong, _Loop):
        return set()
    except _Leaves:
        return used
    return set()


def _leads_nowhere(root: Directory, path: str, is_ignored: Callable[[str], bool]) -> bool:
    try:
        _resolve(root, path, is_ignored, set())
    except _Loop:
        return True
    except _Leaves:
        return False
    return False


def _resolve(root: Directory, path: str, is_ignored: Callable[[str], bool], used: set[str]) -> None:
    here: list[str] = path.split("/")[:-1]
    todo = [path.rsplit("/", 1)[-1]]
    # Links whose target is still being walked, with what is left to do when it has been.
    open_links: list[tuple[str, int]] = []
    steps = 0
    while todo:
        open_links = [(link, rest) for link, rest in open_links if rest < len(todo)]
        name = todo.pop(0)
        if name in {"", "."}:
            continue
        if name == "..":
            if not here:
                raise _Leaves
            here.pop()
            continue
        where = "/".join([*here, name])
        entry = entry_at(root, where)
        if isinstance(entry, Link):
            steps += 1
            if any(where == link for link, _ in open_links):
                raise _Loop
            if steps > _MAX_STEPS:
                raise _TooLong
            if check_target(entry.target):
                raise _Leaves
            used.add(where)
            open_links.append((where, len(todo)))
            todo[:0] = entry.target.split("/")
            continue
        if isinstance(entry, (Blocked, Unknown)) or (entry is None and (".." in todo or is_ignored(where))):
            raise _Leaves
        here.append(name)


def block_leaving_links(root: Directory, is_ignored: Callable[[str], bool]) -> Directory:
    """Return the tree with links that do not provably stay inside turned into blocked entries.

    For the tree at home before it is merged: such a link is not uploaded (F03). A loop is harmless there (F14).
    """
    if not root.kept.links:
        return root
    links = [path for path, entry in walk(root) if isinstance(entry, Link)]
    editor = TreeEditor(root)
    leaving = [
        path
        for path in links
        if not stays_inside(root, path, is_ignored) and not _leads_nowhere(root, path, is_ignored)
    ]
    for path in leaving:
        editor.put(path, Blocked(Why.LINK_OUTSIDE))
    return editor.done() if leaving else root
