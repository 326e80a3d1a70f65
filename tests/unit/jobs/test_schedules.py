"""Schedules: started when due, never twice, never over one another, whatever dies or sleeps meanwhile."""

from __future__ import annotations

import dataclasses
from datetime import UTC
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.errors import TransientError, UserError
from colab_bridge.execution.request import RunRequest
from colab_bridge.execution.schedules.decide import decide
from colab_bridge.execution.schedules.service import MAX_SCHEDULES, ScheduleService
from colab_bridge.model.jobs import Schedule
from colab_bridge.model.records import Run, RunStatus
from colab_bridge.store import Store
from scripted_upstream import ManualClock


class Machine:
    """A daemon's schedules over a store that outlives it."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store, self.clock = store, clock
        self.started: list[RunRequest] = []
        self.failures: list[str] = []
        self.fails: Exception | None = None
        self.restart()

    def restart(self) -> None:
        self.service = ScheduleService(
            self.store, self.clock, self._start, lambda schedule, reason: self.failures.append(reason), zone=UTC
        )

    async def _start(self, request: RunRequest, schedule: str) -> Run:
        if self.fails:
            raise self.fails
        self.started.append(request)
        assert request.run_id is not None
        run = Run(
            id=request.run_id, session="s", kernel="k", kind=request.kind, title="t", status=RunStatus.RUNNING,
            spec={**request.stored(), "schedule": schedule}, created_at=self.clock.now,
        )  # fmt: skip
        self.store.put_run(run, "/p")
        return run

    async def at(self, seconds: float, *, resume: bool = False) -> int:
        """Look at the schedules at a time and return how many runs have been started so far."""
        self.clock.now = 1000.0 + seconds
        async with anyio.create_task_group() as tasks:
            if resume:
                self.service._resume(tasks)
            self.service._round(tasks)
        return len(self.started)

    def end_runs(self) -> None:
        for run in self.store.runs(status=RunStatus.RUNNING):
            self.store.put_run(dataclasses.replace(run, status=RunStatus.OK))

    def only(self) -> Schedule:
        (schedule,) = self.store.schedules()
        return schedule


@pytest.fixture
def machine(store: Store, clock: ManualClock) -> Machine:
    return Machine(store, clock)


def request(**changes: Any) -> RunRequest:
    values = {"kind": "command", "command": ["true"], "project": "/p", "cwd": "/p", **changes}
    return RunRequest.model_validate(values)


async def test_an_interval_begins_at_once_and_goes_on_in_its_steps(machine: Machine) -> None:
    machine.service.add("every 30m", request())
    counts = []
    for minute in (0, 10, 29.9, 30, 59.9, 60):
        counts.append(await machine.at(minute * 60))
        machine.end_runs()
    assert counts == [1, 1, 1, 2, 2, 3]


async def test_a_crontab_line_waits_for_its_first_time(machine: Machine) -> None:
    machine.service.add("cron 30 0 * * *", request())  # it is 00:16:40
    assert await machine.at(0) == 0
    assert await machine.at(799) == 0
    assert await machine.at(800) == 1


async def test_scheduled_runs_are_jobs_that_cannot_ask(machine: Machine) -> None:
    schedule = machine.service.add("every 1h", request(allow_stdin=True))
    await machine.at(0)
    (started,) = machine.started
    assert (started.detached, started.allow_stdin) == (True, False)
    assert machine.store.jobs(schedule=schedule.id)[0].id == started.run_id


async def test_times_that_were_missed_are_made_up_for_by_one_run(machine: Machine) -> None:
    machine.service.add("every 1h", request())
    await machine.at(0)
    machine.end_runs()
    machine.restart()
    assert await machine.at(10 * 3600 + 5, resume=True) == 2
    machine.end_runs()
    assert await machine.at(10 * 3600 + 60) == 2
    assert await machine.at(11 * 3600) == 3


async def test_a_time_is_left_out_while_the_run_before_goes_on(machine: Machine) -> None:
    machine.service.add("every 1h", request())
    await machine.at(0)
    assert await machine.at(3600) == 1
    assert "left out at 1970-01-01 01:16" in machine.only().last_error
    machine.end_runs()
    assert await machine.at(3700) == 1
    assert await machine.at(7200) == 2
    assert machine.only().last_error == ""


async def test_a_run_that_goes_on_over_a_restart_of_the_daemon_is_not_doubled(machine: Machine) -> None:
    machine.service.add("every 1h", request())
    await machine.at(0)
    machine.restart()
    assert await machine.at(1, resume=True) == 1
    assert await machine.at(3600) == 1


async def test_a_run_that_a_killed_daemon_had_only_claimed_is_started_once_by_the_next(machine: Machine) -> None:
    machine.service.add("every 1h", request())
    claimed = decide(machine.only(), machine.clock.now, UTC, going_on=False)
    assert claimed is not None
    machine.store.put_schedule(claimed.schedule)  # and here it is killed
    machine.restart()
    assert await machine.at(5, resume=True) == 1
    assert machine.started[0].run_id == claimed.schedule.last_run
    machine.restart()
    assert await machine.at(10, resume=True) == 1


async def test_a_start_that_fails_is_said_and_the_next_time_is_tried_again(machine: Machine) -> None:
    machine.service.add("every 1h", request())
    machine.fails = TransientError("the server does not answer")
    await machine.at(0)
    assert machine.failures == ["the server does not answer"]
    assert "the server does not answer" in machine.only().last_error
    machine.restart()
    assert await machine.at(60, resume=True) == 0
    machine.fails = None
    assert await machine.at(3600) == 1
    assert machine.only().last_error == ""


async def test_a_defect_in_one_start_does_not_end_the_others(machine: Machine) -> None:
    machine.service.add("every 1h", request())
    machine.fails = ZeroDivisionError()
    await machine.at(0)
    assert machine.failures == ["internal error: ZeroDivisionError"]
    machine.fails = None
    assert await machine.at(3600) == 1


async def test_a_schedule_whose_row_is_damaged_stops_no_other(machine: Machine) -> None:
    machine.store.put_schedule(Schedule(id="schedule-0", project="/p", title="t", rule="never ever"))
    machine.service.add("every 1h", request())
    assert await machine.at(0) == 1


async def test_a_script_is_read_again_at_each_start(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    path.write_text("old")
    machine.service.add("every 1h", request(kind="script", path=str(path), source="old", command=None))
    path.write_bytes("# -*- coding: latin-1 -*-\nprint('é')\n".encode("latin-1"))
    await machine.at(0)
    assert machine.started[0].source == "# -*- coding: latin-1 -*-\nprint('é')\n"
    machine.end_runs()
    path.unlink()
    await machine.at(3600)
    assert "there is no file" in machine.only().last_error


async def test_a_removed_schedule_starts_nothing_more(machine: Machine) -> None:
    schedule = machine.service.add("every 1h", request())
    await machine.at(0)
    machine.end_runs()
    machine.service.remove(schedule.id)
    assert await machine.at(3600) == 1
    with pytest.raises(UserError):
        machine.service.remove(schedule.id)


def test_schedules_of_a_script_gone_wild_are_bounded(machine: Machine) -> None:
    for _ in range(MAX_SCHEDULES):
        machine.service.add("every 1h", request())
    with pytest.raises(UserError):
        machine.service.add("every 1h", request())


def test_what_a_schedule_shows_of_itself_keeps_its_request_to_itself(machine: Machine) -> None:
    machine.service.add("every 1h", request(options={"url": "http://h/?token=SECRET"}))
    assert "SECRET" in str(machine.only().request)
    assert machine.only().title == "true"


async def test_a_new_schedule_wakes_the_service(machine: Machine) -> None:
    ready = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(machine.service.run, ready)
        await anyio.wait_all_tasks_blocked()
        machine.service.add("every 1h", request())
        assert machine.started == []
        ready.set()
        with anyio.fail_after(20):
            while not machine.started:
                await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


_steps = st.lists(st.tuples(st.floats(0, 4 * 3600), st.sampled_from(["look", "end", "restart"])), max_size=30)


@given(_steps, st.sampled_from(["every 1h", "every 1d", "cron */10 * * * *"]))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_no_time_starts_two_runs_and_no_two_runs_overlap(
    steps: list[tuple[float, str]], rule: str
) -> None:
    now, running = 1000.0, ""
    schedule = Schedule(id="schedule-1", project="/p", title="t", rule=rule, created_at=now, next_at=now + 1)
    begun: list[str] = []
    for passed, what in steps:
        now += passed
        if what == "end":
            running = ""
        before = schedule.next_at
        step = decide(schedule, now, UTC, going_on=bool(running))
        if step is None:
            assert schedule.next_at > now
            continue
        schedule = step.schedule
        assert schedule.next_at > now
        if step.start:
            assert not running
            assert schedule.last_due == before
            running = schedule.last_run
            begun.append(running)
    assert len(begun) == len(set(begun))
