"""When a runtime that somebody pays for is kept, and when it is given back. Pure decisions.

Google ends a machine that nobody says is in use, and bills one that somebody forgot. So a machine is said to be in use
only while that is true: something runs on it, or a person did something within the last hour (a setting). After that it
is given back, so that nothing is paid for that nobody uses; so it is when a budget is used up. Whatever happens, it is
not kept for longer than a day since a person did something.

=====================================  ================================================================
what is seen                           what is done
=====================================  ================================================================
units spent >= budget                  released, and not made again by itself
nothing runs, idle for ``idle_s``      released
something runs, or a person was here   said to be in use every ``every_s`` seconds
a day without a person                 not kept any longer; what runs goes on until Google ends it
=====================================  ================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Decision", "Facts", "Limits", "decide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the user allows.

    Attributes:
        every_s: Seconds between two pings.
        keep_s: Seconds after a person's last act during which an idle machine is kept.
        idle_s: Seconds of idleness after which it is released; 0 for never.
        most_s: Seconds since a person's last act after which it is not kept even though something runs.
        budget: Compute units that a session may spend; 0 for any.
    """

    every_s: float = 240.0
    keep_s: float = 3600.0
    idle_s: float = 3600.0
    most_s: float = 86_400.0
    budget: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about a session's machine; times are seconds of one clock.

    Attributes:
        running: Whether anything executes there.
        acted_at: When a person last did something with it.
        ran_at: When something last ran.
        pinged_at: When it was last said to be in use; None for never.
        spent: Compute units that the session has used; None when unknown.
    """

    running: bool
    acted_at: float
    ran_at: float
    pinged_at: float | None = None
    spent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done now.

    Attributes:
        do: ``ping``, ``release`` or ``wait``.
        state: How the machine stands, for ``status``: ``in use``, ``idle``, ``left`` or ``released``.
        why: One phrase for people.
        release_at: When it will be released if nothing happens; None when it will not.
    """

    do: Literal["ping", "release", "wait"]
    state: Literal["in use", "idle", "left", "released"]
    why: str
    release_at: float | None = None


def decide(facts: Facts, limits: Limits, now: float) -> Decision:
    """Decide about one machine.

    Args:
        facts: What is known.
        limits: What is allowed.
        now: Seconds of the same clock.
    """
    if limits.budget > 0 and facts.spent is not None and facts.spent >= limits.budget:
        why = f"its budget of {limits.budget:g} compute units is used up ({facts.spent:.2f})"
        return Decision(do="release", state="released", why=why)
    idle_since = max(facts.acted_at, facts.ran_at)
    idle_s = 0.0 if facts.running else now - idle_since
    if limits.idle_s > 0 and not facts.running and idle_s >= limits.idle_s:
        return Decision(do="release", state="released", why=f"it was idle for {idle_s / 60:.0f} min")
    release_at = idle_since + limits.idle_s if limits.idle_s > 0 and not facts.running else None
    if now - facts.acted_at >= limits.most_s:
        why = f"nobody did anything with it for {limits.most_s / 3600:g} h"
        return Decision(do="wait", state="left", why=why, release_at=release_at)
    if not facts.running and idle_s >= limits.keep_s:
        return Decision(do="wait", state="left", why="nothing runs, and nobody is here", release_at=release_at)
    state: Literal["in use", "idle"] = "in use" if facts.running else "idle"
    why = "something runs" if facts.running else f"idle for {idle_s / 60:.0f} min"
    due = facts.pinged_at is None or now - facts.pinged_at >= limits.every_s
    return Decision(do="ping" if due else "wait", state=state, why=why, release_at=release_at)
