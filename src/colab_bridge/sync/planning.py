"""The plan of one pair: both trees, the ancestor, and what else the decisions depend on."""

from __future__ import annotations

import json

from colab_bridge.agent.sync.ignore import strip_ignored
from colab_bridge.agent.sync.tree import Directory
from colab_bridge.sync.base import SyncStore
from colab_bridge.sync.local import LocalSide, LocalView
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync.remote import RemoteFiles
from colab_bridge.sync_core.guard import GuardLists
from colab_bridge.sync_core.plan import Plan, Roots, plan_sync
from colab_bridge.sync_core.reconcile import MergeOptions
from colab_bridge.sync_core.safety import Circumstances, RootState

__all__ = ["Planner"]


class Planner:
    """Makes the plans of one pair.

    Args:
        local: This machine's side.
        remote: The runtime's side.
        store: Memory of the pair.
        options: From the settings.

    Attributes:
        standing: What the stops of quantity hold and nobody decided yet.
    """

    def __init__(self, local: LocalSide, remote: RemoteFiles, store: SyncStore, options: PairOptions) -> None:
        self._local = local
        self._remote = remote
        self._store = store
        self._options = options
        self._stripped: tuple[Directory, str, Directory] | None = None
        self.standing = store.standing()

    def plan(self, view: LocalView, *, explained: bool) -> Plan:
        """Return what a sync does with what both sides have now.

        Args:
            view: This machine's side.
            explained: Code has run there, which may explain many changes (S4).
        """
        approved, rejected = self._store.verdicts()
        return plan_sync(
            self._store.base(),
            view.tree,
            self.remote_tree(view),
            options=MergeOptions(
                winner=self._options.winner,
                folding=self._local.folder.probe.folds_case or bool(self._remote.info and self._remote.info.folds),
                may_execute=lambda _: self._options.may_execute,
            ),
            facts=self._facts(view, explained=explained),
            roots=self.roots(),
            approved=approved,
            rejected=rejected,
        )

    def remote_tree(self, view: LocalView) -> Directory:
        """The runtime's tree without what our rules leave out, whatever it says."""
        raw = self._remote.tree
        assert raw is not None
        if self._stripped is None or self._stripped[0] is not raw or self._stripped[1] != view.rules_id:
            self._stripped = (raw, view.rules_id, strip_ignored(raw, view.rules))
        return self._stripped[2]

    def _facts(self, view: LocalView, *, explained: bool) -> Circumstances:
        free, total = self._local.disk()
        return Circumstances(
            guards=GuardLists(trust=self._options.trust),
            is_ignored=lambda path: not view.rules.verdict(path, is_folder=False).travels,
            explained=explained,
            free_bytes=free,
            disk_bytes=total,
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
