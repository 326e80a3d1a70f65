"""What keeps a sync from going on, as failures of known kinds. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from colab_bridge.agent.sync.names import shown
from colab_bridge.sync.failures import FailureKind, SyncFailure, listed
from colab_bridge.sync.remote import RemoteFailure
from colab_bridge.sync.troubles import code_named, disk_failure
from colab_bridge.sync_core.changes import Action
from colab_bridge.sync_core.model import Side, Stop
from colab_bridge.sync_core.plan import Plan
from colab_bridge.sync_core.summary import hold_lines

__all__ = ["check_stops", "offline", "unsettled", "waiting_deletions"]


def waiting_deletions(reason: str, plan: Plan, moved: Collection[str] = ()) -> set[str]:
    """Return the deletions that continuous mode leaves for the next barrier, and what needs their place.

    Something that deletes very much does so file by file; only all of it together is seen to be very much (S3).
    A folder that moves whole deletes nothing.

    Args:
        reason: What caused the sync.
        plan: What it is going to do.
        moved: Decisions that are carried out by moving whole folders.
    """
    if reason != "watch":
        return set()
    waiting = {c.decision.path for c in plan.changes if c.action >= Action.REMOVE or c.files_lost}.difference(moved)
    more = bool(waiting)
    while more:
        held = {(c.side, c.path) for c in plan.changes if c.decision.path in waiting}
        below = {c.decision.path for c in plan.changes if any((c.side, path) in held for path in _parents(c.path))}
        more = not below <= waiting
        waiting |= below
    # A folder that does not move whole is deleted where it was, like any other.
    return waiting if waiting.isdisjoint(moved) else waiting_deletions(reason, plan)


def _parents(path: str) -> Iterator[str]:
    return (path[:cut] for cut, letter in enumerate(path) if letter == "/")


def check_stops(plan: Plan) -> None:
    """Refuse to go on where nothing at all may be done.

    Raises:
        SyncFailure: a root is lost, or one side is suddenly empty.
    """
    for hold in plan.holds:
        if hold.stop is Stop.ROOT_LOST:
            raise SyncFailure(FailureKind.HALTED, hold_lines(hold)[0])
        if hold.stop is Stop.EMPTIED_ROOT:
            where = "this folder" if hold.side is Side.REMOTE else "the workspace on the runtime"
            raise SyncFailure(
                FailureKind.HELD,
                f"{where} is suddenly empty, {len(hold.paths)} changes wait for you",
                hint=f"colab-bridge sync approve {hold.id}   or: colab-bridge sync reject {hold.id}",
            )


def unsettled(paths: Collection[str]) -> SyncFailure:
    """Return the failure that both sides did not agree after the last round, because something changed each time."""
    return SyncFailure(FailureKind.UNSETTLED, f"files kept changing: {listed(paths) or 'on the runtime'}", paths=paths)


def offline(error: RemoteFailure) -> SyncFailure:
    """Return the failure that a failed call to the runtime means."""
    if error.code == "disk":
        if "reason" in error.data:
            return disk_failure(Side.REMOTE, code_named(error.data["reason"]), "the workspace")
        return SyncFailure(FailureKind.DISK, f"the runtime's disk: {shown(error.text)}")
    if error.code in {"root", "root-gone"}:
        return SyncFailure(FailureKind.HALTED, f"the workspace on the runtime: {shown(error.text)}")
    return SyncFailure(FailureKind.OFFLINE, f"the runtime's files cannot be reached: {shown(error.text)}")
