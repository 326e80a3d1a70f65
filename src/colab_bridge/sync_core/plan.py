"""One call from three trees to a plan: reconcile, screen, stop, order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from colab_bridge.agent.sync.pages import row_of
from colab_bridge.agent.sync.tree import EMPTY, Directory, Entry, File, file_entries
from colab_bridge.sync_core.changes import (
    Action,
    Change,
    advance,
    apply_changes,
    changes_of,
    without_full_folders,
)
from colab_bridge.sync_core.model import Decision, Hold, Reason, Side, Stop, StoredCopy
from colab_bridge.sync_core.reconcile import MergeOptions, keep_side, reconcile
from colab_bridge.sync_core.safety import Circumstances, RootState, screen, stops

__all__ = ["Plan", "Roots", "Transfer", "plan_sync"]

_ONE_BY_ONE = frozenset({Stop.GUARDED, Stop.REVIEW, Stop.LINK, Stop.NAME})
_NOT_APPROVABLE = frozenset({Stop.GUARDED, Stop.LINK, Stop.NAME, Stop.ROOT_LOST, Stop.LOW_DISK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """State of both roots (S1, S5)."""

    local: RootState = RootState.SAME
    remote: RootState = RootState.SAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Bytes that one side needs, once for each content.

    Attributes:
        to: The side that needs them.
        digest: Content.
        size: Bytes.
        source: A path that has the content now, on the side ``source_side``.
        source_side: Equal to ``to`` where the content is there already (a move, a copy): nothing is sent.
    """

    to: Side
    digest: bytes
    size: int
    source: str
    source_side: Side

    @property
    def sent(self) -> int:
        """Bytes that cross the line."""
        return 0 if self.source_side is self.to else self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a sync is going to do; nothing in it has happened yet.

    Attributes:
        decisions: One for each path that is not in full agreement, in tree order.
        changes: Operations in the order of the transaction; each is independent of the others that fail.
        stored: Versions that must be in the conflict store, verified and durable, before the first operation.
        holds: What waits for a person.
        quarantine: Versions of the runtime that are held, whose bytes a review shows.
        kept_folders: Removals of folders that are left out because something stays in them.
        halted: The root is not usable (S5): nothing is done at all.
        base: The ancestor that was used; empty for a new peer (S1).
        held: Paths of the decisions that are held.
    """

    decisions: tuple[Decision, ...] = ()
    changes: tuple[Change, ...] = ()
    stored: tuple[StoredCopy, ...] = ()
    holds: tuple[Hold, ...] = ()
    quarantine: tuple[StoredCopy, ...] = ()
    kept_folders: tuple[Change, ...] = ()
    halted: Stop | None = None
    base: Directory = EMPTY
    held: frozenset[str] = field(default=frozenset())

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to do and nothing in the way."""
        return not (self.changes or self.holds or self.halted or any(not d.settled for d in self.decisions))

    @property
    def standing(self) -> dict[tuple[Stop, Side], frozenset[str]]:
        """What the stops of quantity hold: handed to the next plan, so that no stop wears off by itself."""
        return {
            (hold.stop, hold.side): frozenset(hold.paths)
            for hold in self.holds
            if hold.stop in {Stop.MASS_DELETION, Stop.MASS_CHANGE, Stop.VOLUME}
        }

    def changes_on(self, side: Side) -> tuple[Change, ...]:
        """Return the operations of one side, in order."""
        return tuple(change for change in self.changes if change.side is side)

    def after(self, side: Side, tree: Directory) -> Directory:
        """Return the tree that the side has when every operation went well; its digest is the proof to ask for."""
        return apply_changes(tree, self.changes, side, ordered=True)

    def next_base(self, failed: Collection[str] = ()) -> Directory:
        """Return the ancestor after the transaction.

        Args:
            failed: Paths of decisions of which an operation did not succeed.
        """
        return advance(self.base, self.decisions, {*self.held, *failed})

    def transfers(self) -> tuple[Transfer, ...]:
        """Return the bytes that move, conflict copies included, each content once for each side."""
        return _transfers(self)


def plan_sync(
    base: Directory,
    local: Directory,
    remote: Directory,
    *,
    options: MergeOptions | None = None,
    facts: Circumstances | None = None,
    roots: Roots | None = None,
    approved: Collection[str] = (),
    rejected: Collection[str] = (),
) -> Plan:
    """Decide everything that a sync does.

    Args:
        base: Ancestor, stripped by the same ignore rules as the two trees.
        local: Tree at home; leaving links are blocked already.
        remote: Tree on the runtime.
        options: How clashes are decided.
        facts: What else the decisions depend on.
        roots: State of both roots.
        approved: Ids of holds that a person allowed.
        rejected: Ids of holds that a person refused: the change is undone on the side that made it.

    Returns:
        The plan; equal inputs give equal plans.
    """
    states = roots or Roots()
    if states.local.halts or states.remote.halts:
        side = Side.LOCAL if states.local.halts else Side.REMOTE
        hold = Hold(id=f"S5-{side}", stop=Stop.ROOT_LOST, side=side, paths=(), approvable=False)
        return Plan(halted=Stop.ROOT_LOST, holds=(hold,), base=base)
    if RootState.NEW in {states.local, states.remote}:
        base = EMPTY
    circumstances = facts or Circumstances()
    decisions = _healed(reconcile(base, local, remote, options), circumstances.suspect)
    plan = _planned(decisions, base, local, remote, circumstances, frozenset(approved))
    refused = [hold for hold in plan.holds if hold.id in rejected]
    if refused:
        turned = _turned(decisions, refused)
        plan = _planned(turned, base, local, remote, circumstances, frozenset(approved))
    return plan


def _healed(decisions: tuple[Decision, ...], suspect: Collection[str]) -> tuple[Decision, ...]:
    """Take the runtime's version where a power cut took the end of this machine's; what is left of it is stored."""
    if not suspect:
        return decisions
    out: list[Decision] = []
    for decision in decisions:
        files = isinstance(decision.local, File) and isinstance(decision.remote, File)
        if decision.path in suspect and files and decision.local != decision.remote:
            (turned,) = keep_side(decision, Side.REMOTE)
            out.append(replace(turned, reason=Reason.TORN))
        else:
            out.append(decision)
    return tuple(out)


def _planned(
    decisions: tuple[Decision, ...],
    base: Directory,
    local: Directory,
    remote: Directory,
    facts: Circumstances,
    approved: frozenset[str],
) -> Plan:
    groups = {decision.path: changes_of(decision) for decision in decisions}
    groups = {path: group for path, group in groups.items() if group}
    holds: list[Hold] = []
    screened = screen(groups, local, remote, facts)
    held = _hold(groups, screened, holds, approved)
    free = [change for path, group in groups.items() if path not in held for change in group]
    found = stops(free, base, local, remote, facts)
    for (stop, side), paths in sorted(found.items(), key=lambda item: (item[0][0].value, item[0][1])):
        whole = _with_below(paths, groups, side)
        hold = _make_hold(stop, side, whole, groups)
        if hold.id not in approved:
            holds.append(hold)
            # Under S2 the ancestor must not even forget what both lost, or the stop would wear off.
            held |= {decision.path for decision in decisions} if stop is Stop.EMPTIED_ROOT else whole
    free = [change for path, group in groups.items() if path not in held for change in group]
    changes, kept = without_full_folders(free)
    return Plan(
        decisions=decisions,
        changes=changes,
        stored=tuple(copy for d in decisions if d.path not in held for copy in d.stored),
        holds=tuple(holds),
        quarantine=_quarantine(decisions, held),
        kept_folders=kept,
        base=base,
        held=frozenset(held),
    )


def _hold(
    groups: Mapping[str, tuple[Change, ...]], screened: Mapping[str, Stop], holds: list[Hold], approved: frozenset[str]
) -> set[str]:
    """Make the holds of single paths, a new folder with its content as one; return what is held after approvals."""
    top: dict[str, str] = {}
    for path, stop in screened.items():
        parent = path.rpartition("/")[0]
        top[path] = top[parent] if screened.get(parent) is stop else path
    together: dict[str, set[str]] = {}
    for path, first in top.items():
        together.setdefault(first, set()).add(path)
    held: set[str] = set()
    for first, paths in together.items():
        hold = _make_hold(screened[first], Side.LOCAL, frozenset(paths), groups)
        if hold.id in approved and hold.approvable and first.rpartition("/")[0] not in held:
            continue
        holds.append(hold)
        held |= paths
    return held


def _with_below(paths: frozenset[str], groups: Mapping[str, tuple[Change, ...]], side: Side) -> frozenset[str]:
    """Add what cannot happen without a held folder."""
    whole = set(paths)
    for path, group in groups.items():
        parent = path.rpartition("/")[0]
        made = any(change.side is side and change.action < Action.REMOVE for change in groups.get(parent, ()))
        if parent in whole and made and any(change.side is side for change in group):
            whole.add(path)
    return frozenset(whole)


def _make_hold(stop: Stop, side: Side, paths: frozenset[str], groups: Mapping[str, tuple[Change, ...]]) -> Hold:
    state = blake2b(f"{stop.value} {side}".encode(), digest_size=4, person=b"cb-sync-hold")
    for path in sorted(paths):
        for change in groups[path]:
            rows = [row_of("", entry) if entry else None for entry in (change.before, change.after)]
            seen = [change.side.value, change.action.value, change.path, *rows, _deep(change.decision)]
            state.update(repr(seen).encode("utf-8", "surrogatepass"))
    return Hold(
        id=f"{stop.value}-{state.hexdigest()}".lower(),
        stop=stop,
        side=side,
        paths=tuple(sorted(paths)),
        approvable=stop not in _NOT_APPROVABLE,
    )


def _deep(decision: Decision) -> list[str]:
    """Everything a person has seen of a decision: also what is inside folders."""
    entries = (decision.base, decision.local, decision.remote)
    return [entry.kept.digest.hex() if isinstance(entry, Directory) else repr(entry) for entry in entries]


def _quarantine(decisions: Iterable[Decision], held: Collection[str]) -> tuple[StoredCopy, ...]:
    return tuple(
        StoredCopy(side=Side.REMOTE, path=decision.origins[1], entry=decision.remote)
        for decision in decisions
        if decision.path in held and isinstance(decision.remote, File) and decision.remote != decision.local
    )


def _turned(decisions: tuple[Decision, ...], refused: Iterable[Hold]) -> tuple[Decision, ...]:
    sides = {path: hold.side for hold in refused for path in hold.paths}
    out: list[Decision] = []
    covered: str | None = None
    for decision in decisions:
        if covered is not None and decision.path.startswith(covered):
            continue
        covered = None
        side = sides.get(decision.path)
        if side is None:
            out.append(decision)
            continue
        turned = keep_side(decision, side)
        out += turned
        if not isinstance(turned[0].outcome, Directory) and _below_is_decided(decision):
            # What stood below on the other side goes with its folder.
            covered = decision.path + "/"
    return tuple(out)


def _below_is_decided(decision: Decision) -> bool:
    return (
        decision.reason is not Reason.REJECTED
        and isinstance(decision.outcome, Directory)
        and (not isinstance(decision.local, Directory) or not isinstance(decision.remote, Directory))
        and decision.on(Side.LOCAL) is not None
        and decision.on(Side.REMOTE) is not None
    )


# -- bytes -----------------------------------------------------------------------------------------------------------


def _transfers(plan: Plan) -> tuple[Transfer, ...]:
    at_hand = _at_hand(plan.changes)
    out: dict[tuple[Side, bytes], Transfer] = {}
    for change in plan.changes:
        entry = change.after
        if change.action is not Action.WRITE or not isinstance(entry, File):
            continue
        key = (change.side, entry.digest)
        path = at_hand.get(key)
        origin = change.decision.origins[1 if change.side is Side.LOCAL else 0]
        out.setdefault(
            key,
            Transfer(
                to=change.side,
                digest=entry.digest,
                size=entry.size,
                source=origin if path is None else path,
                source_side=change.side.other if path is None else change.side,
            ),
        )
    for copy in plan.stored:
        if copy.side is Side.REMOTE and isinstance(copy.entry, File):
            key = (Side.LOCAL, copy.entry.digest)
            out.setdefault(
                key,
                Transfer(
                    to=Side.LOCAL,
                    digest=copy.entry.digest,
                    size=copy.entry.size,
                    source=copy.path,
                    source_side=Side.REMOTE,
                ),
            )
    return tuple(out.values())


def _at_hand(changes: Iterable[Change]) -> dict[tuple[Side, bytes], str]:
    """Content that a side has at a path which the plan takes away or overwrites there: moves send nothing.

    Args:
        changes: In the order of the transaction.
    """
    found: dict[tuple[Side, bytes], str] = {}
    for change in changes:
        if change.action is Action.RENAME or change.before is None or change.action is Action.REMOVE_FOLDER:
            continue
        origin = change.decision.origins[0 if change.side is Side.LOCAL else 1]
        before: Entry = change.before
        for path, entry in file_entries(before, origin):
            if isinstance(entry, File):
                found.setdefault((change.side, entry.digest), path)
    return found
