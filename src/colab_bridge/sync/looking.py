"""What both sides have now: this machine's look, the runtime's answers, and whether both know the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from colab_bridge.agent.sync.disk.ops import ApplyOp
from colab_bridge.agent.sync.disk.scan import LeftOut
from colab_bridge.agent.sync.ignore import strip_ignored
from colab_bridge.agent.sync.tree import Directory, Entry, File, entry_at
from colab_bridge.sync.ahead import HeadStart
from colab_bridge.sync.base import SyncStore
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.local import LocalSide, LocalView
from colab_bridge.sync.remote import Exchange, RemoteFiles
from colab_bridge.sync.turn import Turn
from colab_bridge.sync_core.changes import agreed

__all__ = ["MOST_FILES", "Looking", "made_executable"]

MOST_FILES = 200_000


class Looking:
    """Looks for one pair.

    Args:
        local: This machine's side.
        remote: The runtime's side.
        store: Memory of the pair.

    Attributes:
        is_open: The runtime was greeted since its agent was started.
        view: What this machine had at the last look; None before it.
    """

    def __init__(self, local: LocalSide, remote: RemoteFiles, store: SyncStore) -> None:
        self._local = local
        self._remote = remote
        self._store = store
        self._rules_id = store.meta("rules")
        self._along: Mapping[bytes, memoryview] = {}
        self._watching = False
        self.is_open = False
        self.view: LocalView | None = None

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return what stays on this machine, as of the last look."""
        return self.view.settlement.left_out if self.view is not None else ()

    async def first(self, turn: Turn) -> LocalView:
        """Look at both sides for the first round of a turn; at both at once where that is possible."""
        if not self.is_open:
            return await self.all()
        if self._remote.tree is None:
            view, _ = await asyncio.gather(self.here(turn.reason), self._remote.snapshot())
            await self._keep_rules(view)
            return view
        turn.ahead = HeadStart(self._remote)
        if turn.reason == "pre":
            view = await self.here(turn.reason, turn.ahead)
        else:
            verb = "pre" if turn.reason == "watch" else "post"
            reason = "sync" if turn.audit else turn.reason
            view, _ = await asyncio.gather(self.here(reason, turn.ahead), self.exchange(turn, verb))
        await self._keep_rules(view)
        return view

    async def all(self) -> LocalView:
        """Greet the runtime and look at everything on both sides."""
        view = await self.here("sync")
        await self._remote.hello(view.rules, self._local.options.budget)
        self.is_open, self._watching = True, False
        await self._keep_rules(view)
        await self._remote.snapshot()
        return view

    async def here(self, reason: str, ahead: HeadStart | None = None) -> LocalView:
        """Look at this machine's side.

        Args:
            reason: Why; see :class:`Turn`.
            ahead: Has the runtime begin with what a large file that has changed is likely to need.

        Raises:
            SyncFailure: it has too many files.
            RootGone: it is missing or another one.
        """
        foreseen = None if ahead is None else ahead.foreseen
        self.view = await self._local.look(walk=reason == "sync", known=self._store.base(), foreseen=foreseen)
        files = self.view.tree.kept.files
        if files > MOST_FILES:
            raise SyncFailure(
                FailureKind.TOO_BIG,
                f"{files:,} files here are more than the {MOST_FILES:,} that can be kept in step",
                hint="Name folders that need not travel in .colabbridgeignore, one a line.",
            )
        return self.view

    async def _keep_rules(self, view: LocalView) -> None:
        """After a change of the rules the ancestor forgets what they leave out, and the runtime learns them (H03)."""
        rules_id = view.rules_id
        if self._rules_id != rules_id:
            base = agreed(strip_ignored(self._store.base(), view.rules))
            await self._local.do(self._store.commit, base)
            await self._local.do(self._store.set_meta, "rules", rules_id)
            self._rules_id = rules_id
        budget = self._local.options.budget
        if self._remote.rules_id != rules_id or self._remote.budget != budget:
            await self._remote.set_rules(view.rules, budget)
            await self._remote.snapshot()

    async def exchange(
        self,
        turn: Turn,
        verb: str,
        txn: str = "",
        operations: Sequence[ApplyOp] = (),
        copies: Sequence[tuple[bytes, str]] = (),
        batch: bytes = b"",
        expected: Directory | None = None,
        told: int = 0,
    ) -> Exchange:
        """Settle the runtime's side, with operations on the way; see :meth:`RemoteFiles.exchange`."""
        before = self._remote.tree
        found = await self._remote.exchange(
            verb,
            txn=txn,
            operations=operations,
            copies=copies,
            batch=batch,
            expected=expected,
            told=told,
            audit=turn.audit and not operations and not told,
        )
        turn.unstable = found.unstable or turn.unstable
        turn.late += found.late
        turn.exec_dropped += made_executable(before, found.changed)
        self._along = found.content
        if found.tree is None:
            await self._remote.snapshot(walk=False)
        return found

    def came_along(self) -> Mapping[bytes, memoryview]:
        """Return content that came with the last answer, not yet verified; each once."""
        found, self._along = self._along, {}
        return found

    async def watch_remote(self) -> None:
        """Ask the runtime to tell of changes, once for each greeting.

        Raises:
            RemoteFailure: it cannot be reached.
        """
        if self.is_open and not self._watching:
            self._watching = True
            await self._remote.watch(on=True)


def made_executable(before: Directory | None, changed: Iterable[tuple[str, Entry | None]]) -> tuple[str, ...]:
    """Return files of the runtime whose content is what it was, and that may be executed there now (G02)."""
    if before is None:
        return ()
    found: list[str] = []
    for path, entry in changed:
        if isinstance(entry, File) and entry.executable:
            old = entry_at(before, path)
            if isinstance(old, File) and not old.executable and old.digest == entry.digest:
                found.append(path)
    return tuple(found)
