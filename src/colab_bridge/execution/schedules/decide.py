"""What a schedule does now. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime, tzinfo

from colab_bridge.execution.schedules.timing import next_time, parse_rule
from colab_bridge.model.jobs import Schedule

__all__ = ["STARTING", "Step", "decide", "run_id_of"]

#: Stands in ``last_error`` from the claim of a run until it has started.
STARTING = "is being started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done with a schedule.

    Attributes:
        schedule: Its new state, to be stored before anything else happens.
        start: Whether its run ``last_run`` is to be started.
    """

    schedule: Schedule
    start: bool = False


def decide(schedule: Schedule, now: float, zone: tzinfo, *, going_on: bool) -> Step | None:
    """Return what a schedule is to do.

    Times that have passed while nobody looked count as one. A time that comes while the run before goes on is left out.

    Args:
        schedule: As stored.
        now: Unix seconds.
        zone: What "local" means.
        going_on: Whether its last run has not ended.

    Returns:
        None when it is not due.
    """
    if schedule.next_at > now:
        return None
    following = next_time(parse_rule(schedule.rule), schedule.created_at, now, zone)
    if going_on:
        when = f"{datetime.fromtimestamp(schedule.next_at, zone):%Y-%m-%d %H:%M}"
        note = f"left out at {when}, because {schedule.last_run} was still running"
        return Step(schedule=dataclasses.replace(schedule, next_at=following, last_error=note))
    renewed = dataclasses.replace(
        schedule,
        next_at=following,
        last_run=run_id_of(schedule.id, schedule.next_at),
        last_due=schedule.next_at,
        last_error=STARTING,
    )
    return Step(schedule=renewed, start=True)


def run_id_of(schedule_id: str, due: float) -> str:
    """Return the id of the run of a schedule for one time: the same whoever asks, so that it is never started twice."""
    return f"run-{schedule_id.removeprefix('schedule-')}-{round(due * 1000):x}"
