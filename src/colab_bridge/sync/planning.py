"""The plan of one pair: both trees, the ancestor, and what else the decisions depend on."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress

from colab_bridge.agent.sync.ignore import strip_ignored
from colab_bridge.agent.sync.tree import Directory, File, entry_at
from colab_bridge.sync.base import SyncStore
from colab_bridge.sync.local import LocalSide, LocalView
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync.remote import RemoteFiles
from colab_bridge.sync_core.changes import Action, Change
from colab_bridge.sync_core.exec_bits import with_bits_of
from colab_bridge.sync_core.guard import GuardLists
from colab_bridge.sync_core.plan import Plan, Roots, plan_sync
from colab_bridge.sync_core.reconcile import MergeOptions
from colab_bridge.sync_core.safety import SCRAMBLED_AT_LEAST, Circumstances, RootState, looks_scrambled

__all__ = ["Planner"]

_HEAD_BYTES = 4096


class Planner:
    """Makes the plans of one pair.

    Args:
        local: This machine's side.
        remote: The runtime's side.
        store: Memory of the pair.
        options: From the settings.

    Attributes:
        options: From the settings.
        standing: What the stops of quantity hold and nobody decided yet.
        decided: A person has decided about something that was held, and that was not carried out yet.
        explained: Code has run there since the last agreement, which may explain many changes (S4).
    """

    def __init__(self, local: LocalSide, remote: RemoteFiles, store: SyncStore, options: PairOptions) -> None:
        self._local = local
        self._remote = remote
        self._store = store
        self._stripped: tuple[Directory, str, Directory] | None = None
        self._noise: frozenset[tuple[str, bytes]] = frozenset()
        self.options = options
        self.standing = store.standing()
        self.explained = False
        self.decided = False

    def plan(self, view: LocalView) -> Plan:
        """Return what a sync does with what both sides have now.

        Args:
            view: This machine's side.
        """
        approved, rejected = self._store.verdicts()
        self.decided = bool(approved or rejected)
        base = self._store.base()
        return plan_sync(
            base,
            view.tree if self._local.folder.probe.has_exec else with_bits_of(view.tree, base),
            self.remote_tree(view),
            options=MergeOptions(
                winner=self.options.winner,
                folding=self._local.folder.probe.folds_case or bool(self._remote.info and self._remote.info.folds),
                may_execute=lambda _: self.options.may_execute,
            ),
            facts=self._facts(view),
            roots=self.roots(),
            approved=approved,
            rejected=rejected,
        )

    def remote_tree(self, view: LocalView) -> Directory:
        """The runtime's tree without what our rules leave out, whatever it says; with the bits that its disk lacks."""
        raw = self._remote.tree
        assert raw is not None
        if self._stripped is None or self._stripped[0] is not raw or self._stripped[1] != view.rules_id:
            same_rules = self._stripped is not None and self._stripped[1] == view.rules_id
            known = (self._stripped[0], self._stripped[2]) if self._stripped is not None and same_rules else None
            self._stripped = (raw, view.rules_id, strip_ignored(raw, view.rules, known))
        tree = self._stripped[2]
        info = self._remote.info
        return tree if info is None or info.has_exec else with_bits_of(tree, self._store.base())

    def notice_noise(self, changes: Collection[Change]) -> bool:
        """Look whether what is staged here turns every file that it replaces into noise (S4); blocking.

        Args:
            changes: Changes of this side, their content staged.

        Returns:
            True when the plan has to be made anew, because the stop counts now.
        """
        replaced = [
            (change, change.after)
            for change in changes
            if change.action is Action.WRITE and change.before is not None and isinstance(change.after, File)
        ]
        noise = frozenset((change.decision.path, after.digest) for change, after in replaced)
        if len(noise) < SCRAMBLED_AT_LEAST or noise <= self._noise:
            return False
        # All of them or none: the first file that is still something ends the search.
        if not all(isinstance(c.before, File) and self._is_noise(c, after) for c, after in replaced):
            return False
        self._noise = noise
        return True

    def _is_noise(self, change: Change, after: File) -> bool:
        folder = self._local.folder
        with suppress(OSError):
            with folder.open_file(change.decision.origins[0]) as fd:
                before = os.read(fd, _HEAD_BYTES)
            staged = folder.stage.open(after.digest)
            try:
                return looks_scrambled(before, os.read(staged, _HEAD_BYTES))
            finally:
                os.close(staged)
        return False

    def _facts(self, view: LocalView) -> Circumstances:
        free, total = self._local.disk()
        there = self._remote.tree
        noise = frozenset(
            path
            for path, digest in self._noise
            if there is not None and getattr(entry_at(there, path), "digest", b"") == digest
        )
        return Circumstances(
            guards=GuardLists(trust=self.options.trust),
            is_ignored=lambda path: not view.rules.verdict(path, is_folder=False).travels,
            explained=self.explained,
            scrambled=noise,
            suspect=view.suspect,
            free_bytes=free,
            disk_bytes=total,
            free_names=self._local.free_names(),
            consented=frozenset(json.loads(self._store.meta("included", "[]"))),
            standing=self.standing,
        )

    def roots(self) -> Roots:
        """Compare both roots with those of the last agreement (S1)."""
        here, there = self._store.meta("local"), self._store.meta("remote")
        info = self._remote.info
        return Roots(
            local=RootState.SAME if here == self._local.folder.identity else RootState.NEW,
            remote=RootState.SAME if info is not None and there == info.identity else RootState.NEW,
        )
