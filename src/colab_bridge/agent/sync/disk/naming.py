"""Names on the disk and names in the tree: which one of two that meet stays, and which may not travel."""

from __future__ import annotations

import os
from unicodedata import is_normalized

from ..names import MAX_DEPTH, MAX_PATH_BYTES, check_name, fold_key, name_from_disk, pick_names
from ..tree import Directory, Why, entry_at
from .statcache import Node

__all__ = ["meeting_names", "tree_name"]


def meeting_names(node: Node, names: list[str], known: Directory | None, *, folds: bool) -> frozenset[str]:
    """Return the names that another name in the folder keeps from travelling; notes whether names may meet at all.

    Args:
        node: The folder.
        names: All names in it.
        known: The ancestor: its spelling stays.
        folds: The disk takes names that differ by case or Unicode form for one.
    """
    # A name that is gone but waited for counts as well, so once mixed is mixed until nothing is left of it.
    node.mixed = folds or bool(node.keys) or not "".join(names).isascii()
    if not folds and (not node.mixed or all(is_normalized("NFC", name) for name in names)):
        return frozenset()
    groups: dict[str, list[str]] = {}
    for name in names:
        wire = name if name.isascii() else name_from_disk(os.fsencode(name))[0]
        groups.setdefault(fold_key(wire) if folds else wire, []).append(name)
    if len(groups) == len(names):
        return frozenset()
    losers: list[str] = []
    for group in groups.values():
        if len(group) > 1:
            losers += pick_names(group, (_in_ancestor(node, group, known), _composed(group)))[1]
    return frozenset(losers)


def _in_ancestor(node: Node, group: list[str], known: Directory | None) -> str | None:
    folder = None if known is None else entry_at(known, node.path)
    if not isinstance(folder, Directory):
        return None
    return next((name for name in sorted(group) if name in folder.children), None)


def _composed(group: list[str]) -> str | None:
    return next((name for name in sorted(group) if is_normalized("NFC", name)), None)


def tree_name(node: Node, name: str, losers: frozenset[str]) -> tuple[str, Why | None]:
    """Return the name in the tree of a name on the disk, and why it cannot travel.

    Args:
        node: The folder.
        name: On the disk.
        losers: What :func:`meeting_names` told.
    """
    if name.isascii() and not losers:
        wire, fault = name, check_name(name)
        if fault is None and len(name) <= node.room_bytes and name[0] != "~":
            return name, None
    else:
        raw = os.fsencode(name)
        wire, fault = name_from_disk(raw)
        if name in losers:
            # The bytes make it unique, the backslash keeps it apart from every name that may travel.
            return f"{wire}\\{raw.hex()}", Why.COLLISION
    if fault is not None and fault.grade != "unportable":
        return wire, Why.BAD_NAME
    if not node.path:
        return wire, Why.BAD_NAME if wire.startswith("~") else None
    too_long = len(node.path.encode()) + 1 + len(wire.encode()) > MAX_PATH_BYTES
    return wire, Why.TOO_DEEP if too_long or node.path.count("/") + 2 > MAX_DEPTH else None
