"""Three-way merge, path by path: rules R0-R10.

Pure and total: any three trees give decisions, in tree order. Subtrees whose Merkle digests agree are not entered, so
the work is in proportion to the differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from colab_bridge.agent.sync.names import fold_key, pick_names
from colab_bridge.agent.sync.tree import (
    EMPTY,
    Blocked,
    Directory,
    Entry,
    File,
    Link,
    Unknown,
    file_entries,
    is_tracked,
    join,
    same,
)
from colab_bridge.sync_core.model import Decision, Reason, Rule, Side, StoredCopy

__all__ = ["MergeOptions", "keep_side", "only_deletions", "reconcile"]

_Children = Mapping[str, Entry]
_Entries = tuple[Entry | None, Entry | None, Entry | None]
_NO_CHILDREN: _Children = {}
_CHANGED_HERE = Rule.R3, Reason.LOCAL_CHANGED
_CHANGED_THERE = Rule.R2, Reason.REMOTE_CHANGED


def _never(path: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """How clashes are decided.

    Attributes:
        winner: The side that keeps the path when both changed it (``prefer``).
        folding: One of the two file systems ignores case or Unicode form: names are compared by their fold key.
        may_execute: Paths for which the runtime may grant the executable bit (``allow_remote_exec``).
    """

    winner: Side = Side.LOCAL
    folding: bool = False
    may_execute: Callable[[str], bool] = _never


class _Names(NamedTuple):
    """Spellings of one name on the three trees."""

    base: str
    local: str
    remote: str


class _Here(NamedTuple):
    """One path in the merge."""

    path: str
    base: Entry | None
    local: Entry | None
    remote: Entry | None
    old_names: tuple[str, str, str] | None
    origins: tuple[str, str]  # paths on (local, remote) before anything is renamed


def reconcile(
    base: Directory, local: Directory, remote: Directory, options: MergeOptions | None = None
) -> tuple[Decision, ...]:
    """Decide what both sides shall have at every path on which the three trees do not agree.

    Args:
        base: Tree at the last agreement; empty before the first sync and for a side that is new (S1).
        local: Tree at home.
        remote: Tree on the runtime.
        options: How clashes are decided.

    Returns:
        Decisions in tree order, parents before children, at most one for a path.
    """
    merge = _Merge(options or MergeOptions())
    if not merge.options.folding and same(local, remote) and same(local, base):
        # As for any folder below; where names are folded, two of one side may still meet.
        return ()
    merge.children("", ("", ""), base.children, local.children, remote.children)
    return tuple(decision for decision in merge.out if decision is not None)


def keep_side(decision: Decision, side: Side) -> tuple[Decision, ...]:
    """Turn a decision round: what stands on a side stays there, and the other side gets it.

    Args:
        decision: One that would change ``side`` and that a person rejected.
        side: The side that keeps what it has.

    Returns:
        The new decision, followed by those for the content where a folder is kept. Versions that the other side loses
        are stored first.
    """
    kept, lost = decision.on(side), decision.on(side.other)
    origin = decision.origins[0 if side.other is Side.LOCAL else 1]
    known = dict(file_entries(decision.base, origin))
    stored = tuple(
        StoredCopy(side=side.other, path=path, entry=entry)
        for path, entry in file_entries(lost, origin)
        if not isinstance(kept, Directory) or not isinstance(lost, Directory)
        if not same(known.get(path), entry)
    )
    outcome = EMPTY if isinstance(kept, Directory) else kept
    turned = replace(
        decision, reason=Reason.REJECTED, outcome=outcome, stored=stored, settled=True, remote_keeps_exec=False
    )
    if not isinstance(kept, Directory) or not isinstance(lost, (File, Link)):
        return (turned,)
    merge = _Merge(MergeOptions())
    mine = (kept.children, _NO_CHILDREN) if side is Side.LOCAL else (_NO_CHILDREN, kept.children)
    merge.children(decision.path, decision.origins, _NO_CHILDREN, *mine)
    return (turned, *(below for below in merge.out if below is not None))


def only_deletions(before: Entry | None, now: Entry | None) -> bool:
    """Return whether everything in ``now`` was in ``before`` already, unchanged."""
    if isinstance(before, Directory) and isinstance(now, Directory):
        return all(only_deletions(before.children.get(name), child) for name, child in now.children.items())
    return now is not None and same(before, now)


def _folder_children(entry: Entry | None) -> _Children:
    return entry.children if isinstance(entry, Directory) else _NO_CHILDREN


def _is_leaf(entry: Entry | None) -> bool:
    return isinstance(entry, (File, Link))


def _is_closed(entry: Entry | None) -> bool:
    return isinstance(entry, (Blocked, Unknown))


class _Merge:
    """One run of the merge; ``out`` has a place for each folder before its content is decided."""

    def __init__(self, options: MergeOptions) -> None:
        self.options = options
        self.out: list[Decision | None] = []

    # -- names ---------------------------------------------------------------------------------------------------

    def children(
        self,
        path: str,
        origins: tuple[str, str],
        base: _Children,
        local: _Children,
        remote: _Children,
    ) -> bool:
        """Decide everything inside one folder; return whether anything of it survives."""
        survives = False
        for name, names, is_twin in (_folded if self.options.folding else _plain)(base, local, remote):
            entries = base.get(names.base), local.get(names.local), remote.get(names.remote)
            plain = not is_twin and name == names.base == names.local == names.remote
            if plain and (decided := _one_sided(*entries)) is not None:
                # Most of a large change; decided as any other leaf would be, without any ceremony.
                survives = self._note(join(path, name), origins, name, entries, decided) or survives
                continue
            here = _Here(
                join(path, name),
                *entries,
                _old_names(path, name, names),
                (join(origins[0], names.local), join(origins[1], names.remote)),
            )
            if is_twin:
                self._leave(here, Reason.COLLISION)
            else:
                survives = self._node(here) or survives
        return survives

    def _note(
        self, path: str, origins: tuple[str, str], name: str, entries: _Entries, decided: tuple[Rule, Reason]
    ) -> bool:
        """Take down what :func:`_one_sided` has decided; return whether a file stands there afterwards."""
        base, local, remote = entries
        made = local if local is not None else remote
        outcome = made if base is None else None
        rule, reason = decided
        self.out.append(
            Decision(
                path=path,
                rule=rule,
                reason=reason,
                base=base,
                local=local,
                remote=remote,
                outcome=outcome,
                origins=(path, path) if origins[0] == origins[1] else (join(origins[0], name), join(origins[1], name)),
            )
        )
        return outcome is not None

    def _say(self, here: _Here, rule: Rule, reason: Reason, outcome: Entry | None, **more: Any) -> None:
        self.out.append(self._decision(here, rule, reason, outcome, **more))

    @staticmethod
    def _decision(here: _Here, rule: Rule, reason: Reason, outcome: Entry | None, **more: Any) -> Decision:
        return Decision(
            path=here.path,
            rule=rule,
            reason=reason,
            base=here.base,
            local=here.local,
            remote=here.remote,
            outcome=outcome,
            old_names=here.old_names,
            origins=here.origins,
            **more,
        )

    def _leave(self, here: _Here, reason: Reason) -> None:
        """R0: nothing is done, the base row stays."""
        self._say(here, Rule.R0, reason, None, settled=False)

    # -- one path --------------------------------------------------------------------------------------------------

    def _node(self, here: _Here) -> bool:
        """Decide one path; return whether something stands there afterwards, or may."""
        if isinstance(here.base, Directory) and not is_tracked(here.base):
            here = here._replace(base=None)
        _, base, local, remote, old_names, _ = here
        if old_names is None and same(local, remote) and same(local, base):
            return local is not None
        if _is_closed(local) or _is_closed(remote):
            closed = local if _is_closed(local) else remote
            self._leave(here, Reason.UNKNOWN if isinstance(closed, Unknown) else Reason.BLOCKED)
            return isinstance(closed, Unknown)
        if _is_leaf(local) or _is_leaf(remote):
            if is_tracked(local) and is_tracked(remote) and _is_leaf(local) != _is_leaf(remote):
                return self._clash(here)
            return self._leaf(here)
        return self._folder(here)

    def _folder(self, here: _Here) -> bool:
        """Folders on both sides, or a folder here and nothing there, or nothing any more."""
        if here.old_names is None and is_tracked(here.local) and same(here.local, here.remote):
            self._say(here, Rule.R1, Reason.AGREED, here.local, adopted=True)
            return True
        was_folder = isinstance(here.base, Directory)
        # A phantom is there when it was agreed that the folder is there, else it is not (2.2).
        is_here = is_tracked(here.local) or (was_folder and isinstance(here.local, Directory))
        is_there = is_tracked(here.remote) or (was_folder and isinstance(here.remote, Directory))
        both, one = is_here and is_there, is_here or is_there
        place = len(self.out)
        self.out.append(None)
        survives = self.children(
            here.path,
            here.origins,
            _folder_children(here.base),
            _folder_children(here.local),
            _folder_children(here.remote),
        )
        stands = both or (one and (survives or not was_folder))
        if not one and here.base is None:
            return survives
        if stands and both and was_folder and here.old_names is None:
            return True
        present = (here.local if is_here else here.remote) if one and not both else None
        rule, reason = self._why_folder(here, present, stands=stands, was_folder=was_folder)
        self.out[place] = self._decision(here, rule, reason, EMPTY if stands else None)
        return stands or survives

    @staticmethod
    def _why_folder(here: _Here, present: Entry | None, *, stands: bool, was_folder: bool) -> tuple[Rule, Reason]:
        """Name the rule; ``present`` is the folder that only one side has."""
        if present is None:
            return Rule.R1, Reason.AGREED
        if here.base is None or (was_folder and not stands and same(here.base, present)):
            # Made by the one that has it, or deleted by the one that has it no more.
            changed_at_home = (present is here.local) == (here.base is None)
            return (Rule.R3, Reason.LOCAL_CHANGED) if changed_at_home else (Rule.R2, Reason.REMOTE_CHANGED)
        return Rule.R5, Reason.SURVIVORS if stands else Reason.EMPTIED

    def _leaf(self, here: _Here) -> bool:
        """At most files and links, apart from phantom folders."""
        local = here.local if _is_leaf(here.local) else None
        remote = here.remote if _is_leaf(here.remote) else None
        seen = self._seen(here, local, remote)
        rule, reason, outcome = self._decide_leaf(here.base, local, seen)
        if outcome is not None and (isinstance(here.local, Directory) or isinstance(here.remote, Directory)):
            # A folder with nothing but left-out content stands where a file should.
            self._leave(here, Reason.IN_THE_WAY)
            return True
        keeps = isinstance(remote, File) and remote.executable and isinstance(seen, File) and not seen.executable
        stored: tuple[StoredCopy, ...] = ()
        if rule is Rule.R10:
            stored = (self._copy_of_loser(here),)
        if rule is Rule.R1 and same(here.base, outcome) and here.old_names is None:
            return outcome is not None
        self._say(here, rule, reason, outcome, stored=stored, remote_keeps_exec=keeps)
        return outcome is not None

    def _seen(self, here: _Here, local: Entry | None, remote: Entry | None) -> Entry | None:
        """The remote entry as far as it counts: an executable bit that the runtime may not grant does not (T14)."""
        if not isinstance(remote, File) or not remote.executable or self.options.may_execute(here.path):
            return remote
        for known in (here.base, local):
            if isinstance(known, File) and known.executable and known.digest == remote.digest:
                return remote
        return File(remote.digest, remote.size)

    def _decide_leaf(
        self, base: Entry | None, local: Entry | None, remote: Entry | None
    ) -> tuple[Rule, Reason, Entry | None]:
        if same(local, remote):
            return Rule.R1, Reason.AGREED, local
        if same(local, base):
            return Rule.R2, Reason.REMOTE_CHANGED, remote
        if same(remote, base):
            return Rule.R3, Reason.LOCAL_CHANGED, local
        if local is None or remote is None:
            return Rule.R4, Reason.EDIT_BEATS_DELETE, local or remote
        winner = local if self.options.winner is Side.LOCAL else remote
        if isinstance(local, File) and isinstance(remote, File):
            known = base if isinstance(base, File) else None
            if local.digest == remote.digest:
                # They differ, so with a base exactly one side has changed the bit.
                favourite = local if self.options.winner is Side.LOCAL else remote
                executable = favourite.executable if known is None else not known.executable
                return Rule.R8, Reason.EXEC_MERGED, File(local.digest, local.size, executable)
            if known and known.digest in {local.digest, remote.digest}:
                changed = remote if known.digest == local.digest else local
                flipped = {local.executable, remote.executable} != {known.executable}
                return Rule.R9, Reason.COMBINED, File(changed.digest, changed.size, known.executable != flipped)
        return Rule.R10, Reason.CONFLICT, winner

    def _copy_of_loser(self, here: _Here) -> StoredCopy:
        side = self.options.winner.other
        entry = here.local if side is Side.LOCAL else here.remote
        assert entry is not None
        return StoredCopy(side=side, path=here.origins[0 if side is Side.LOCAL else 1], entry=entry)

    # -- a folder on one side, a file or link on the other ------------------------------------------------------------

    def _clash(self, here: _Here) -> bool:
        folder_side = Side.LOCAL if isinstance(here.local, Directory) else Side.REMOTE
        leaf = here.remote if folder_side is Side.LOCAL else here.local
        folder = here.local if folder_side is Side.LOCAL else here.remote
        assert isinstance(folder, Directory)
        seen = self._seen(here, None, leaf) if folder_side is Side.LOCAL else leaf
        rule, reason, takes = self._decide_clash(here, folder_side, folder, seen)
        stored: tuple[StoredCopy, ...] = ()
        if rule is Rule.R7:
            stored = self._copies_of_clash(here)
        if takes is not folder_side and not folder.kept.plain:
            self._leave(here, Reason.IN_THE_WAY)
            return True
        if takes is not folder_side:
            keeps = isinstance(leaf, File) and isinstance(seen, File) and leaf.executable and not seen.executable
            self._say(here, rule, reason, seen, stored=stored, remote_keeps_exec=keeps)
            return True
        self._say(here, rule, reason, EMPTY, stored=stored)
        # The winner's folder is kept whole, so nothing in it is compared with what was there before.
        mine, nothing = _folder_children(folder), _NO_CHILDREN
        sides = (mine, nothing) if folder_side is Side.LOCAL else (nothing, mine)
        self.children(here.path, here.origins, nothing, *sides)
        return True

    def _decide_clash(
        self, here: _Here, folder_side: Side, folder: Directory, seen: Entry | None
    ) -> tuple[Rule, Reason, Side]:
        """Return the side whose entry takes the path."""
        local, remote = (folder, seen) if folder_side is Side.LOCAL else (seen, folder)
        if same(local, here.base):
            return Rule.R2, Reason.REMOTE_CHANGED, Side.REMOTE
        if same(remote, here.base):
            return Rule.R3, Reason.LOCAL_CHANGED, Side.LOCAL
        if isinstance(here.base, Directory) and only_deletions(here.base, folder):
            return Rule.R6, Reason.STRIPPED, folder_side.other
        return Rule.R7, Reason.TYPE_CLASH, self.options.winner

    def _copies_of_clash(self, here: _Here) -> tuple[StoredCopy, ...]:
        side = self.options.winner.other
        loser = here.local if side is Side.LOCAL else here.remote
        origin = here.origins[0 if side is Side.LOCAL else 1]
        known = dict(file_entries(here.base, origin))
        return tuple(
            StoredCopy(side=side, path=path, entry=entry)
            for path, entry in file_entries(loser, origin)
            if not same(known.get(path), entry)
        )


def _one_sided(base: Entry | None, local: Entry | None, remote: Entry | None) -> tuple[Rule, Reason] | None:
    """Return what decides over a file that only one side has made or deleted; None for everything else."""
    if base is None and remote is None:
        return _CHANGED_HERE if isinstance(local, File) else None
    if base is None and local is None:
        # An executable bit of the runtime is a question of its own (T14).
        return _CHANGED_THERE if isinstance(remote, File) and not remote.executable else None
    if not isinstance(base, File):
        return None
    if local is None:
        return _CHANGED_HERE if same(remote, base) else None
    return _CHANGED_THERE if remote is None and same(local, base) else None


def _old_names(parent: str, name: str, names: _Names) -> tuple[str, str, str] | None:
    if names.base == names.local == names.remote == name:
        return None
    return join(parent, names.base), join(parent, names.local), join(parent, names.remote)


def _plain(base: _Children, local: _Children, remote: _Children) -> Iterator[tuple[str, _Names, bool]]:
    for name in sorted({**base, **local, **remote}):
        before, here, there = base.get(name), local.get(name), remote.get(name)
        # Most entries of most folders agree; they are told from the others without any ceremony.
        if same(here, there) and same(here, before):
            continue
        yield name, _Names(name, name, name), False


def _folded(base: _Children, local: _Children, remote: _Children) -> Iterator[tuple[str, _Names, bool]]:
    """Pair names by fold key. The name that was agreed stays; further names with its key are blocked as twins."""
    groups: dict[str, tuple[list[str], list[str], list[str]]] = {}
    for place, tree in enumerate((base, local, remote)):
        for name in tree:
            groups.setdefault(fold_key(name), ([], [], []))[place].append(name)
    for key in sorted(groups):
        in_base, in_local, in_remote = groups[key]
        agreed, more_base = pick_names(in_base, (*in_local, *in_remote))
        here, more_local = pick_names(in_local, (agreed, *in_remote))
        there, more_remote = pick_names(in_remote, (here, agreed))
        name = _joined_name(agreed, here, there)
        yield name, _Names(agreed or name, here or name, there or name), False
        for twin in sorted({*more_base, *more_local, *more_remote} - {agreed, here, there}):
            yield twin, _Names(twin, twin, twin), True


def _joined_name(base: str | None, local: str | None, remote: str | None) -> str:
    """Merge the three spellings of one name like a field of its own; both changed it: the one at home counts."""
    if local is None or remote is None:
        return local or remote or base or ""
    return remote if local == base else local
