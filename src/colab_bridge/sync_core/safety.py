"""Safety stops: what is held for a person, per class, never the whole engine (except S2 and S5)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from colab_bridge.agent.sync.names import check_path
from colab_bridge.agent.sync.tree import Directory, File, Link, entry_at, file_entries, is_tracked, walk
from colab_bridge.sync_core.changes import Action, Change, apply_changes
from colab_bridge.sync_core.guard import GuardLists, guard, is_bare_repository, shadows_module
from colab_bridge.sync_core.links import links_passed, links_used
from colab_bridge.sync_core.model import Side, Stop

__all__ = ["SCRAMBLED_AT_LEAST", "Circumstances", "Limits", "RootState", "looks_scrambled", "screen", "stops"]

_MIB = 2**20
_GIB = 2**30
SCRAMBLED_AT_LEAST = 5
"""Fewer files that turn into noise at once may be an archive or a model that was written anew."""
_MOST_LINKS = 10_000
_PROOF_TURNS = 10
_WRITES = frozenset({Action.WRITE, Action.MAKE_LINK})
_CREATES = frozenset({Action.MAKE_FOLDER, Action.WRITE, Action.MAKE_LINK, Action.RENAME})


class RootState(StrEnum):
    """What a walk found about the root itself (S1, S5)."""

    SAME = "same"
    NEW = "new"  # another marker, device, inode or boot: a new peer with an empty ancestor
    MISSING = "missing"
    LINK = "link"
    NOT_A_FOLDER = "not-a-folder"
    OTHER_DEVICE = "other-device"
    NEW_MOUNT = "new-mount"

    @property
    def halts(self) -> bool:
        """Whether nothing may be done on that side."""
        return self not in {RootState.SAME, RootState.NEW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Thresholds of the stops; sizes in bytes, shares of the files of the ancestor."""

    deletions_down: int = 25
    deletions_down_share: float = 0.10
    deletions_up: int = 100
    deletions_up_share: float = 0.50
    whole_folder: int = 20
    changes_down: int = 50
    changes_down_share: float = 0.30
    free_bytes: int = _GIB
    free_share: float = 0.05
    free_names: int = 1000
    down_bytes: int = 2 * _GIB
    down_file: int = 512 * _MIB
    down_new_files: int = 50_000
    up_file: int = 2 * _GIB


def _no(path: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the decisions depend on besides the trees.

    Attributes:
        guards: The user's changes to the guard lists.
        limits: Thresholds.
        is_ignored: Whether the rules leave a path out; for the proof of links.
        explained: A run has happened that can explain changes of the runtime (S4).
        scrambled: Paths whose new content on the runtime fails :func:`looks_scrambled`.
        suspect: Files here that lost their end in a power cut (N11): where the runtime still has the agreed version, it
            comes back.
        free_bytes: Free space at home; None when unknown.
        disk_bytes: Size of that disk.
        free_names: How many more files and folders that disk can have; None when it has no such limit.
        consented: Paths that were asked for by name: no limit for one file.
        standing: What an earlier plan held and nobody decided yet, by stop and side (``Plan.standing``).
    """

    guards: GuardLists = field(default_factory=GuardLists)
    limits: Limits = field(default_factory=Limits)
    is_ignored: Callable[[str], bool] = _no
    explained: bool = False
    scrambled: frozenset[str] = frozenset()
    suspect: frozenset[str] = frozenset()
    free_bytes: int | None = None
    disk_bytes: int = 0
    free_names: int | None = None
    consented: frozenset[str] = frozenset()
    standing: Mapping[tuple[Stop, Side], frozenset[str]] = field(default_factory=dict)


def looks_scrambled(before: bytes, after: bytes) -> bool:
    """Return whether the head of a file turned from something into noise, as encryption by blackmail does.

    Args:
        before: First bytes of the version at the last agreement, 4 KiB are enough.
        after: First bytes of the new version.
    """
    if len(before) < 256 or len(after) < 256 or before[:4] == after[:4]:
        return False
    return _entropy(after) > 7.2 and _entropy(after) - _entropy(before) > 0.5


def _entropy(data: bytes) -> float:
    total = len(data)
    return -sum(count / total * math.log2(count / total) for count in Counter(data).values())


# -- what the runtime may never do, path by path -------------------------------------------------------------------


def screen(
    changes: Mapping[str, tuple[Change, ...]], local: Directory, remote: Directory, facts: Circumstances
) -> dict[str, Stop]:
    """Hold what the guard lists, the path rule and the proof of links forbid on the local side.

    Args:
        changes: Operations by the path of their decision, in tree order.
        local: Tree at home.
        remote: Tree on the runtime.
        facts: Circumstances.

    Returns:
        The stop for each held path.
    """
    held: dict[str, Stop] = {}
    # Looked at once for each folder: a folder may have very many new names.
    bare: dict[str, bool] = {}
    for path, group in changes.items():
        if not held and not any(change.side is Side.LOCAL for change in group):
            continue
        parent = group[0].decision.origins[1].rpartition("/")[0]
        if parent not in bare:
            bare[parent] = bool(parent) and is_bare_repository(entry_at(remote, parent))
        stop = _screen_path(path, group, facts, in_bare=bare[parent]) or _under_held(path, held)
        if stop is not None:
            held[path] = stop
    _hold_links(changes, local, facts, held)
    return held


def _under_held(path: str, held: Mapping[str, Stop]) -> Stop | None:
    """A folder that is not made, or not renamed, keeps everything below it from being made."""
    parent, _, _ = path.rpartition("/")
    return held.get(parent) if parent else None


def _screen_path(path: str, group: tuple[Change, ...], facts: Circumstances, *, in_bare: bool) -> Stop | None:
    at_home = [change for change in group if change.side is Side.LOCAL]
    if not at_home:
        return None
    decision = at_home[0].decision
    names = {path, *(change.old_path for change in at_home if change.old_path)}
    for name in sorted(names):
        if (stop := guard(name, facts.guards, existed=decision.base is not None)) is not None:
            return stop
    if (stop := _stop_below(at_home, facts)) is not None:
        return stop
    new = decision.local is None
    if new and (in_bare or is_bare_repository(decision.remote)):
        return Stop.GUARDED
    creates = any(change.action in _CREATES for change in at_home)
    if creates and (new or decision.old_names) and check_path(path) is not None:
        return Stop.NAME
    if new and creates and decision.base is None and path not in facts.guards.allowed and shadows_module(path):
        return Stop.REVIEW
    return None


def _stop_below(changes: Iterable[Change], facts: Circumstances) -> Stop | None:
    """Return the strictest stop of anything in a folder that is replaced as a whole."""
    found = {
        guard(f"{change.path}/{below}", facts.guards, existed=True)
        for change in changes
        if change.action in _WRITES and isinstance(change.before, Directory)
        for below, _ in walk(change.before)
    }
    return next((stop for stop in (Stop.GUARDED, Stop.REVIEW) if stop in found), None)


def _hold_links(
    changes: Mapping[str, tuple[Change, ...]], local: Directory, facts: Circumstances, held: dict[str, Stop]
) -> None:
    """Hold links without proof against the planned tree, until the rest is proved."""
    if not any(c.side is Side.LOCAL and _touches_links(c) for group in changes.values() for c in group):
        return
    at_home = {path: [c for c in group if c.side is Side.LOCAL] for path, group in changes.items()}
    old_links = {path for path, entry in walk(local) if isinstance(entry, Link)}
    for turn in range(_PROOF_TURNS):
        accepted = [change for path, group in at_home.items() if path not in held for change in group]
        planned = apply_changes(local, accepted, Side.LOCAL)
        ours = {c.path for c in accepted if c.action is Action.MAKE_LINK}
        # A proof costs time, so there is a bound on their number and on the turns: beyond it no link is made.
        endless = len(ours) > _MOST_LINKS or turn == _PROOF_TURNS - 1
        suspects = ours if endless else _unproved(planned, local, ours | old_links, ours, facts)
        guilty = suspects & {path for path in at_home if path not in held}
        if not guilty:
            return
        held.update(dict.fromkeys(guilty, Stop.LINK))


def _touches_links(change: Change) -> bool:
    """A new link, or a folder or link that becomes something else: all proofs are made again."""
    kinds = change.action in {Action.MAKE_LINK, Action.RENAME} or isinstance(change.before, (Link, Directory))
    return kinds or isinstance(change.after, Directory)


def _unproved(planned: Directory, local: Directory, links: set[str], ours: set[str], facts: Circumstances) -> set[str]:
    """Return the planned links to blame: those without proof, and those that break the proof of an older one."""
    guilty: set[str] = set()
    for path in sorted(links):
        if not isinstance(entry_at(planned, path), Link) or links_used(planned, path, facts.is_ignored) is not None:
            continue
        if path in ours:
            # Also the links that it leads through: they are parts of a way out (F06).
            guilty |= {path, *(ours & links_passed(planned, path, facts.is_ignored))}
        elif links_used(local, path, facts.is_ignored) is not None:
            # It was fine before: any link of this plan may be the reason, so none of them is made.
            guilty |= ours
    return guilty


# -- classes of changes ----------------------------------------------------------------------------------------------


def stops(
    changes: Iterable[Change], base: Directory, local: Directory, remote: Directory, facts: Circumstances
) -> dict[tuple[Stop, Side], frozenset[str]]:
    """Return the decisions that are held, by stop and by the side that would change.

    Args:
        changes: Operations that nothing else holds.
        base: Ancestor.
        local: Tree at home.
        remote: Tree on the runtime.
        facts: Circumstances.
    """
    offered = tuple(changes)
    emptied = _emptied(base, local, remote)
    if emptied is not None and any(change.side is emptied.other for change in offered):
        # The side that is empty is the one in doubt; nothing at all is done until somebody has looked.
        return {(Stop.EMPTIED_ROOT, emptied.other): frozenset(change.decision.path for change in offered)}
    held = {
        (Stop.MASS_DELETION, Side.LOCAL): _mass_deletion(offered, base, local, Side.LOCAL, facts.limits),
        (Stop.MASS_DELETION, Side.REMOTE): _mass_deletion(offered, base, remote, Side.REMOTE, facts.limits),
        (Stop.MASS_CHANGE, Side.LOCAL): _mass_change(offered, base, facts),
        (Stop.VOLUME, Side.LOCAL): _volume_down(offered, facts),
        (Stop.VOLUME, Side.REMOTE): _volume_up(offered, facts),
        (Stop.LOW_DISK, Side.LOCAL): _low_disk(offered, facts),
    }
    for key, paths in facts.standing.items():
        held[key] = held.get(key, frozenset()) | {
            change.decision.path for change in offered if change.side is key[1] and change.decision.path in paths
        }
    return {key: paths for key, paths in held.items() if paths}


def _emptied(base: Directory, local: Directory, remote: Directory) -> Side | None:
    if sum(1 for _ in islice(walk(base), 2)) < 2:
        return None
    sides = {Side.LOCAL: local, Side.REMOTE: remote}
    empty = [side for side, root in sides.items() if not any(is_tracked(child) for child in root.children.values())]
    return empty[0] if len(empty) == 1 else None


def _digests_kept(changes: Iterable[Change], side: Side) -> Counter[bytes]:
    """Content that the same plan makes on the side: a file that moved is not deleted."""
    return Counter(
        change.after.digest
        for change in changes
        if change.side is side and change.action is Action.WRITE and isinstance(change.after, File)
    )


def _unmoved(change: Change, moved: Counter[bytes]) -> int:
    """How many files the change deletes whose content does not appear elsewhere."""
    count = 0
    if change.files_lost:
        for _, entry in file_entries(change.before, change.path):
            digest = entry.digest if isinstance(entry, File) else b""
            if moved[digest] > 0:
                moved[digest] -= 1
            else:
                count += 1
    return count


def _mass_deletion(
    changes: tuple[Change, ...], base: Directory, tree: Directory, side: Side, limits: Limits
) -> frozenset[str]:
    deletions = [
        change for change in changes if change.side is side and (change.files_lost or change.action >= Action.REMOVE)
    ]
    moved = _digests_kept(changes, side)
    lost = {change.decision.path: _unmoved(change, moved) for change in deletions}
    most, share = (
        (limits.deletions_down, limits.deletions_down_share)
        if side is Side.LOCAL
        else (limits.deletions_up, limits.deletions_up_share)
    )
    total = sum(lost.values())
    if total > most and total > share * base.kept.files:
        return frozenset(lost)
    whole = _whole_folders(deletions, lost, tree, limits)
    return frozenset(path for path in lost if path.split("/", 1)[0] in whole)


def _whole_folders(deletions: list[Change], lost: Mapping[str, int], tree: Directory, limits: Limits) -> frozenset[str]:
    """Top-level folders of which nothing would be left."""
    unmoved: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for change in deletions:
        top = change.path.split("/", 1)[0]
        unmoved[top] += lost[change.decision.path]
        every[top] += change.files_lost
    folders = {name: entry for name, entry in tree.children.items() if isinstance(entry, Directory)}
    return frozenset(
        top
        for top, count in unmoved.items()
        if count >= limits.whole_folder and top in folders and every[top] >= folders[top].kept.files
    )


def _mass_change(changes: tuple[Change, ...], base: Directory, facts: Circumstances) -> frozenset[str]:
    limits = facts.limits
    changed = frozenset(
        change.decision.path
        for change in changes
        if change.side is Side.LOCAL and change.action in _WRITES and change.before is not None
    )
    many = len(changed) > limits.changes_down and len(changed) > limits.changes_down_share * base.kept.files
    noise = len(changed) >= SCRAMBLED_AT_LEAST and changed <= facts.scrambled
    return changed if noise or (many and not facts.explained) else frozenset()


def _bytes_home(change: Change) -> int:
    """Bytes that a change brings home: the new version, and versions of the runtime that are stored."""
    stored = sum(
        copy.entry.size for copy in change.decision.stored if copy.side is Side.REMOTE and isinstance(copy.entry, File)
    )
    if change.side is Side.LOCAL and change.action is Action.WRITE and isinstance(change.after, File):
        return stored + change.after.size
    return stored


def _volume_down(changes: tuple[Change, ...], facts: Circumstances) -> frozenset[str]:
    limits = facts.limits
    sizes = {change.decision.path: _bytes_home(change) for change in changes}
    large = frozenset(path for path, size in sizes.items() if size > limits.down_file and path not in facts.consented)
    rest = {path: size for path, size in sizes.items() if size and path not in large}
    new = frozenset(
        change.decision.path
        for change in changes
        if change.side is Side.LOCAL and change.action in _WRITES and change.before is None
    )
    if len(new) > limits.down_new_files:
        large |= new
    if sum(rest.values()) > limits.down_bytes:
        large |= frozenset(rest)
    return large


def _volume_up(changes: tuple[Change, ...], facts: Circumstances) -> frozenset[str]:
    return frozenset(
        change.decision.path
        for change in changes
        if change.side is Side.REMOTE and change.action is Action.WRITE and isinstance(change.after, File)
        if change.after.size > facts.limits.up_file and change.decision.path not in facts.consented
    )


def _low_disk(changes: tuple[Change, ...], facts: Circumstances) -> frozenset[str]:
    return _little_room(changes, facts) | _few_names(changes, facts)


def _few_names(changes: tuple[Change, ...], facts: Circumstances) -> frozenset[str]:
    """What takes a name here, where that would leave the disk without names for others."""
    coming = [c for c in changes if c.side is Side.LOCAL and c.action in _CREATES]
    if facts.free_names is None or not coming or facts.free_names - len(coming) >= facts.limits.free_names:
        return frozenset()
    return frozenset(change.decision.path for change in coming)


def _little_room(changes: tuple[Change, ...], facts: Circumstances) -> frozenset[str]:
    if facts.free_bytes is None:
        return frozenset()
    sizes = {change.decision.path: _bytes_home(change) for change in changes}
    coming = sum(sizes.values())
    floor = max(facts.limits.free_bytes, int(facts.limits.free_share * facts.disk_bytes))
    if coming and facts.free_bytes - coming < floor:
        return frozenset(path for path, size in sizes.items() if size)
    return frozenset()
