"""Keeps one session's two folders in step: look, plan, carry, apply, remember."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from colab_bridge._util.ids import new_id
from colab_bridge.agent.sync.disk.ops import ApplyOp
from colab_bridge.agent.sync.disk.scan import LeftOut
from colab_bridge.agent.sync.ignore import strip_ignored
from colab_bridge.agent.sync.names import shown
from colab_bridge.agent.sync.pages import WireError
from colab_bridge.agent.sync.service_folder import RootGone
from colab_bridge.agent.sync.tree import Directory, File, entry_at
from colab_bridge.errors import ColabBridgeError
from colab_bridge.ports.clock import Clock
from colab_bridge.sync.base import HistoryLine, SyncStore
from colab_bridge.sync.carry import Carrier, Older, Progress, Tally
from colab_bridge.sync.failures import FailureKind, SyncFailure, listed
from colab_bridge.sync.local import ROOT_FAULT, LocalSide, LocalView
from colab_bridge.sync.operations import failed_decisions, older_versions, operations_of
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync.planning import Planner
from colab_bridge.sync.remote import Exchange, RemoteFailure, RemoteFiles
from colab_bridge.sync.report import Deferred, SyncReport, make_report
from colab_bridge.sync.stops import check_stops, offline, waiting_deletions
from colab_bridge.sync.versions import VersionKeeper
from colab_bridge.sync_core.changes import Action, Change, agreed
from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.plan import Plan, Roots, Transfer
from colab_bridge.sync_core.summary import one_line

__all__ = ["PairOptions", "SyncController"]

log = logging.getLogger(__name__)

_ROUNDS = 3
_REVIEW_BYTES = 1 << 20
_MOST_OPERATIONS = 10_000
_UNTOLD = 200
_GREET_AGAIN = frozenset({"no-workspace", "rules", "reset", "root-gone"})


@dataclass(slots=True)
class _Turn:
    """One call of :meth:`SyncController.sync`, over its rounds."""

    reason: str
    wait_all: bool
    started: float
    tally: Tally = field(default_factory=Tally)
    plans: list[Plan] = field(default_factory=list)
    done: list[Plan] = field(default_factory=list)
    deferred: dict[str, Deferred] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    unstable: tuple[str, ...] = ()
    round_trips: int = 0


class SyncController:
    """See the module. Calls may come from several tasks; transactions of a project never overlap.

    Args:
        session: Name of the session.
        local: This machine's side.
        remote: The runtime's side.
        store: Memory of the pair.
        clock: Time source.
        options: From the settings.
        progress: Told how large files get on.

    Attributes:
        last: What the last sync has done; None before the first.
        poisoned: Why the sync of this session has ended for good; empty otherwise.
        resting: Paths that do not travel now: notebooks whose outputs are being written by a run.
        hushed: Paths that no summary names.
        wanted_later: Set when large results wait to be fetched.
    """

    def __init__(
        self,
        session: str,
        local: LocalSide,
        remote: RemoteFiles,
        store: SyncStore,
        clock: Clock,
        options: PairOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.session = session
        self.local = local
        self.remote = remote
        self.store = store
        self.options = options or PairOptions()
        self.progress = progress
        self.last: SyncReport | None = None
        self.poisoned = store.meta("poisoned")
        self._clock = clock
        self._open = False
        self._explained = False
        self._rules_id = store.meta("rules")
        self._planner = Planner(local, remote, store, self.options)
        self._keeper = VersionKeeper(local, remote, clock)
        self._along: Mapping[bytes, memoryview] = {}
        self._untold: list[SyncReport] = []
        self.resting: set[str] = set()
        self.hushed: set[str] = set()
        self._view: LocalView | None = None
        self._staged: set[bytes] = set()
        self.wanted_later = asyncio.Event()
        self._watching = False

    # -- state -------------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether a person stopped the sync for now."""
        return self.store.meta("paused") == "yes"

    async def pause(self, *, on: bool) -> None:
        """Stop the sync, or let it go on; nothing is under way when this returns."""
        async with self.local.lock:
            await self.local.do(self.store.set_meta, "paused", "yes" if on else "")

    async def include(self, path: str) -> None:
        """Lift the limits of size for a path that was asked for by name."""
        paths = sorted({*json.loads(self.store.meta("included", "[]")), path})
        await self.local.do(self.store.set_meta, "included", json.dumps(paths))

    def link_lost(self) -> None:
        """Take note that the agent was started anew: it is greeted before the next exchange."""
        self._open = False

    def run_happened(self) -> None:
        """Take note that code has run there, which may explain many changes (S4)."""
        self._explained = True

    def take_untold(self) -> list[SyncReport]:
        """Return the reports of syncs between barriers, which nobody was told about yet."""
        found, self._untold = self._untold, []
        return found

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return what stays on this machine, as of the last look."""
        return self._view.settlement.left_out if self._view is not None else ()

    async def first_sync(self) -> SyncReport:
        """Bring both folders to agreement before a kernel starts; the next run tells about it.

        Raises:
            SyncFailure: the folders do not agree, with the reason.
        """
        report = await self.sync("pre")
        self._keep_untold(report)
        return report

    async def keep_up(self) -> SyncReport:
        """Bring both folders to agreement because one of them changed; the next barrier tells about it.

        Raises:
            SyncFailure: the folders do not agree, with the reason.
        """
        report = await self.sync("watch")
        self._keep_untold(report)
        return report

    def _keep_untold(self, report: SyncReport) -> None:
        if report.up or report.down or report.notices:
            self._untold = [*self._untold[-_UNTOLD:], report]

    # -- the one way in ----------------------------------------------------------------------------------------------

    async def sync(self, reason: str, *, wait_all: bool = False) -> SyncReport:
        """Bring both folders to agreement.

        Args:
            reason: ``pre`` (before a run), ``post`` (after one), ``watch`` or ``sync`` (a person asks; looks at
                everything).
            wait_all: Large results too; otherwise they are left for later.

        Returns:
            What was done and what is left.

        Raises:
            SyncFailure: the folders do not agree, with the reason.
        """
        if self.poisoned:
            raise SyncFailure(FailureKind.PROTOCOL, f"the sync of this session has ended: {self.poisoned}")
        async with self.local.lock:
            if self.paused:
                raise SyncFailure(FailureKind.PAUSED, "the sync is paused")
            turn = _Turn(reason=reason, wait_all=wait_all, started=self._clock.monotonic())
            trips = self.remote.round_trips
            settled = await self._guarded(turn)
            turn.round_trips = self.remote.round_trips - trips
            self.last = self._report(turn)
            if not settled:
                where = listed(turn.failed) or "on the runtime"
                raise SyncFailure(FailureKind.UNSETTLED, f"files kept changing: {where}", paths=turn.failed)
            return self.last

    async def _guarded(self, turn: _Turn) -> bool:
        """Do the rounds; every fault becomes a failure of a known kind."""
        try:
            try:
                return await self._rounds(turn)
            except RemoteFailure as error:
                if error.code not in _GREET_AGAIN:
                    raise
                # The agent was started anew: everything that it knew is gone, nothing else.
                self._open = False
                return await self._rounds(turn)
        except WireError as error:
            await self._poison(str(error))
            raise SyncFailure(FailureKind.PROTOCOL, f"the runtime broke the rules: {shown(str(error))}") from error
        except RemoteFailure as error:
            self._open = self._open and error.code not in _GREET_AGAIN
            raise offline(error) from error
        except RootGone as error:
            raise SyncFailure(FailureKind.HALTED, str(error)) from error
        except ColabBridgeError as error:
            kind = FailureKind.UNUSABLE if error.code == ROOT_FAULT else FailureKind.DISK
            raise SyncFailure(kind, error.message, hint=error.hint) from error
        except OSError as error:
            raise SyncFailure(FailureKind.DISK, f"this machine's disk: {error.strerror or error}") from error

    async def _poison(self, text: str) -> None:
        """End the sync of this session: the other side is not what it should be (S9)."""
        self.poisoned = text
        log.error("sync ended", extra={"session": self.session, "reason": text})
        await self.local.do(self.store.set_meta, "poisoned", text)

    async def plan(self) -> tuple[Plan, LocalView]:
        """Return what a sync would do now; nothing is done.

        Raises:
            SyncFailure: one side cannot be looked at.
        """
        async with self.local.lock:
            try:
                view = await self._look_here("sync")
                await self._greet(view)
                await self.remote.snapshot()
                return self._planner.plan(view, explained=self._explained), view
            except (RemoteFailure, WireError, RootGone) as error:
                kind = FailureKind.OFFLINE if isinstance(error, RemoteFailure) else FailureKind.HALTED
                raise SyncFailure(kind, str(error)) from error

    # -- rounds ------------------------------------------------------------------------------------------------------

    async def _rounds(self, turn: _Turn) -> bool:
        view = await self._first_look(turn)
        for number in range(_ROUNDS):
            if number:
                view = await self._look_here(turn.reason)
            plan = self._planner.plan(view, explained=self._explained)
            check_stops(plan)
            turn.failed.clear()
            expected = await self._carry_out(turn, plan, view)
            if not turn.failed and self._planner.remote_tree(view).kept.digest == expected:
                return True
        plan = self._planner.plan(await self._look_here(turn.reason), explained=self._explained)
        left = {change.decision.path for change in plan.changes} - set(turn.deferred) - turn.waiting
        turn.failed |= left
        return not left

    async def _first_look(self, turn: _Turn) -> LocalView:
        if not self._open:
            view = await self._look_here("sync")
            await self._greet(view)
            await self.remote.snapshot()
            return view
        if self.remote.tree is None:
            view, _ = await asyncio.gather(self._look_here(turn.reason), self.remote.snapshot())
        elif turn.reason == "pre":
            view = await self._look_here(turn.reason)
        else:
            verb = "pre" if turn.reason == "watch" else "post"
            view, _ = await asyncio.gather(self._look_here(turn.reason), self._exchange(turn, verb))
        await self._keep_rules(view)
        return view

    async def _look_here(self, reason: str) -> LocalView:
        self._view = await self.local.look(walk=reason == "sync", known=self.store.base())
        return self._view

    async def _greet(self, view: LocalView) -> None:
        """Open the workspace on the runtime, and see whether it is the one that we know (S1)."""
        await self.remote.hello(view.rules)
        self._open, self._watching = True, False
        await self._keep_rules(view)

    async def _keep_rules(self, view: LocalView) -> None:
        """After a change of the rules the ancestor forgets what they leave out, and the runtime learns them (H03)."""
        rules_id = view.rules_id
        if self._rules_id != rules_id:
            base = agreed(strip_ignored(self.store.base(), view.rules))
            await self.local.do(self.store.commit, base)
            await self.local.do(self.store.set_meta, "rules", rules_id)
            self._rules_id = rules_id
        if self.remote.rules_id != rules_id:
            await self.remote.set_rules(view.rules)
            await self.remote.snapshot()

    async def _exchange(
        self,
        turn: _Turn,
        verb: str,
        txn: str = "",
        operations: Sequence[ApplyOp] = (),
        copies: Sequence[tuple[bytes, str]] = (),
        batch: bytes = b"",
    ) -> Exchange:
        found = await self.remote.exchange(verb, txn=txn, operations=operations, copies=copies, batch=batch)
        turn.unstable = found.unstable or turn.unstable
        self._along = found.content
        if found.tree is None:
            await self.remote.snapshot(walk=False)
        return found

    # -- large results -----------------------------------------------------------------------------------------------

    def fetch_later(self) -> None:
        """Have :meth:`fetch_deferred` called by whoever keeps this pair in step."""
        self.wanted_later.set()

    async def watch_remote(self) -> None:
        """Ask the runtime to tell of changes, once for each greeting.

        Raises:
            RemoteFailure: it cannot be reached.
        """
        if self._open and not self._watching:
            self._watching = True
            await self.remote.watch(on=True)

    async def fetch_deferred(self) -> None:
        """Stage large results without holding up anybody, then put them into place.

        Raises:
            SyncFailure: the runtime cannot be reached now; what has come is kept.
        """
        report, tree = self.last, self.remote.tree
        carrier = Carrier(self.local, self.remote, self.progress)
        for item in sorted(report.deferred, key=lambda d: d.size) if report is not None else ():
            entry = entry_at(tree, item.path) if tree is not None else None
            if not isinstance(entry, File):
                continue
            transfer = Transfer(
                to=Side.LOCAL, digest=entry.digest, size=entry.size, source=item.path, source_side=Side.REMOTE
            )
            old = entry_at(self._view.tree, item.path) if self._view is not None else None
            older = Older(path=item.path, file=old) if isinstance(old, File) else None
            try:
                if await carrier.down_large(transfer, older):
                    self._staged.add(entry.digest)
            except RemoteFailure as error:
                raise offline(error) from error
            except WireError as error:
                await self._poison(str(error))
                raise SyncFailure(FailureKind.PROTOCOL, f"the runtime broke the rules: {shown(str(error))}") from error
        await self.keep_up()
        self._staged.clear()

    # -- carrying out ------------------------------------------------------------------------------------------------

    async def _carry_out(self, turn: _Turn, plan: Plan, view: LocalView) -> bytes:
        """Do what a plan says.

        Returns:
            Digest that the runtime's tree must have now.
        """
        turn.plans.append(plan)
        if not plan.decisions and (turn.reason != "pre" or len(turn.plans) > 1):
            return self._planner.remote_tree(view).kept.digest
        txn = new_id("txn")
        carrier = Carrier(self.local, self.remote, self.progress, turn.tally)
        await self._keeper.keep_for_review(plan, txn)
        turn.waiting = {d.path for d in plan.decisions if d.path in self.resting} | waiting_deletions(turn.reason, plan)
        left = self._defer(turn, plan) | turn.waiting
        here = [c for c in plan.changes_on(Side.LOCAL) if c.decision.path not in left]
        there = [c for c in plan.changes_on(Side.REMOTE) if c.decision.path not in left]
        before = self._planner.remote_tree(view)
        left |= await self._do_here(turn, plan, here, left, carrier, txn)
        left |= await self._do_there(turn, plan, [c for c in there if c.decision.path not in left], carrier, txn)
        turn.failed |= left - set(turn.deferred) - turn.waiting
        await self._remember(turn, plan, left, txn, here=bool(here))
        if not plan.changes:
            turn.done.append(plan)
            return before.kept.digest
        done = replace(plan, changes=tuple(c for c in plan.changes if c.decision.path not in left))
        turn.done.append(replace(done, decisions=tuple(d for d in plan.decisions if d.path not in left)))
        return done.after(Side.REMOTE, before).kept.digest

    def _defer(self, turn: _Turn, plan: Plan) -> set[str]:
        """Leave large results for the time after the barrier; returns the paths of their decisions."""
        if turn.wait_all:
            return set()
        left: set[str] = set()
        for change in plan.changes_on(Side.LOCAL):
            after = change.after
            large = (
                change.action is Action.WRITE and isinstance(after, File) and after.size > self.options.barrier_bytes
            )
            if large and isinstance(after, File) and after.digest not in self._staged:
                turn.deferred[change.decision.path] = Deferred(path=change.path, size=after.size)
                left.add(change.decision.path)
        return left

    async def _do_here(
        self,
        turn: _Turn,
        plan: Plan,
        changes: Sequence[Change],
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
        if not changes and not stored:
            return set()
        needed = {c.after.digest for c in changes if isinstance(c.after, File)}
        needed |= {copy.entry.digest for _, copy in stored if isinstance(copy.entry, File)}
        transfers = [t for t in plan.transfers() if t.to is Side.LOCAL and t.digest in needed]
        missing = await carrier.down(transfers, self._came_along(), older_versions(plan, Side.LOCAL))
        failed = await self._keeper.keep_losers(stored, needed_after=changes, txn=txn)
        failed |= {c.decision.path for c in changes if isinstance(c.after, File) and c.after.digest in missing}
        ready = [c for c in changes if c.decision.path not in failed]
        if not ready:
            return failed
        operations = operations_of(ready, lambda _: None)
        digests = [op.digest for op in operations if op.digest]
        await self.local.do(self.store.begin, txn, digests, len(operations), self._clock.time())
        results = await self.local.do(self.local.folder.apply, txn, operations, known=self.store.base())
        bad = {result.path for result in results if not result.ok}
        turn.outcomes |= {result.path: result.sentence for result in results if not result.ok}
        return failed | failed_decisions(ready, bad)

    def _came_along(self) -> Mapping[bytes, memoryview]:
        found, self._along = self._along, {}
        return found

    async def _do_there(
        self, turn: _Turn, plan: Plan, changes: Sequence[Change], carrier: Carrier, txn: str
    ) -> set[str]:
        """Bring up and apply what changes on the runtime, in the exchange of the barrier; returns what failed."""
        needed = {c.after.digest for c in changes if isinstance(c.after, File)}
        transfers = [t for t in plan.transfers() if t.to is Side.REMOTE and t.digest in needed]
        batch, copies, missing = await carrier.up(transfers, older_versions(plan, Side.REMOTE))
        failed = {c.decision.path for c in changes if isinstance(c.after, File) and c.after.digest in missing}
        ready = [c for c in changes if c.decision.path not in failed]
        first = len(turn.plans) == 1
        if not ready and (not first or turn.reason != "pre"):
            return failed
        operations = await self.local.do(operations_of, ready, self._mtime_here) if ready else []
        for start in range(0, max(1, len(operations)), _MOST_OPERATIONS):
            part = operations[start : start + _MOST_OPERATIONS]
            found = await self._exchange(
                turn, "pre", txn, part, copies if not start else (), batch if not start else b""
            )
            bad = {outcome.path for outcome in found.outcomes if not outcome.ok}
            turn.outcomes |= {o.path: o.sentence for o in found.outcomes if not o.ok}
            failed |= failed_decisions(ready, bad)
        return failed

    def _mtime_here(self, change: Change) -> int | None:
        try:
            return self.local.folder.stat_of(change.decision.origins[0]).st_mtime_ns
        except (OSError, ValueError):
            return None

    async def _remember(self, turn: _Turn, plan: Plan, failed: Collection[str], txn: str, *, here: bool) -> None:
        """Set the new agreement in one durable step; nothing is written where nothing was done."""
        if plan.halted is not None:
            return
        base = plan.next_base(failed)
        done = [c for c in plan.changes if c.decision.path not in failed]
        line = None
        if done:
            summary = replace(plan, changes=tuple(done))
            line = self._history(turn, summary, txn)
        if plan.decisions or self._planner.roots() != Roots() or self._planner.standing != plan.standing:
            await self.local.do(self._commit, plan, base, txn if here else "", line)
            self._planner.standing = plan.standing
        self._explained = False

    def _commit(self, plan: Plan, base: Directory, txn: str, line: HistoryLine | None) -> None:
        self.store.commit(base, txn=txn, history=line)
        self.store.set_standing(plan.standing)
        info = self.remote.info
        for key, value in (("local", self.local.folder.identity), ("remote", info.identity if info else "")):
            if self.store.meta(key) != value:
                self.store.set_meta(key, value)

    def _history(self, turn: _Turn, plan: Plan, txn: str) -> HistoryLine:
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

    def _report(self, turn: _Turn) -> SyncReport:
        return make_report(
            turn.done,
            failed=turn.failed,
            outcomes=turn.outcomes,
            deferred=tuple(turn.deferred.values()),
            unstable=turn.unstable,
            tally=turn.tally,
            round_trips=turn.round_trips,
            seconds=self._clock.monotonic() - turn.started,
        )
