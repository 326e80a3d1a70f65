"""Whether something is worth a notice, and what it says. Pure: no clock, no store, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from colab_bridge.config.settings import NotifySettings
from colab_bridge.kernels.own_messages import OUTPUT_LOST
from colab_bridge.model.jobs import Notice, NoticeState, Occasion, Schedule, WaitEnd
from colab_bridge.model.records import Run, RunKind, RunStatus

__all__ = [
    "ANSWER_GRACE_S",
    "Question",
    "announce_end",
    "announce_no_start",
    "announce_question",
    "announce_wait",
    "channels_of",
    "printable_line",
    "wanted",
    "webhook_document",
]

#: Somebody who watches answers at once and needs no notice; a notice may take 5 s in all.
ANSWER_GRACE_S = 2.0
_LINE_LENGTH = 200

_OCCASIONS = {
    RunStatus.OK: Occasion.ENDED,
    RunStatus.ERROR: Occasion.FAILED,
    RunStatus.LOST: Occasion.LOST,
    # Whoever interrupts a run knows that it has ended.
}
_WORDS = {
    Occasion.ENDED: "is done",
    Occasion.FAILED: "has failed",
    Occasion.LOST: "has lost its machine",
    Occasion.INPUT: "waits for an answer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question that a run waits with.

    Attributes:
        subject: Tells it from all others: ids of the execution and of the request.
        prompt: What it asks.
        asked_at: Unix seconds.
    """

    subject: str
    prompt: str
    asked_at: float


def wanted(run: Run, policy: NotifySettings) -> bool:
    """Whether a run is one that the user wants to hear of, if it takes long enough."""
    if run.spec.get("notify"):
        return True
    return policy.when == "always" or (policy.when == "jobs" and bool(run.spec.get("detached")))


def channels_of(policy: NotifySettings) -> tuple[str, ...]:
    """Return the channels that notices go to."""
    return (*(("desktop",) if policy.desktop else ()), *(("webhook",) if policy.webhook else ()))


def announce_end(run: Run, policy: NotifySettings, *, error: str = "", last_line: str = "") -> tuple[Notice, ...]:
    """Return the notices about the end of a run, one a channel.

    Args:
        run: The run, with its final status and times.
        policy: The settings.
        error: What went wrong, one line; empty when nothing did.
        last_line: The last line of its output.
    """
    occasion = _OCCASIONS.get(run.status)
    ended = run.finished_at if run.finished_at is not None else run.created_at
    duration_s = max(0.0, ended - run.created_at)
    if occasion is None or not wanted(run, policy) or duration_s < policy.after_s:
        return ()
    details = (error, last_line) if occasion is not Occasion.ENDED else (last_line,)
    body = _body(run, occasion, duration_s, details) | {"exit_code": run.exit_code}
    if error.startswith(f"{OUTPUT_LOST}:"):
        # It may well have gone right: only the word of its end was lost.
        body["title"] = f"{_name(run)} has ended, and how is not known"
    return _due(f"{run.id}:end", policy, occasion, body, ended, run=run.id)


def announce_question(run: Run, policy: NotifySettings, question: Question) -> tuple[Notice, ...]:
    """Return the notices about a question, one a channel; they hold if it is still open when they are due."""
    if not wanted(run, policy):
        return ()
    due_at = max(question.asked_at + ANSWER_GRACE_S, run.created_at + policy.after_s)
    body = _body(run, Occasion.INPUT, due_at - run.created_at, (question.prompt,))
    return tuple(
        Notice(
            id=f"{run.id}:input:{channel}",
            run=run.id,
            occasion=Occasion.INPUT,
            channel=channel,
            state=NoticeState.WAITING,
            subject=question.subject,
            body=body,
            due_at=due_at,
            created_at=question.asked_at,
        )
        for channel in channels_of(policy)
    )


def announce_no_start(schedule: Schedule, policy: NotifySettings, reason: str, now: float) -> tuple[Notice, ...]:
    """Return the notices about a scheduled run that could not be started, which matters although it took no minute."""
    if policy.when in ("never", "asked") and not schedule.request.get("notify"):
        return ()
    text = printable_line(reason)
    body = {
        "title": f"{printable_line(PurePath(schedule.title).name)} could not be started",
        "text": text,
        "brief": "see: colab-bridge schedule list",
        "event": str(Occasion.FAILED),
        "run": schedule.last_run,
        "schedule": schedule.id,
        "last_line": text,
    }
    return _due(f"{schedule.last_run}:end", policy, Occasion.FAILED, body, now, run=schedule.last_run)


def announce_wait(end: WaitEnd, policy: NotifySettings) -> tuple[Notice, ...]:
    """Return the notices about the end of a wait for a machine, if it took as long as a run that is announced."""
    waited_s = max(0.0, end.ended_at - end.began_at)
    if policy.when in ("never", "asked") or waited_s < policy.after_s:
        return ()
    occasion = Occasion.GAVE_UP if end.problem else Occasion.GOT
    found = printable_line(end.problem or end.label)
    way = "what there is: colab-bridge gpus" if end.problem else "see: colab-bridge status"
    text = f"after {_span(waited_s)}\n{found}\n{way}"
    body = {
        "title": f"no machine for {end.session}" if end.problem else f"{end.session} has its machine",
        "text": text,
        "brief": text,
        "event": str(occasion),
        "session": end.session,
        "project": end.project,
        "duration_s": round(waited_s, 1),
        "last_line": found,
    }
    return _due(f"wait:{end.session}:{end.began_at:.3f}", policy, occasion, body, end.ended_at)


def _due(
    name: str, policy: NotifySettings, occasion: Occasion, body: dict[str, Any], at: float, *, run: str = ""
) -> tuple[Notice, ...]:
    """Return the notices, one a channel, of what is announced at once."""
    return tuple(
        Notice(
            id=f"{name}:{channel}",
            run=run,
            occasion=occasion,
            channel=channel,
            state=NoticeState.PENDING,
            body=body,
            due_at=at,
            created_at=at,
        )
        for channel in channels_of(policy)
    )


def _body(run: Run, occasion: Occasion, duration_s: float, details: tuple[str, ...]) -> dict[str, Any]:
    name = _name(run)
    lines = [line for line in map(printable_line, details) if line]
    way = [f"answer it: colab-bridge job attach {run.id}"] if occasion is Occasion.INPUT else []
    return {
        "title": f"{name} {_WORDS[occasion]}",
        "text": "\n".join([f"after {_span(duration_s)}", *lines, *way]),
        # Without what the program said: desktop tools take their text as arguments, which everybody here can read.
        "brief": "\n".join([f"after {_span(duration_s)}", *way]),
        "event": str(occasion),
        "run": run.id,
        "status": str(run.status),
        "duration_s": round(duration_s, 1),
        "last_line": lines[-1] if lines else "",
    }


def _name(run: Run) -> str:
    """Return what a person calls the run: the file's name, not its path."""
    if run.kind in (RunKind.SCRIPT, RunKind.NOTEBOOK):
        return printable_line(PurePath(run.title).name) or str(run.kind)
    return printable_line(run.title)[:60] or str(run.kind)


def _span(seconds: float) -> str:
    """Return a length of time in two units at most, such as ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def printable_line(text: str) -> str:
    """Return text from a program as one line without control characters, at most 200 characters long."""
    line = "".join(character if character.isprintable() else " " for character in text[: 4 * _LINE_LENGTH])
    line = " ".join(line.split())
    return line if len(line) <= _LINE_LENGTH else line[: _LINE_LENGTH - 1] + "…"


def webhook_document(notice: Notice) -> Mapping[str, Any]:
    """Return what is posted: ``text`` as Slack and its kin read it, and the same as members for programs."""
    body = notice.body
    members = {key: value for key, value in body.items() if key not in ("title", "text", "brief", "project")}
    return {"text": f"{body.get('title', '')}\n{body.get('text', '')}", "id": notice.id, **members}
