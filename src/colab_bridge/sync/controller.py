"""Keeps one session's two folders in step: look, plan, carry out, in rounds, until both sides agree."""

from __future__ import annotations

import asyncio
import json
import logging

from colab_bridge.agent.sync.disk.failures import code_of
from colab_bridge.agent.sync.disk.scan import LeftOut
from colab_bridge.agent.sync.names import shown
from colab_bridge.agent.sync.pages import WireError
from colab_bridge.agent.sync.service_folder import RootGone
from colab_bridge.agent.sync.tree import Directory, File, entry_at
from colab_bridge.errors import ColabBridgeError
from colab_bridge.ports.clock import Clock
from colab_bridge.sync.base import SyncStore
from colab_bridge.sync.carry import Carrier, Older, Progress
from colab_bridge.sync.doing import Doing
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.local import ROOT_FAULT, LocalSide, LocalView
from colab_bridge.sync.looking import Looking
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync.planning import Planner
from colab_bridge.sync.remote import RemoteFailure, RemoteFiles
from colab_bridge.sync.report import SyncReport, late_write, make_report
from colab_bridge.sync.stops import check_stops, offline, unsettled
from colab_bridge.sync.troubles import disk_failure, trouble_failure
from colab_bridge.sync.turn import Turn
from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.plan import Plan, Transfer
from colab_bridge.sync_core.summary import Notice

__all__ = ["PairOptions", "SyncController"]

log = logging.getLogger(__name__)

_ROUNDS = 3
_UNTOLD = 200
_GREET_AGAIN = frozenset({"no-workspace", "rules", "reset", "root-gone"})


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
        trouble: Why the folders were not in step after the last sync; empty when they were.
        poisoned: Why the sync of this session has ended for good; empty otherwise.
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
        self.progress = progress
        self.last: SyncReport | None = None
        self.trouble = ""
        self.poisoned = store.meta("poisoned")
        self.hushed: set[str] = set()
        self.wanted_later = asyncio.Event()
        self._clock = clock
        self._planner = Planner(local, remote, store, options or PairOptions())
        self._looking = Looking(local, remote, store)
        self._doing = Doing(local, remote, store, clock, self._planner, self._looking, progress)
        self._untold: list[SyncReport] = []
        self._agreed = False

    # -- state -------------------------------------------------------------------------------------------------------

    @property
    def options(self) -> PairOptions:
        """What the settings say; new ones count from the next plan on."""
        return self._planner.options

    @options.setter
    def options(self, options: PairOptions) -> None:
        self._planner.options = options

    @property
    def resting(self) -> set[str]:
        """Paths that do not travel now: notebooks whose outputs are being written by a run."""
        return self._doing.resting

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
        self._looking.is_open = False

    def run_happened(self) -> None:
        """Take note that code has run there, which may explain many changes (S4)."""
        self._planner.explained = True

    def take_untold(self) -> list[SyncReport]:
        """Return the reports of syncs between barriers, which nobody was told about yet."""
        found, self._untold = self._untold, []
        return found

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return what stays on this machine, as of the last look."""
        return self._looking.left_out()

    @property
    def here(self) -> Directory | None:
        """This machine's side as of the last look."""
        view = self._looking.view
        return view.tree if view is not None else None

    async def first_sync(self) -> SyncReport:
        """Bring both folders to agreement before a kernel starts; the next run tells about it.

        Raises:
            SyncFailure: the folders do not agree, with the reason.
        """
        report = await self.sync("pre")
        self._keep_untold(report)
        return report

    async def keep_up(self, *, quiet: bool = False) -> SyncReport:
        """Bring both folders to agreement because one of them changed; the next barrier tells about it.

        Args:
            quiet: Nothing has been seen for a while, so there is time for an audit.

        Raises:
            SyncFailure: the folders do not agree, with the reason.
        """
        if quiet:
            await self._tend()
        report = await self.sync("watch", audit=quiet)
        self._keep_untold(report)
        return report

    def _keep_untold(self, report: SyncReport) -> None:
        if report.up or report.down or report.notices:
            self._untold = [*self._untold[-_UNTOLD:], report]

    # -- the one way in ----------------------------------------------------------------------------------------------

    async def sync(self, reason: str, *, wait_all: bool = False, audit: bool = False) -> SyncReport:
        """Bring both folders to agreement.

        Args:
            reason: ``pre`` (before a run), ``post`` (after one), ``watch`` or ``sync`` (a person asks; looks at
                everything).
            wait_all: Large results too; otherwise they are left for later.
            audit: Have some files on the runtime read again whatever their stamps say.

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
            turn = Turn(reason=reason, wait_all=wait_all, audit=audit, started=self._clock.monotonic())
            trips = self.remote.round_trips
            self._agreed = False
            try:
                settled = await self._guarded(turn)
            except SyncFailure as failure:
                self.trouble = failure.text
                raise
            if turn.ahead is not None:
                await turn.ahead.end()
            turn.round_trips = self.remote.round_trips - trips
            if settled and self._planner.decided and not turn.deferred and not turn.waiting:
                # Carried out: the same thing happening again is another question.
                await self.local.do(self.store.forget_verdicts)
            self.last = self._report(turn)
            why = None if settled else trouble_failure(turn.troubles) or unsettled(turn.failed)
            self.trouble = why.text if why is not None else ""
            if why is not None:
                raise why
            self._agreed = True
            return self.last

    async def _guarded(self, turn: Turn) -> bool:
        """Do the rounds; every fault becomes a failure of a known kind."""
        try:
            try:
                return await self._rounds(turn)
            except RemoteFailure as error:
                if error.code not in _GREET_AGAIN:
                    raise
                # The agent was started anew: everything that it knew is gone, nothing else.
                self._looking.is_open = False
                return await self._rounds(turn)
        except WireError as error:
            await self._poison(str(error))
            raise SyncFailure(FailureKind.PROTOCOL, f"the runtime broke the rules: {shown(str(error))}") from error
        except RemoteFailure as error:
            self._looking.is_open = self._looking.is_open and error.code not in _GREET_AGAIN
            raise offline(error) from error
        except RootGone as error:
            raise SyncFailure(FailureKind.HALTED, str(error)) from error
        except ColabBridgeError as error:
            kind = FailureKind.UNUSABLE if error.code == ROOT_FAULT else FailureKind.DISK
            raise SyncFailure(kind, error.message, hint=error.hint) from error
        except OSError as error:
            raise disk_failure(Side.LOCAL, code_of(error), shown(str(self.local.project))) from error

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
                view = await self._looking.all()
                return self._planner.plan(view), view
            except (RemoteFailure, WireError, RootGone) as error:
                kind = FailureKind.OFFLINE if isinstance(error, RemoteFailure) else FailureKind.HALTED
                raise SyncFailure(kind, str(error)) from error

    # -- rounds ------------------------------------------------------------------------------------------------------

    async def _rounds(self, turn: Turn) -> bool:
        view = await self._looking.first(turn)
        for number in range(_ROUNDS):
            if number:
                view = await self._looking.here(turn.reason)
            plan = self._planner.plan(view)
            check_stops(plan)
            turn.failed.clear()
            turn.troubles.clear()
            expected = await self._doing.carry_out(turn, plan, view)
            if not turn.failed and self._planner.remote_tree(view).kept.digest == expected:
                return True
        plan = self._planner.plan(await self._looking.here(turn.reason))
        left = {change.decision.path for change in plan.changes} - set(turn.deferred) - turn.waiting
        turn.failed |= left
        return not left

    def _report(self, turn: Turn) -> SyncReport:
        return make_report(
            turn.done,
            failed=turn.failed,
            troubles=turn.troubles,
            deferred=tuple(turn.deferred.values()),
            unstable=turn.unstable,
            more=self._more_notices(turn),
            tally=turn.tally,
            round_trips=turn.round_trips,
            seconds=self._clock.monotonic() - turn.started,
        )

    def _more_notices(self, turn: Turn) -> list[Notice]:
        """Return what no decision tells: late writes there, and executable bits that stay there."""
        found = [late_write(path, entry) for path, entry in turn.late]
        if not self.options.may_execute:
            sentence = "the runtime may not make it executable here"
            wanted = dict.fromkeys(turn.exec_dropped)
            here = self._looking.view
            for path in wanted:
                entry = entry_at(here.tree, path) if here is not None else None
                if isinstance(entry, File) and not entry.executable:
                    found.append(Notice(path=shown(path), kind="exec-dropped", sentence=sentence))
        return found

    async def knows_all_here(self) -> bool:
        """Return whether this pair has agreed on all that the watches of this machine have told."""
        async with self.local.lock:
            view, folder = self._looking.view, self.local.folder
            is_last = view is not None and view.settlement.gen == folder.gen
            return self._agreed and is_last and not folder.has_news

    # -- between barriers --------------------------------------------------------------------------------------------

    def fetch_later(self) -> None:
        """Have :meth:`fetch_deferred` called by whoever keeps this pair in step."""
        self.wanted_later.set()

    async def watch_remote(self) -> None:
        """Ask the runtime to tell of changes, once for each greeting.

        Raises:
            RemoteFailure: it cannot be reached.
        """
        await self._looking.watch_remote()

    async def fetch_deferred(self) -> None:
        """Stage large results without holding up anybody, then put them into place.

        Raises:
            SyncFailure: the runtime cannot be reached now; what has come is kept.
        """
        report = self.last
        for item in sorted(report.deferred, key=lambda d: d.size) if report is not None else ():
            await self._fetch_large(item.path)
        await self.keep_up()
        self._doing.staged.clear()

    async def _tend(self) -> None:
        try:
            await self.local.tend(self.store.base())
        except (RootGone, ColabBridgeError, OSError) as error:
            # Whatever it is, the sync meets it too, and says it.
            log.info("not tended", extra={"session": self.session, "reason": str(error)[:200]})

    async def _fetch_large(self, path: str) -> None:
        tree, view = self.remote.tree, self._looking.view
        entry = entry_at(tree, path) if tree is not None else None
        if not isinstance(entry, File):
            return
        transfer = Transfer(to=Side.LOCAL, digest=entry.digest, size=entry.size, source=path, source_side=Side.REMOTE)
        old = entry_at(view.tree, path) if view is not None else None
        older = Older(path=path, file=old) if isinstance(old, File) else None
        try:
            if await Carrier(self.local, self.remote, self.progress).down_large(transfer, older, may_look=False):
                self._doing.staged.add(entry.digest)
        except RemoteFailure as error:
            raise offline(error) from error
        except WireError as error:
            await self._poison(str(error))
            raise SyncFailure(FailureKind.PROTOCOL, f"the runtime broke the rules: {shown(str(error))}") from error
