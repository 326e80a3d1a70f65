"""What happens to a kernel whose front end has gone, and which kernel a new front end gets. Pure decisions.

Front ends end a kernel in two ways that look alike from here: a crash, and (VS Code's ordinary stop and restart)
killing the local process without a word. The rules, for ``reattach = busy``:

======================================  ==============================================================================
what is seen                            what is done
======================================  ==============================================================================
``shutdown_request``                    the kernel is deleted at once
connection gone, kernel idle            the kernel is deleted at once
connection gone, kernel busy            kept until its execution has ended and is recorded, then deleted
start within ``restart_window_s``       it is the second half of a restart: the old kernel is deleted, a new one made
later start of the same notebook        gets the busy kernel back
======================================  ==============================================================================

``always`` keeps idle kernels too, so a later start finds its variables; ``never`` makes a new kernel at each start,
and still lets a busy one finish, because its outputs are work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Candidate", "Departure", "Reattach", "StartDecision", "after_departure", "on_start", "same_front_end"]


class Reattach(StrEnum):
    """The setting of the same name."""

    ALWAYS = "always"
    BUSY = "busy"
    NEVER = "never"


class Departure(StrEnum):
    """What to do with a kernel whose last front end has gone without a word."""

    REMOVE = "remove"
    KEEP_UNTIL_IDLE = "keep until idle"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A kernel that a starting front end might mean.

    Attributes:
        kernel: Our id.
        identity: What the earlier front end told about itself.
        busy: Whether it executes something.
        attached: Whether a front end is connected to it now.
        vanished_at: Unix seconds at which the last front end went; None while one is attached.
    """

    kernel: str
    identity: Mapping[str, Any]
    busy: bool
    attached: bool
    vanished_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDecision:
    """Which kernel a starting front end gets.

    Attributes:
        reuse: Kernel to attach to; None for a new one.
        remove: Kernels to delete first.
        restarted: Whether this start is the second half of a restart.
    """

    reuse: str | None = None
    remove: tuple[str, ...] = ()
    restarted: bool = False


def after_departure(setting: Reattach, *, busy: bool) -> Departure:
    """Decide about a kernel whose last front end has gone without a ``shutdown_request``."""
    if busy:
        return Departure.KEEP if setting is Reattach.ALWAYS else Departure.KEEP_UNTIL_IDLE
    return Departure.KEEP if setting is Reattach.ALWAYS else Departure.REMOVE


def same_front_end(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether two starts of the proxy kernel belong to the same notebook.

    A notebook path decides where both sides know it. The connection file stays the same over a restart by Jupyter's own
    servers. Where neither is known (VS Code names no notebook at the start), folder and kernelspec must do.
    """
    if old.get("notebook") and new.get("notebook"):
        return bool(old["notebook"] == new["notebook"])
    if old.get("connection_file") and old.get("connection_file") == new.get("connection_file"):
        return True
    if old.get("front_end") != "vscode" or new.get("front_end") != "vscode":
        return False
    return bool(old.get("cwd") == new.get("cwd") and old.get("spec") == new.get("spec"))


def on_start(
    setting: Reattach,
    identity: Mapping[str, Any],
    candidates: Sequence[Candidate],
    *,
    now: float,
    restart_window_s: float,
) -> StartDecision:
    """Decide which kernel a starting front end gets.

    Args:
        setting: The user's ``reattach``.
        identity: What the starting front end tells about itself.
        candidates: Kernels of the same session that front ends made.
        now: Unix seconds.
        restart_window_s: A start this soon after a departure is a restart.

    Returns:
        The decision; at most one kernel is reused, and only one that nobody is attached to.
    """
    free = [
        candidate
        for candidate in candidates
        if not candidate.attached and candidate.vanished_at is not None and same_front_end(candidate.identity, identity)
    ]
    recent = [c for c in free if c.vanished_at is not None and now - c.vanished_at <= restart_window_s]
    if recent:
        newest = max(recent, key=lambda c: c.vanished_at or 0.0)
        return StartDecision(remove=(newest.kernel,), restarted=True)
    if setting is Reattach.NEVER:
        return StartDecision()
    usable = [c for c in free if c.busy or setting is Reattach.ALWAYS]
    # Without a notebook's name two notebooks of one folder look alike; guessing would mix up their variables.
    if len(usable) > 1 and not identity.get("notebook"):
        return StartDecision()
    usable.sort(key=lambda c: (c.busy, c.vanished_at or 0.0), reverse=True)
    return StartDecision(reuse=usable[0].kernel) if usable else StartDecision()
