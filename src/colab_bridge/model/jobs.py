"""Notices about runs, and schedules of runs, as the daemon stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Notice", "NoticeState", "Occasion", "Schedule", "WaitEnd"]


class Occasion(StrEnum):
    """What is announced: about a run, and at last about the wait for a machine."""

    ENDED = "ended"
    FAILED = "failed"
    LOST = "lost"
    INPUT = "input"
    GOT = "got"
    GAVE_UP = "gave_up"


class NoticeState(StrEnum):
    """Where a notice stands. The last three are final."""

    WAITING = "waiting"  # announced only if the run still waits for an answer when it is due
    PENDING = "pending"
    SENDING = "sending"  # from here on it may have gone out, so a later daemon does not send it again
    SENT = "sent"
    DROPPED = "dropped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One notice on one channel.

    Attributes:
        id: Run, occasion and channel; there is never a second one with the same id.
        run: The run; empty for the wait for a machine.
        occasion: What is announced.
        channel: ``desktop`` or ``webhook``.
        state: Where it stands.
        subject: For questions: which one; empty otherwise.
        body: What is said, JSON; see ``execution.notices.decide``.
        due_at: Unix seconds before which it is not sent.
        tries: How often sending was tried.
        created_at: Unix seconds.
    """

    id: str
    run: str
    occasion: Occasion
    channel: str
    state: NoticeState
    subject: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    due_at: float = 0.0
    tries: int = 0
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A run that is started again and again.

    Attributes:
        id: Unique.
        project: Absolute path of the project's root.
        title: One line for people: what is run.
        rule: When, as the user wrote it: ``every 30m`` or ``cron 0 7 * * 1-5``.
        request: The run request as JSON; may hold secrets (provider options, the caller's variables), never shown.
        created_at: Unix seconds; what ``every`` counts from.
        next_at: Unix seconds of the next start.
        last_run: Id of the run that was started last; written before that run is started. Empty before the first.
        last_due: Unix seconds for which that run was due.
        last_error: Empty, or why the last run could not be started or was left out.
    """

    id: str
    project: str
    title: str
    rule: str
    request: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    next_at: float = 0.0
    last_run: str = ""
    last_due: float = 0.0
    last_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitEnd:
    """The end of a wait for a machine.

    Attributes:
        session: Name of the session that wants it.
        project: Absolute path of the project's root.
        began_at: Unix seconds.
        ended_at: Unix seconds.
        label: The machine, one line without a secret; empty when there is none.
        problem: Why there is none, one line; empty when there is one.
    """

    session: str
    project: str
    began_at: float
    ended_at: float
    label: str = ""
    problem: str = ""
