"""What people ask of the sync: now, status, plan, decisions, trash, history, bench, single files."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from colab_bridge._util.ids import new_id
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, expect
from colab_bridge.agent.sync.disk.trash import TrashFault
from colab_bridge.agent.sync.names import shown
from colab_bridge.agent.sync.service_folder import RootGone
from colab_bridge.agent.sync.service_wire import unpack_envelope
from colab_bridge.agent.sync.tree import Blocked, Unknown, entry_at
from colab_bridge.errors import ColabBridgeError, ConflictError, InternalError, TransientError, UserError
from colab_bridge.ports.clock import Clock
from colab_bridge.sync.base import CopyKind, KeptCopy
from colab_bridge.sync.conflicts import file_pieces
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.including import include_path
from colab_bridge.sync.manager import SyncManager, syncs
from colab_bridge.sync.moves import FileMover, Tell
from colab_bridge.sync.remote import RemoteFailure
from colab_bridge.sync.removal import remove_here
from colab_bridge.sync.report import diff_view, hold_view, left_out_lines, merged
from colab_bridge.sync_core.model import Side, Stop

__all__ = ["SyncService"]

T = TypeVar("T")
_TRANSIENT = frozenset({FailureKind.OFFLINE, FailureKind.UNSETTLED})
_BENCH_TURNS = 7


class SyncService:
    """See the module.

    Args:
        manager: The pairs.
        clock: Time source.
    """

    def __init__(self, manager: SyncManager, clock: Clock) -> None:
        self._manager = manager
        self._clock = clock

    async def _controller(self, name: str) -> SyncController:
        session = self._manager.session(name)
        self._manager.must_sync(session)
        controller = await self._manager.pair(name)
        if controller is None:
            reason = self._manager.reason(name)
            raise UserError(f"the files of session {name} are not synced: {reason}", hint="colab-bridge status")
        return controller

    # -- now ---------------------------------------------------------------------------------------------------------

    async def sync(self, name: str, *, wait_all: bool = True) -> dict[str, Any]:
        """Bring both folders to agreement now.

        Raises:
            ColabBridgeError: they do not agree, with the reason.
        """
        controller = await self._controller(name)
        if controller.paused:
            raise ConflictError(f"the sync of session {name} is paused", hint="colab-bridge sync resume")
        report = await _checked(controller.sync("sync", wait_all=wait_all))
        # What happened since the last run or sync was told to nobody yet.
        return merged([*controller.take_untold(), report]).to_json()

    async def status(self, name: str) -> dict[str, Any]:
        """Return how the pair of a session stands."""
        controller = await self._controller(name)
        last, info = controller.last, controller.remote.info
        copies = await controller.local.do(controller.local.store.copies)
        open_copies = [copy for copy in copies if copy.kind != "review"]
        base = controller.store.base().kept
        return {
            "session": name,
            "state": _state(controller),
            "project": str(controller.local.project),
            "workspace": self._manager.workspace(name),
            "files": base.files,
            "bytes": base.size,
            "degraded": [*controller.local.folder.degraded, *(info.degraded if info is not None else ())],
            "holds": [hold_view(hold) for hold in last.holds] if last is not None else [],
            "conflicts": [_copy_view(controller, copy) for copy in open_copies],
            "left_out": left_out_lines(controller.left_out()),
            "left_out_count": len(controller.left_out()),
            "under_way": [
                {"path": shown(path), "done": done, "size": size}
                for path, (done, size) in self._manager.progress(name).items()
            ],
            "last": last.to_json() if last is not None else None,
            "notices": [*controller.store.notices, *controller.local.store.notices],
        }

    async def diff(self, name: str) -> dict[str, Any]:
        """Return the exact plan of a sync; nothing is done."""
        controller = await self._controller(name)
        plan, view = await _checked(controller.plan())
        return {
            "changes": diff_view(plan),
            "holds": [hold_view(hold) for hold in plan.holds],
            "left_out": left_out_lines(view.settlement.left_out),
        }

    async def pause(self, name: str, *, on: bool) -> dict[str, Any]:
        """Stop the sync of a session, or let it go on."""
        controller = await self._controller(name)
        await controller.pause(on=on)
        return {"session": name, "paused": on}

    # -- decisions ---------------------------------------------------------------------------------------------------

    async def decide(self, name: str, ids: Sequence[str], *, everything: bool, approve: bool) -> dict[str, Any]:
        """Approve or reject holds, and sync.

        Raises:
            UserError: a hold does not exist any more, or cannot be approved.
        """
        controller = await self._controller(name)
        plan, _ = await _checked(controller.plan())
        known = {hold.id: hold for hold in plan.holds}
        # What only lacks room waits for room: nobody who rejects everything means to delete it there.
        open_holds = [h.id for h in plan.holds if (h.approvable or not approve) and h.stop is not Stop.LOW_DISK]
        wanted = open_holds if everything else list(ids)
        for hold_id in wanted:
            if hold_id not in known:
                raise UserError(f"nothing is held under {hold_id[:60]!r} any more", hint="colab-bridge sync status")
            if approve and not known[hold_id].approvable:
                raise UserError(
                    f"{hold_id} cannot be approved: {known[hold_id].sentence}", hint="colab-bridge sync status"
                )
        await self._decided(controller, wanted, approved=approve)
        report = await _checked(controller.sync("sync", wait_all=True))
        return {"decided": wanted, "report": report.to_json()}

    async def _decided(self, controller: SyncController, holds: Sequence[str], *, approved: bool) -> None:
        for hold in holds:
            await controller.local.do(controller.store.decide, hold, approved=approved, now=self._clock.time())

    async def conflicts(self, name: str) -> dict[str, Any]:
        """Return the versions that are kept outside the tree."""
        controller = await self._controller(name)
        copies = await controller.local.do(controller.local.store.copies)
        return {"conflicts": [_copy_view(controller, copy) for copy in copies]}

    async def resolve(self, name: str, wanted: str, *, everything: bool, take: str) -> dict[str, Any]:
        """Settle conflicts: leave what stands at the path (``current``), or put the kept version there (``kept``).

        Args:
            name: Session.
            wanted: Id or path of a kept version.
            everything: All of them instead, the oldest first; what waits for a review is no conflict.
            take: ``current`` or ``kept``.
        """
        controller = await self._controller(name)
        local = controller.local
        if everything:
            copies = [c for c in reversed(await local.do(local.store.copies)) if c.kind != CopyKind.REVIEW]
        else:
            copies = [await local.do(local.copies.find, wanted)]
        for copy in copies:
            if take == "kept":
                async with local.lock:
                    await _looked(controller)
                    await local.do(_put_back, controller, copy)
            await local.do(local.copies.resolve, copy, self._clock.time())
        report = await _checked(controller.sync("watch"))
        settled = [{"id": copy.id, "path": shown(copy.path)} for copy in copies]
        return {"settled": settled, "took": take, "report": report.to_json()}

    async def include(self, name: str, path: str) -> dict[str, Any]:
        """Have a path that was left out travel from now on."""
        controller = await self._controller(name)
        await _checked(controller.plan())
        lines = await include_path(controller, path)
        report = await _checked(controller.sync("sync", wait_all=True))
        return {"path": shown(path), "lines": lines, "report": report.to_json()}

    # -- trash and history -------------------------------------------------------------------------------------------

    async def trash(self, name: str, side: Side) -> dict[str, Any]:
        """Return what the sync has taken out of one side's tree."""
        controller = await self._controller(name)
        if side is Side.LOCAL:
            entries = await controller.local.do(controller.local.folder.trash.list)
            rows = [[e.id, e.path, e.size, e.removed_s, e.why, e.kind] for e in entries]
        else:
            _, payload = await _asked(controller, "trash", {})
            rows = unpack_envelope(payload)[0].get("items", [])[:2000]
        names = ("id", "path", "size", "at", "why", "kind")
        items = [
            dict(zip(names, row, strict=False)) for row in rows if isinstance(row, list) and len(row) == len(names)
        ]
        return {"side": str(side), "items": [{**item, "path": shown(str(item["path"]))} for item in items]}

    async def restore(self, name: str, entry: str, side: Side, to: str | None) -> dict[str, Any]:
        """Move something back from the trash, and sync."""
        controller = await self._controller(name)
        if side is Side.LOCAL:
            async with controller.local.lock:
                try:
                    path = await controller.local.do(controller.local.folder.trash.restore, entry, to)
                except TrashFault as error:
                    raise UserError(error.sentence, hint="colab-bridge sync trash list") from error
        else:
            await _asked(controller, "trash", {"restore": entry, **({"to": to} if to else {})})
            path = to or entry
        report = await _checked(controller.sync("sync"))
        return {"restored": shown(path), "report": report.to_json()}

    async def history(self, name: str, limit: int) -> dict[str, Any]:
        """Return the newest transactions."""
        controller = await self._controller(name)
        lines = await controller.local.do(controller.store.history, limit)
        return {
            "history": [
                {
                    "txn": line.txn,
                    "at": line.at,
                    "reason": line.reason,
                    "line": line.line,
                    "up": line.up,
                    "down": line.down,
                    "sent": line.sent,
                    "received": line.received,
                    "seconds": line.seconds,
                }
                for line in lines
            ]
        }

    async def bench(self, name: str) -> dict[str, Any]:
        """Measure what barriers cost on this link: round trips, bytes, seconds (the best of some turns)."""
        controller = await self._controller(name)
        await _checked(controller.sync("sync"))
        rows: list[dict[str, Any]] = []
        for reason in ("pre", "post", "sync"):
            reports = [await _checked(controller.sync(reason)) for _ in range(_BENCH_TURNS)]
            best = min(reports, key=lambda report: report.seconds)
            rows.append(
                {
                    "operation": reason,
                    "round_trips": best.round_trips,
                    "sent": best.sent,
                    "received": best.received,
                    "seconds": round(best.seconds, 5),
                }
            )
        trips = []
        for _ in range(_BENCH_TURNS):
            begun = time.perf_counter()
            await _asked(controller, "stat", {"path": ".", "base": ""})
            trips.append(time.perf_counter() - begun)
        return {"files": controller.store.base().kept.files, "round_trip_s": round(min(trips), 5), "operations": rows}

    # -- single files ------------------------------------------------------------------------------------------------

    async def mover(self, name: str, tell: Tell | None = None) -> FileMover:
        """Return what moves single files of a session."""
        caller, base = await self._manager.files(name)
        return FileMover(caller=caller, base=base, tell=tell)

    async def remove(self, name: str, path: str, *, recursive: bool) -> dict[str, Any]:
        """Remove something there; what belongs to the workspace goes to the trash here.

        Raises:
            ColabBridgeError: there is nothing, or it could not be removed; or the folders do not agree afterwards.
        """
        await (await self.mover(name)).remove(path, recursive=recursive)
        inside = await self._in_workspace(name, path)
        if inside is None:
            return {"removed": shown(path), "here": 0}
        controller = await self._controller(name)
        async with controller.local.lock:
            base = controller.store.base()
            await _looked(controller)
            gone = await controller.local.do(remove_here, controller.local, base, inside)
        await _checked(controller.sync("post"))
        return {"removed": shown(path), "here": gone}

    async def _in_workspace(self, name: str, path: str) -> str | None:
        """Return a path of the runtime relative to the workspace that is kept in step; None where it is not in it."""
        session = self._manager.session(name)
        if not syncs(session, self._manager.settings(session)):
            return None
        controller = await self._manager.pair(name)
        info = controller.remote.info if controller is not None and not controller.paused else None
        if info is None:
            return None
        inside = posixpath.relpath(posixpath.join(info.root, path), info.root)
        return None if inside == "." or inside.startswith("..") else inside

    async def upload(self, name: str, source: str, target: str, tell: Tell | None = None) -> dict[str, Any]:
        """Copy from this machine to the runtime."""
        return {"uploaded": await (await self.mover(name, tell)).upload(Path(source), target)}

    async def download(self, name: str, source: str, target: str, tell: Tell | None = None) -> dict[str, Any]:
        """Copy from the runtime to this machine."""
        return {"downloaded": await (await self.mover(name, tell)).download(source, Path(target))}


def _put_back(controller: SyncController, copy: KeptCopy) -> None:
    """Put a kept version at its path; what stands there goes to the trash."""
    folder = controller.local.folder
    stored = controller.local.copies.path_of(copy)
    tree = folder.tree
    now = entry_at(tree, copy.path) if tree is not None else None
    if isinstance(now, (Blocked, Unknown)):
        raise UserError(f"{shown(copy.path)} cannot be replaced", hint="colab-bridge sync status")
    folder.stage.begin_large(copy.digest, copy.size)
    if not folder.stage.have_one(copy.digest):
        offset = 0
        for piece in file_pieces(stored):
            folder.stage.put_chunk(copy.digest, offset, piece)
            offset += len(piece)
        if not folder.stage.finish(copy.digest):
            raise InternalError(f"the kept version of {shown(copy.path)} is damaged", hint=f"Look at {stored}")
    parents = copy.path.split("/")[:-1]
    operations = [
        ApplyOp(Action.MKDIR, "/".join(parents[:depth]))
        for depth in range(1, len(parents) + 1)
        if tree is None or entry_at(tree, "/".join(parents[:depth])) is None
    ]
    operations.append(ApplyOp(Action.WRITE, copy.path, expect(now), copy.digest, copy.size))
    result = folder.apply(new_id("txn"), operations)[-1]
    if not result.ok:
        raise ConflictError(f"{shown(copy.path)}: {result.sentence}", hint="try again")


def _copy_view(controller: SyncController, copy: KeptCopy) -> dict[str, Any]:
    return {
        "id": copy.id,
        "kind": copy.kind,
        "path": shown(copy.path),
        "side": str(copy.side),
        "at": copy.at,
        "size": copy.size,
        "kept": str(controller.local.copies.path_of(copy)),
        "current": str(controller.local.project / copy.path),
    }


def _state(controller: SyncController) -> str:
    if controller.poisoned:
        return f"ended: {shown(controller.poisoned)}"
    if controller.paused:
        return "paused"
    if controller.trouble:
        return f"stale: {controller.trouble}"
    last = controller.last
    if last is None:
        return "not yet synced"
    return "held" if last.holds else "in step"


async def _asked(controller: SyncController, verb: str, params: dict[str, Any]) -> tuple[Any, bytes]:
    try:
        return await controller.remote.ask(verb, params)
    except RemoteFailure as error:
        raise TransientError(f"the runtime: {shown(error.text)}", hint="colab-bridge status") from error


async def _looked(controller: SyncController) -> None:
    """Take in what was saved here; the side's lock is held."""
    try:
        await controller.local.look(known=controller.store.base())
    except RootGone as error:
        raise ConflictError(str(error), hint="colab-bridge sync status") from error


async def _checked(work: Awaitable[T]) -> T:
    """Await a call of the controller; its failures become errors of ours."""
    try:
        return await work
    except SyncFailure as failure:
        raise as_error(failure) from failure


def as_error(failure: SyncFailure) -> ColabBridgeError:
    """Return a failure of the sync as an error for the API."""
    code = f"CB-SYNC-{failure.kind.upper()}"
    if failure.kind in _TRANSIENT:
        return TransientError(failure.text, hint=failure.hint, code=code)
    if failure.kind is FailureKind.DISK:
        return UserError(failure.text, hint=failure.hint, code=code)
    return ConflictError(failure.text, hint=failure.hint, code=code)
