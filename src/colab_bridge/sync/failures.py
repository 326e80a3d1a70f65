"""Why two folders do not agree, as types with one line each."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from colab_bridge.agent.sync.names import shown

__all__ = ["FailureKind", "SyncFailure", "listed"]


class FailureKind(StrEnum):
    """Kinds of failures of a sync."""

    OFFLINE = "offline"
    UNSETTLED = "unsettled"
    CONFLICT = "conflict"
    HELD = "held"
    GUARDED = "guarded"
    UNSTABLE = "unstable"
    TOO_BIG = "too-big"
    DISK = "disk"
    PROTOCOL = "protocol"
    HALTED = "halted"
    UNUSABLE = "unusable"
    PAUSED = "paused"


_HINTS = {
    FailureKind.OFFLINE: "see: colab-bridge status",
    FailureKind.UNSETTLED: "files change all the time; see: colab-bridge sync diff",
    FailureKind.CONFLICT: "see: colab-bridge sync conflicts",
    FailureKind.HELD: "see: colab-bridge sync status",
    FailureKind.GUARDED: "see: colab-bridge sync status",
    FailureKind.UNSTABLE: "see: colab-bridge sync status",
    FailureKind.TOO_BIG: "see: colab-bridge sync status",
    FailureKind.DISK: "make room on that disk and run: colab-bridge sync",
    FailureKind.PROTOCOL: "stop the session and start a new one: colab-bridge stop",
    FailureKind.HALTED: "see: colab-bridge sync status",
    FailureKind.UNUSABLE: "see: colab-bridge sync status",
    FailureKind.PAUSED: "go on with: colab-bridge sync resume",
}


class SyncFailure(Exception):
    """The two folders do not agree.

    Args:
        kind: What kind of failure.
        text: One line for people.
        hint: What helps; the usual advice for the kind when omitted.
        paths: What it is about.
    """

    def __init__(self, kind: FailureKind, text: str, *, hint: str = "", paths: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.hint = hint or _HINTS[kind]
        self.paths = tuple(paths)


def listed(paths: Iterable[str], most: int = 3) -> str:
    """Return some names for a sentence, safe to print."""
    names = sorted(set(paths))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more
