"""Notices, schedules and jobs in the database, also in one that an older version has made."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from colab_bridge.errors import ConflictError, UserError
from colab_bridge.execution.jobs import Jobs
from colab_bridge.model.jobs import Notice, NoticeState, Occasion, Schedule
from colab_bridge.model.records import Run, RunKind, RunStatus
from colab_bridge.store import Store
from colab_bridge.store import schema as tables
from colab_bridge.store.rows import run_to_row
from scripted_upstream import ManualClock

NOTICE = Notice(
    id="run-1:end:desktop", run="run-1", occasion=Occasion.FAILED, channel="desktop", state=NoticeState.PENDING,
    subject="s", body={"title": "é\ud800"}, due_at=1.5, tries=2, created_at=3.5,
)  # fmt: skip
SCHEDULE = Schedule(
    id="schedule-1", project="/p", title="t", rule="every 1h", request={"a": [1]}, created_at=1.0, next_at=2.0,
    last_run="run-2", last_due=1.5, last_error="e",
)  # fmt: skip


def run(number: int, *, project: str = "/p", **spec: object) -> Run:
    return Run(
        id=f"run-{number}", session="s", kernel="k", kind=RunKind.CODE, title="t",
        spec={"project": project, **spec}, created_at=float(number),
    )  # fmt: skip


def test_what_is_stored_comes_back_as_it_was(store: Store) -> None:
    store.put_notice(NOTICE)
    store.put_schedule(SCHEDULE)
    assert store.notice(NOTICE.id) == NOTICE
    assert store.schedules("/p") == [SCHEDULE]
    assert store.schedules("/q") == []
    assert store.notices_of(run="run-1", state=NoticeState.PENDING) == [NOTICE]
    assert store.notices_of(state=NoticeState.SENT) == []


def test_old_notices_are_forgotten(store: Store, clock: ManualClock) -> None:
    store.put_notice(NOTICE)
    clock.now = 100.0
    store.prune_notices(97.0)
    assert store.notice(NOTICE.id) is not None
    store.prune_notices(96.0)
    assert store.notice(NOTICE.id) is None


def test_jobs_are_the_detached_runs_of_a_project_newest_first(store: Store) -> None:
    for made in (run(1, detached=True), run(2), run(3, detached=True, schedule="schedule-1"), run(4, detached=False)):
        store.put_run(made, "/p")
    store.put_run(run(5, project="/q", detached=True), "/q")
    assert [found.id for found in store.jobs()] == ["run-5", "run-3", "run-1"]
    assert [found.id for found in store.jobs("/p")] == ["run-3", "run-1"]
    assert [found.id for found in store.jobs(schedule="schedule-1")] == ["run-3"]
    assert [found.id for found in store.jobs(limit=1)] == ["run-5"]


def test_a_database_of_the_version_before_keeps_what_is_in_it(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    with monkeypatch.context() as older:
        older.setattr(tables, "_MIGRATIONS", tables._MIGRATIONS[:1])
        Store.open(path, clock=clock).close()
    row = run_to_row(run(1, detached=True)) | {"project": "/p"}
    del row["units"]  # which that version did not know
    with sqlite3.connect(path) as other:
        names = ", ".join(row)
        other.execute(f"INSERT INTO runs ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
    other.close()
    new = Store.open(path, clock=clock)
    assert [found.id for found in new.jobs()] == ["run-1"]
    new.put_schedule(SCHEDULE)
    assert (new.schedules(), new.notices) == ([SCHEDULE], [])
    new.close()


def test_rows_that_cannot_be_read_are_left_out_and_said(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "state.db"
    store = Store.open(path, clock=clock)
    store.put_notice(NOTICE)
    store.put_schedule(SCHEDULE)
    store.put_run(run(1, detached=True), "/p")
    with sqlite3.connect(path) as other:
        other.execute("UPDATE notices SET state = 'elsewhere'")
        other.execute("UPDATE schedules SET request = '['")
        other.execute("UPDATE runs SET spec = 'no json'")
        other.execute("INSERT INTO durations (key, seconds) VALUES ('k', 'long')")
    other.close()
    assert (store.notices_of(), store.schedules(), store.jobs(), store.durations("k")) == ([], [], [], [])
    assert len(store.notices) == 2
    store.close()


class NoRuns:
    """The part of the run service that is asked for single runs."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def run(self, run_id: str) -> Run:
        found = self.store.run(run_id)
        assert found is not None
        return found


def test_the_result_of_a_job_is_there_when_it_has_ended(store: Store) -> None:
    jobs = Jobs(store, NoRuns(store))  # type: ignore[arg-type]
    with pytest.raises(UserError):
        jobs.job("last")
    store.put_run(run(1, detached=True), "/p")
    with pytest.raises(ConflictError):
        jobs.result("last")
    ended = Run(
        id="run-1", session="s", kernel="k", kind=RunKind.CODE, title="t", spec={"detached": True}, exit_code=1,
        status=RunStatus.ERROR, created_at=1.0, finished_at=3.5,
        progress={"result": {"error": {"ename": "E", "evalue": "why"}, "outputs": ["/p/a.png"]}},
    )  # fmt: skip
    store.put_run(ended, "/p")
    result = jobs.result("last")
    assert (result.duration_s, result.outputs, result.error) == (2.5, ("/p/a.png",), {"ename": "E", "evalue": "why"})


def test_a_run_that_ended_without_a_word_has_an_empty_result(store: Store) -> None:
    store.put_run(Run(id="run-1", session="s", kernel="k", kind=RunKind.CODE, title="t", status=RunStatus.LOST,
                      created_at=1.0, progress={"result": "?"}), "/p")  # fmt: skip
    result = Jobs(store, NoRuns(store)).result("run-1")  # type: ignore[arg-type]
    assert (result.duration_s, result.outputs, result.error) == (0.0, (), None)
