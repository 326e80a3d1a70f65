"""Brings versions that lose their path, or wait for review, into the store of kept versions."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from contextlib import suppress

from colab_bridge.agent.sync.disk.failures import code_of
from colab_bridge.agent.sync.disk.ops import Code
from colab_bridge.agent.sync.tree import File
from colab_bridge.errors import ColabBridgeError, ConflictError, UserError
from colab_bridge.ports.clock import Clock
from colab_bridge.sync.base import CopyKind
from colab_bridge.sync.conflicts import open_pieces
from colab_bridge.sync.local import LocalSide
from colab_bridge.sync.remote import RemoteFiles
from colab_bridge.sync.troubles import Trouble
from colab_bridge.sync_core.changes import Change
from colab_bridge.sync_core.model import Side, StoredCopy
from colab_bridge.sync_core.plan import Plan

__all__ = ["VersionKeeper"]

log = logging.getLogger(__name__)

_REVIEW_BYTES = 1 << 20
_REVIEWED_AT_ONCE = 20


class VersionKeeper:
    """Keeps versions of one pair.

    Args:
        local: This machine's side.
        remote: The runtime's side.
        clock: Time source.
    """

    def __init__(self, local: LocalSide, remote: RemoteFiles, clock: Clock) -> None:
        self._local = local
        self._remote = remote
        self._clock = clock

    async def keep_losers(
        self, stored: Sequence[tuple[str, StoredCopy]], *, needed_after: Sequence[Change], txn: str
    ) -> dict[str, Trouble]:
        """Put versions that lose their path into the conflict store, before anything else happens there.

        Args:
            stored: Paths of decisions with the versions; those of the runtime are staged here.
            needed_after: Changes that need staged content afterwards.
            txn: The transaction.

        Returns:
            Why that failed, by decision; nothing may be done for those.
        """
        failed: dict[str, Trouble] = {}
        wanted = {c.after.digest for c in needed_after if isinstance(c.after, File)}
        for path, copy in stored:
            try:
                await self._local.do(self._keep, copy, txn)
            except (ColabBridgeError, OSError) as error:
                log.warning("version not kept", extra={"path": path[:200], "reason": str(error)[:200]})
                failed[path] = _trouble(error)
        # Two paths may have one content, so it goes only when all are kept.
        spent = {copy.entry.digest for _, copy in stored if isinstance(copy.entry, File) and copy.side is Side.REMOTE}
        await self._local.do(self._discard, spent - wanted)
        return failed

    def _discard(self, digests: Collection[bytes]) -> None:
        for digest in digests:
            with suppress(OSError):
                self._local.folder.stage.discard(digest)

    def _keep(self, copy: StoredCopy, txn: str) -> None:
        entry, folder, copies = copy.entry, self._local.folder, self._local.copies
        if not isinstance(entry, File):
            copies.keep_entry(CopyKind.CONFLICT, copy.path, copy.side, entry, (), txn=txn, now=self._clock.time())
            return
        if any(copies.has(kind, copy.path, entry.digest) for kind in (CopyKind.CONFLICT, CopyKind.REVIEW)):
            return
        if not copies.room_for(entry.size):
            raise UserError("the conflict store is full", hint="See it: colab-bridge sync conflicts")
        if copy.side is Side.LOCAL:
            with folder.open_file(copy.path) as fd:
                self._keep_open(copy, entry, fd, txn)
            return
        fd = folder.stage.open(entry.digest)
        try:
            self._keep_open(copy, entry, fd, txn)
        finally:
            os.close(fd)

    def _keep_open(self, copy: StoredCopy, entry: File, fd: int, txn: str) -> None:
        self._local.copies.keep_entry(
            CopyKind.CONFLICT, copy.path, copy.side, entry, open_pieces(fd), txn=txn, now=self._clock.time()
        )

    async def keep_for_review(self, plan: Plan, txn: str) -> None:
        """Fetch small held versions, so that a person can look at them before deciding."""
        copies = self._local.copies
        wanted = [
            (copy.entry.digest, copy.path)
            for copy in plan.quarantine
            if isinstance(copy.entry, File) and copy.entry.size <= _REVIEW_BYTES
            if not copies.has(CopyKind.REVIEW, copy.path, copy.entry.digest)
        ][:_REVIEWED_AT_ONCE]
        if not wanted:
            return
        found = await self._remote.get_small(wanted, bulk=True)
        for digest, path in wanted:
            if digest in found:
                # One that cannot be kept is only not there to be looked at.
                with suppress(ColabBridgeError):
                    await self._local.do(
                        copies.keep,
                        CopyKind.REVIEW,
                        path,
                        Side.REMOTE,
                        [bytes(found[digest])],
                        txn=txn,
                        now=self._clock.time(),
                        digest=digest,
                    )


def _trouble(error: ColabBridgeError | OSError) -> Trouble:
    if isinstance(error, OSError):
        return Trouble(side=Side.LOCAL, code=code_of(error))
    code = Code.MOVED if isinstance(error, ConflictError) else Code.NO_SPACE
    return Trouble(side=Side.LOCAL, code=code, sentence=error.message, hint=error.hint)
