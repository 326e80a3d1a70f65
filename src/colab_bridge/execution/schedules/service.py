"""Keeps schedules and starts their runs when they are due.

Before a run is started, its id is in the store with the schedule. A daemon that dies in between leaves a run that the
next one starts under the same id; one that was started is found by it and not started again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tokenize
from collections.abc import Awaitable, Callable
from datetime import tzinfo
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
from pydantic import ValidationError

from colab_bridge._util.ids import new_id
from colab_bridge.config.caller import without_secrets
from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.execution.request import RunRequest
from colab_bridge.execution.schedules.decide import STARTING, decide
from colab_bridge.execution.schedules.timing import LocalZone, next_time, parse_rule
from colab_bridge.model.jobs import Schedule
from colab_bridge.model.records import Run, RunKind
from colab_bridge.ports.clock import Clock
from colab_bridge.store.store import Store

__all__ = ["ScheduleService"]

log = logging.getLogger(__name__)

#: Timers stand still while a laptop sleeps, and the wall clock may be set: it is looked at this often.
_LOOK_S = 30.0
#: Each start of a run costs a kernel; this many schedules are a mistake of a script.
MAX_SCHEDULES = 200

StartRun = Callable[[RunRequest, str], Awaitable[Run]]
StartFailed = Callable[[Schedule, str], None]


class ScheduleService:
    """The schedules of this machine.

    Args:
        store: Where they are kept.
        clock: Time source.
        start: Starts a run for a schedule, by its id.
        failed: Told when a run could not be started, with the reason.
        zone: What "local" means; the system's own when omitted.
    """

    def __init__(
        self, store: Store, clock: Clock, start: StartRun, failed: StartFailed, *, zone: tzinfo | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._start = start
        self._failed = failed
        self._zone = zone or LocalZone()
        self._starting: set[str] = set()
        self._wake = anyio.Event()

    # -- what users ask for ----------------------------------------------------------------------------------

    def schedules(self, project: str | None = None) -> list[Schedule]:
        """Return all schedules, or those of one project, oldest first."""
        return self._store.schedules(project)

    def add(self, rule: str, request: RunRequest) -> Schedule:
        """Make a schedule. An interval begins with a run at once, a crontab line with its next time.

        Args:
            rule: See :func:`~colab_bridge.execution.schedules.timing.parse_rule`.
            request: What to run. A script is read again at each start, as a notebook is.

        Raises:
            UserError: the rule cannot be read, or there are too many schedules.
        """
        parsed = parse_rule(rule)
        if len(self._store.schedules()) >= MAX_SCHEDULES:
            raise UserError(
                f"there are {MAX_SCHEDULES} schedules already",
                hint="see: colab-bridge schedule list --all",
                code="CB-USER-064",
            )
        now = self._clock.time()
        schedule = Schedule(
            id=new_id("schedule"),
            project=request.project,
            title=request.title(),
            rule=parsed.text(),
            request={
                **request.model_dump(mode="json", exclude={"run_id"}, exclude_none=True),
                "env": without_secrets(request.env),
            },
            created_at=now,
            next_at=next_time(parsed, now, now, self._zone) if parsed.cron else now,
        )
        self._store.put_schedule(schedule)
        self._wake.set()
        return schedule

    def remove(self, schedule_id: str) -> Schedule:
        """Forget a schedule; a run of it that goes on is left alone.

        Raises:
            UserError: there is none.
        """
        schedule = self._store.schedule(schedule_id)
        if schedule is None:
            raise UserError(
                f"no schedule has the id '{schedule_id[:60]}'", hint="colab-bridge schedule list", code="CB-USER-065"
            )
        self._store.delete_schedule(schedule_id)
        return schedule

    # -- starting runs ---------------------------------------------------------------------------------------

    async def run(self, ready: anyio.Event) -> None:
        """Start runs that are due, until cancelled.

        Args:
            ready: Set when the runs of the daemon before are known.
        """
        await ready.wait()
        async with anyio.create_task_group() as tasks:
            self._resume(tasks)
            while True:
                self._wake = anyio.Event()
                pause = self._round(tasks)
                with anyio.move_on_after(pause):
                    await self._wake.wait()

    def _resume(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start the runs that a daemon had claimed and died before it could start them."""
        try:
            for schedule in self._store.schedules():
                if schedule.last_error == STARTING:
                    self._launch(schedule, tasks)  # one that did start is found by its id, and is left alone
        except ColabBridgeError as error:
            log.warning("schedules not read", extra={"reason": error.message})

    def _round(self, tasks: anyio.abc.TaskGroup) -> float | None:
        """Begin what is due now and return the seconds until something else is; None when there is no schedule."""
        try:
            for schedule in self._store.schedules():
                self._step(schedule, tasks)
            left = [schedule.next_at for schedule in self._store.schedules()]
        except ColabBridgeError as error:
            log.warning("schedules not read", extra={"reason": error.message})
            return _LOOK_S
        if not left:
            return None
        # Never at once: one that is due and still there could not be stored.
        return min(_LOOK_S, max(0.05, min(left) - self._clock.time()))

    def _step(self, schedule: Schedule, tasks: anyio.abc.TaskGroup) -> None:
        try:
            step = decide(schedule, self._clock.time(), self._zone, going_on=self._going_on(schedule))
            if step is not None:
                self._store.put_schedule(step.schedule)
                if step.start:
                    self._launch(step.schedule, tasks)
        except ColabBridgeError as error:
            log.warning("schedule passed over", extra={"schedule": schedule.id, "reason": error.message})

    def _going_on(self, schedule: Schedule) -> bool:
        if schedule.id in self._starting:
            return True
        run = self._store.run(schedule.last_run) if schedule.last_run else None
        return run is not None and not run.status.final

    def _launch(self, schedule: Schedule, tasks: anyio.abc.TaskGroup) -> None:
        self._starting.add(schedule.id)
        tasks.start_soon(self._begin, schedule)

    async def _begin(self, schedule: Schedule) -> None:
        """Task root of one start; a defect in it must not end the other schedules."""
        try:
            request = await anyio.to_thread.run_sync(_request_of, schedule)
            run = await self._start(request, schedule.id)
        except ColabBridgeError as error:
            self._note_failure(schedule, error.message)
        except Exception as error:
            log.exception("scheduled run not started", extra={"schedule": schedule.id})
            self._note_failure(schedule, f"internal error: {type(error).__name__}")
        else:
            log.info("scheduled run started", extra={"schedule": schedule.id, "run": run.id})
            with contextlib.suppress(ColabBridgeError):  # a later daemon finds that it has started
                self._settle(schedule, "")
        finally:
            self._starting.discard(schedule.id)

    def _note_failure(self, schedule: Schedule, reason: str) -> None:
        log.warning("scheduled run not started", extra={"schedule": schedule.id, "reason": reason})
        try:
            self._settle(schedule, f"could not be started: {reason}")
            self._failed(schedule, reason)
        except ColabBridgeError as error:
            log.warning("failure of a schedule not stored", extra={"schedule": schedule.id, "reason": error.message})

    def _settle(self, schedule: Schedule, text: str) -> None:
        """Store what came of a start, unless something else has been noted since, or the schedule was removed."""
        current = self._store.schedule(schedule.id)
        if current is not None and current.last_error == STARTING:
            self._store.put_schedule(dataclasses.replace(current, last_error=text))


def _request_of(schedule: Schedule) -> RunRequest:
    """Return the request for the run that a schedule has claimed.

    Raises:
        UserError: the script is not there any more, or the stored request cannot be read.
    """
    value: dict[str, Any] = {**schedule.request, "run_id": schedule.last_run, "detached": True, "allow_stdin": False}
    path = value.get("path")
    if value.get("kind") == RunKind.SCRIPT and isinstance(path, str) and path != "-":
        value["source"] = _read_script(Path(path))
    try:
        return RunRequest.model_validate(value)
    except ValidationError as error:
        raise UserError(
            "the schedule is damaged", hint=f"colab-bridge schedule remove {schedule.id}", code="CB-USER-066"
        ) from error


def _read_script(path: Path) -> str:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise UserError(
            f"there is no file {path}", hint="bring it back, or remove the schedule", code="CB-USER-001"
        ) from error
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read", hint="check its permissions and encoding", code="CB-USER-003"
        ) from error
