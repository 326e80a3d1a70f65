"""Carries out a plan: versions that lose their path kept first, content carried, operations done, agreement set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from colab_bridge._util.ids import new_id
from colab_bridge.agent.sync.disk.ops import ApplyOp
from colab_bridge.agent.sync.tree import Directory, File
from colab_bridge.ports.clock import Clock
from colab_bridge.sync.base import HistoryLine, SyncStore
from colab_bridge.sync.carry import Carrier, Progress, is_bulk
from colab_bridge.sync.local import LocalSide, LocalView
from colab_bridge.sync.looking import Looking
from colab_bridge.sync.operations import (
    FolderMove,
    Parted,
    failed_decisions,
    folder_moves,
    older_versions,
    operations_of,
    with_moves,
)
from colab_bridge.sync.planning import Planner
from colab_bridge.sync.remote import Exchange, RemoteFiles
from colab_bridge.sync.report import Deferred
from colab_bridge.sync.stops import waiting_deletions
from colab_bridge.sync.troubles import Trouble
from colab_bridge.sync.turn import Turn
from colab_bridge.sync.versions import VersionKeeper
from colab_bridge.sync_core.changes import Action, Change, apply_changes
from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.plan import Plan, Roots, Transfer
from colab_bridge.sync_core.summary import one_line

__all__ = ["Doing"]

T = TypeVar("T")

# A call takes 2 MiB, of which inlined content may be half.
_PART_BYTES = 800_000
_OPERATION_BYTES = 420
# What is told beforehand is answered at once: a path, a code and a sentence for each that failed.
_BULK_BYTES = 1_600_000
_TOLD_BYTES = 120
_TELLING_BYTES = 1_600_000


def _grouped(items: Sequence[T], size_of: Callable[[T], int], most_bytes: int) -> Iterator[Sequence[T]]:
    """Yield items in their order, as many at once as one call can carry, and at least one."""
    start = size = 0
    for number, item in enumerate(items):
        own = size_of(item)
        if number > start and size + own > most_bytes:
            yield items[start:number]
            start, size = number, 0
        size += own
    if start < len(items):
        yield items[start:]


def _change_bytes(change: Change, rest: int) -> int:
    return rest + _length({change.path, *change.decision.origins})


def _operation_bytes(op: ApplyOp, copies: Mapping[bytes, str]) -> int:
    return _OPERATION_BYTES + _length((op.path, op.old_path, op.target, copies.get(op.digest, "")))


def _length(texts: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def _noted(
    turn: Turn, found: Exchange, expected: Directory | None, changes: Sequence[Change], moves: Sequence[FolderMove]
) -> set[str]:
    """Take note of what an exchange has come to; returns the decisions that failed."""
    turn.as_planned = turn.as_planned and found.tree is expected
    turn.troubles |= {o.path: Trouble(side=Side.REMOTE, code=o.code) for o in found.outcomes}
    return failed_decisions(changes, {outcome.path for outcome in found.outcomes}, moves)


class Doing:
    """Carries out the plans of one pair.

    Args:
        local: This machine's side.
        remote: The runtime's side.
        store: Memory of the pair.
        clock: Time source.
        planner: Makes the plans.
        looking: Asks the runtime.
        progress: Told how large files get on.

    Attributes:
        resting: Paths that do not travel now.
        staged: Large results that are staged here already.
    """

    def __init__(
        self,
        local: LocalSide,
        remote: RemoteFiles,
        store: SyncStore,
        clock: Clock,
        planner: Planner,
        looking: Looking,
        progress: Progress | None,
    ) -> None:
        self._local = local
        self._remote = remote
        self._store = store
        self._clock = clock
        self._planner = planner
        self._looking = looking
        self._progress = progress
        self._keeper = VersionKeeper(local, remote, clock)
        self.resting: set[str] = set()
        self.staged: set[bytes] = set()

    async def carry_out(self, turn: Turn, plan: Plan, view: LocalView) -> bytes:
        """Do what a plan says.

        Returns:
            Digest that the runtime's tree must have now.
        """
        turn.rounds += 1
        turn.as_planned = True
        if not plan.decisions and (turn.reason != "pre" or turn.rounds > 1):
            return self._planner.remote_tree(view).kept.digest
        txn = new_id("txn")
        carrier = Carrier(self._local, self._remote, self._progress, turn.tally, turn.ahead)
        await self._keeper.keep_for_review(plan, txn)
        here, there = await self._local.do(self._parted, turn, plan, view)
        turn.waiting = {d.path for d in plan.decisions if d.path in self.resting}
        turn.waiting |= waiting_deletions(turn.reason, plan, here.moved | there.moved)
        left = self._defer(turn, plan) | turn.waiting
        before = self._planner.remote_tree(view)
        left |= await self._do_here(turn, plan, here.without(left), left, carrier, txn)
        left |= await self._do_there(turn, plan, there.without(left), carrier, txn)
        turn.failed |= left - set(turn.deferred) - turn.waiting
        await self._remember(turn, plan, left, txn)
        if not plan.changes:
            turn.done.append(plan)
            return before.kept.digest
        done = replace(plan, changes=tuple(c for c in plan.changes if c.decision.path not in left))
        turn.done.append(replace(done, decisions=tuple(d for d in plan.decisions if d.path not in left)))
        after = self._planner.remote_tree(view)
        if turn.as_planned and after is self._remote.tree:
            # Nothing had to be left out of what the runtime told, and it told what was expected.
            return after.kept.digest
        return done.after(Side.REMOTE, before).kept.digest

    def _parted(self, turn: Turn, plan: Plan, view: LocalView) -> tuple[Parted, Parted]:
        """Return what changes on either side, with the folders that move whole; blocking."""
        here, there = plan.changes_on(Side.LOCAL), plan.changes_on(Side.REMOTE)
        if turn.rounds > 1:
            # What did not move so in an earlier round goes file by file.
            return Parted(single=here), Parted(single=there)
        return folder_moves(here, view.tree, Side.LOCAL), folder_moves(there, self._remote.tree, Side.REMOTE)

    def _defer(self, turn: Turn, plan: Plan) -> set[str]:
        """Leave large results for the time after the barrier; returns the paths of their decisions."""
        if turn.wait_all:
            return set()
        left: set[str] = set()
        most = self._planner.options.barrier_bytes
        for change in plan.changes_on(Side.LOCAL):
            after = change.after
            large = change.action is Action.WRITE and isinstance(after, File) and after.size > most
            if large and isinstance(after, File) and after.digest not in self.staged:
                turn.deferred[change.decision.path] = Deferred(path=change.path, size=after.size)
                left.add(change.decision.path)
        return left

    # -- here --------------------------------------------------------------------------------------------------------

    async def _do_here(
        self,
        turn: Turn,
        plan: Plan,
        parted: Parted,
        left: Collection[str],
        carrier: Carrier,
        txn: str,
    ) -> set[str]:
        """Bring down and apply what changes on this machine; returns the decisions that failed."""
        stored = [
            (d.path, copy)
            for d in plan.decisions
            if d.path not in left and d.path not in plan.held
            for copy in d.stored
        ]
        changes = [*parted.single, *(change for move in parted.moves for change in move.changes)]
        if not changes and not stored:
            return set()
        moves, single = parted.moves, parted.single
        needed = {c.after.digest for c in single if isinstance(c.after, File)}
        needed |= {copy.entry.digest for _, copy in stored if isinstance(copy.entry, File)}
        transfers = [t for t in plan.transfers() if t.to is Side.LOCAL and t.digest in needed] if needed else []
        if not stored and is_bulk(transfers, Side.LOCAL):
            # Versions for the conflict store are read from the stage, so nothing grows beside them.
            await self._local.do(self._local.expect, txn, operations_of(single, lambda _: None))
        missing = await carrier.down(transfers, self._looking.came_along(), older_versions(plan, Side.LOCAL))
        if await self._local.do(self._planner.notice_noise, changes):
            # Planned anew, so that the stop holds them; what has come down stays in the stage.
            return {c.decision.path for c in changes} | {path for path, _ in stored}
        turn.troubles |= await self._keeper.keep_losers(stored, needed_after=changes, txn=txn)
        failed = {path for path, _ in stored if path in turn.troubles}
        failed |= {c.decision.path for c in single if isinstance(c.after, File) and c.after.digest in missing}
        ready = [c for c in single if c.decision.path not in failed]
        return failed | await self._apply_here(turn, ready, moves, txn) if ready or moves else failed

    async def _apply_here(self, turn: Turn, ready: Sequence[Change], moves: Sequence[FolderMove], txn: str) -> set[str]:
        operations = with_moves(operations_of(ready, lambda _: None), moves)
        results = await self._local.do(self._local.apply, txn, operations, self._store.base())
        bad = {result.path for result in results if not result.ok}
        turn.troubles |= {r.path: Trouble(side=Side.LOCAL, code=r.code) for r in results if not r.ok}
        return failed_decisions(ready, bad, moves)

    # -- there -------------------------------------------------------------------------------------------------------

    async def _do_there(self, turn: Turn, plan: Plan, parted: Parted, carrier: Carrier, txn: str) -> set[str]:
        """Bring up and apply what changes on the runtime, in the exchange of the barrier; returns what failed."""
        moves, single = parted.moves, parted.single
        needed = {c.after.digest for c in single if isinstance(c.after, File)}
        transfers = [t for t in plan.transfers() if t.to is Side.REMOTE and t.digest in needed] if needed else []
        if is_bulk(transfers, Side.REMOTE):
            return await self._do_bulk(turn, plan, single, moves, transfers, carrier, txn)
        batch, copies, missing = await carrier.up(transfers, older_versions(plan, Side.REMOTE))
        failed = {c.decision.path for c in single if isinstance(c.after, File) and c.after.digest in missing}
        ready = [c for c in single if c.decision.path not in failed]
        if not ready and not moves and (turn.rounds > 1 or turn.reason != "pre"):
            return failed
        at_hand = dict(copies)
        parts = list(_grouped(ready, partial(_change_bytes, rest=_OPERATION_BYTES), _PART_BYTES)) or [()]
        for number, part in enumerate(parts):
            needed = {c.after.digest for c in part if isinstance(c.after, File)}
            together = moves if not number else ()
            whole = parted.after if len(parts) == 1 and len(ready) == len(single) else None
            operations, expected = await self._local.do(self._for_there, part, together, whole)
            found = await self._looking.exchange(
                turn,
                "pre",
                txn,
                operations,
                [(digest, at_hand[digest]) for digest in needed if digest in at_hand],
                batch if not number else b"",
                expected,
            )
            # What went into the tree has left the stage; a later part that needs it too takes a copy.
            at_hand.update((c.after.digest, c.path) for c in part if isinstance(c.after, File))
            failed |= _noted(turn, found, expected, part, together)
        return failed

    async def _do_bulk(
        self,
        turn: Turn,
        plan: Plan,
        changes: Sequence[Change],
        moves: Sequence[FolderMove],
        transfers: Sequence[Transfer],
        carrier: Carrier,
        txn: str,
    ) -> set[str]:
        """Do what needs more content than an exchange can carry: operations are told first, so that it finds its place.

        Returns:
            The decisions that failed.
        """
        sources = {t.digest: t for t in transfers}
        older = older_versions(plan, Side.REMOTE)
        placed: dict[bytes, str] = {}
        failed: set[str] = set()
        for number, group in enumerate(_grouped(changes, partial(_change_bytes, rest=_TOLD_BYTES), _BULK_BYTES)):
            together = moves if not number else ()
            operations, expected = await self._local.do(self._for_there, group, together)
            # In the order of the folders, where it is read here and written there.
            needed = dict.fromkeys(op.digest for op in operations if op.digest)
            copies = {d: placed[d] for d in needed if d in placed}
            mine = [sources[digest] for digest in needed if digest in sources and digest not in copies]
            copies.update({t.digest: t.source for t in mine if t.source_side is Side.REMOTE})
            more = False
            for told in list(_grouped(operations, partial(_operation_bytes, copies=copies), _TELLING_BYTES)):
                theirs = [(op.digest, copies.pop(op.digest)) for op in told if op.digest in copies]
                await self._remote.tell(txn, told, theirs, more=more)
                more = True
            await carrier.up(mine, older, inline=False)
            found = await self._looking.exchange(turn, "pre", txn, told=len(operations), expected=expected)
            # What went into the tree has left the stage; a later group that needs it too takes a copy.
            placed.update((c.after.digest, c.path) for c in group if isinstance(c.after, File))
            failed |= _noted(turn, found, expected, group, together)
        return failed

    def _for_there(
        self, changes: Sequence[Change], moves: Sequence[FolderMove], after: Directory | None = None
    ) -> tuple[list[ApplyOp], Directory | None]:
        """Return operations for the runtime, and the tree that it has when all of them are done; blocking.

        Args:
            changes: What they do.
            moves: Folders that move whole.
            after: That tree, where it is known already.
        """
        before = self._remote.tree
        if after is not None or before is None or not (changes or moves):
            return with_moves(operations_of(changes, self._mtime_here), moves), after
        every = (*changes, *(change for move in moves for change in move.changes))
        expected = apply_changes(before, every, Side.REMOTE, ordered=not moves)
        return with_moves(operations_of(changes, self._mtime_here), moves), expected

    def _mtime_here(self, change: Change) -> int | None:
        return self._local.folder.mtime_of(change.decision.origins[0])

    # -- remembering -------------------------------------------------------------------------------------------------

    async def _remember(self, turn: Turn, plan: Plan, failed: Collection[str], txn: str) -> None:
        """Set the new agreement in one durable step; nothing is written where nothing was done."""
        if plan.halted is not None:
            return
        base = plan.next_base(failed)
        done = [c for c in plan.changes if c.decision.path not in failed]
        line = self._history(turn, replace(plan, changes=tuple(done)), txn) if done else None
        if plan.decisions or self._planner.roots() != Roots() or self._planner.standing != plan.standing:
            await self._local.do(self._commit, plan, base, line)
            self._planner.standing = plan.standing
        self._planner.explained = False

    def _commit(self, plan: Plan, base: Directory, line: HistoryLine | None) -> None:
        self._store.commit(base, history=line)
        self._store.set_standing(plan.standing)
        info = self._remote.info
        for key, value in (("local", self._local.folder.identity), ("remote", info.identity if info else "")):
            if self._store.meta(key) != value:
                self._store.set_meta(key, value)

    def _history(self, turn: Turn, plan: Plan, txn: str) -> HistoryLine:
        return HistoryLine(
            txn=txn,
            at=self._clock.time(),
            reason=turn.reason,
            line=one_line(plan),
            up=len(plan.changes_on(Side.REMOTE)),
            down=len(plan.changes_on(Side.LOCAL)),
            sent=turn.tally.sent,
            received=turn.tally.received,
            seconds=round(self._clock.monotonic() - turn.started, 4),
        )
