"""Sessions, kernels and runs, kept over the death of the daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from colab_bridge.errors import UserError
from colab_bridge.model.jobs import Notice, NoticeState, Schedule
from colab_bridge.model.records import KernelRecord, Run, RunStatus, Session
from colab_bridge.ports.clock import Clock, SystemClock
from colab_bridge.store.database import open_database, translated
from colab_bridge.store.rows import (
    RowError,
    Value,
    kernel_from_row,
    kernel_to_row,
    notice_from_row,
    notice_to_row,
    run_from_row,
    run_to_row,
    schedule_from_row,
    schedule_to_row,
    session_from_row,
    session_to_row,
    text_in,
)

__all__ = ["Store"]

_Record = TypeVar("_Record")
# Unreadable rows are reported one by one up to this number of lines, which is more than anybody reads.
_MAX_NOTICES = 50
# The last few runs tell how long the next one takes; older ones were of other data.
_KEPT_DURATIONS = 10
# A cell that has not run among this many executions is forgotten.
_ALL_DURATIONS = 20_000


class Store:
    """The state database; made by :meth:`open`, used from one thread, the event loop's.

    Each call is one transaction, and what it wrote survives a kill of the process when it returns. A power cut may take
    back the last calls, never damage the file. Calls raise :class:`~colab_bridge.errors.TransientError` when the disk
    is full or the file is locked for more than 5 s, and :class:`~colab_bridge.errors.InternalError` when it was damaged
    while in use.

    Attributes:
        path: The file.
        notices: Lines for people: a file that was put aside, rows that cannot be read.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, notices: list[str], clock: Clock) -> None:
        self.path = path
        self.notices = notices
        self._connection = connection
        self._clock = clock

    @classmethod
    def open(cls, path: Path, *, clock: Clock | None = None) -> Store:
        """Open the file, or make it (0600).

        A file that is damaged, not ours, or of a newer version is renamed to ``<name>.damaged-<time>``, which a line in
        :attr:`notices` says; the store then starts empty.

        Args:
            path: Usually ``state.db`` in the daemon's state folder.
            clock: Wall time, for names and for ages of runs.

        Raises:
            TransientError: another program holds the file, or the disk is full.
            UserError: the folder or the file may not be used.
        """
        clock = clock or SystemClock()
        notices: list[str] = []
        return cls(path, open_database(path, clock, notices), notices, clock)

    def close(self) -> None:
        """Bring everything into the one file and give it back; a second call does nothing."""
        with translated(self.path):
            self._connection.close()

    def put_session(self, session: Session) -> None:
        """Add a session, or replace the one of the same name; its kernels stay."""
        self._upsert("sessions", "name", session_to_row(session))

    def session(self, name: str) -> Session | None:
        """Return a session by name."""
        return self._one("sessions", session_from_row, {"name": name})

    def sessions(self, project: str | None = None) -> list[Session]:
        """Return all sessions, or those of one project, oldest first."""
        return self._many("sessions", session_from_row, {"project": project}, "created_at, name")

    def delete_session(self, name: str) -> None:
        """Forget a session and its kernels; its runs stay listed. No error when it is unknown."""
        self._execute("DELETE FROM sessions WHERE name = ?", (text_in(name),))

    def put_kernel(self, kernel: KernelRecord) -> None:
        """Add a kernel, or replace the one with the same id.

        Raises:
            UserError: its session is not in the store.
        """
        try:
            self._upsert("kernels", "id", kernel_to_row(kernel))
        except sqlite3.IntegrityError as error:
            raise UserError(
                f"there is no session {kernel.session!r}", hint="List the sessions with `colab-bridge sessions`."
            ) from error

    def kernel(self, kernel_id: str) -> KernelRecord | None:
        """Return a kernel by our id."""
        return self._one("kernels", kernel_from_row, {"id": kernel_id})

    def kernels(self, session: str | None = None) -> list[KernelRecord]:
        """Return all kernels, or those of one session, oldest first."""
        return self._many("kernels", kernel_from_row, {"session": session}, "created_at, id")

    def delete_kernel(self, kernel_id: str) -> None:
        """Forget a kernel; no error when it is unknown."""
        self._execute("DELETE FROM kernels WHERE id = ?", (text_in(kernel_id),))

    def put_run(self, run: Run, project: str | None = None) -> None:
        """Add a run, or replace the one with the same id.

        Args:
            run: The run.
            project: Absolute path of its project. When omitted, the one that is stored with the run stays, else its
                session's is taken, else it is empty.
        """
        row = run_to_row(run)
        row["project"] = self._project_of(run) if project is None else text_in(project)
        self._upsert("runs", "id", row)

    def put_run_units(self, run_id: str, units: float) -> None:
        """Keep the compute units that a run has used; nothing happens where it is unknown."""
        self._execute("UPDATE runs SET units = ? WHERE id = ?", (units, text_in(run_id)))

    def run(self, run_id: str) -> Run | None:
        """Return a run by id."""
        return self._one("runs", run_from_row, {"id": run_id})

    def runs(
        self,
        session: str | None = None,
        project: str | None = None,
        status: RunStatus | None = None,
        limit: int = 100,
    ) -> list[Run]:
        """Return runs, newest first, at most ``limit``; a negative limit means all."""
        where = {"session": session, "project": project, "status": status}
        return self._many("runs", run_from_row, where, "created_at DESC, id DESC", limit)

    def jobs(self, project: str | None = None, *, schedule: str | None = None, limit: int = 100) -> list[Run]:
        """Return the runs that were started detached or by a schedule, newest first.

        Args:
            project: Only those of this project.
            schedule: Only those that this schedule has started.
            limit: How many at most.
        """
        given = {"project": project, "schedule": schedule}
        values = {name: text_in(value) for name, value in given.items() if value is not None}
        conditions = ["json_valid(spec)", "json_extract(spec, '$.detached')"]
        conditions += ["project = :project"] if project is not None else []
        conditions += ["json_extract(spec, '$.schedule') = :schedule"] if schedule is not None else []
        statement = (
            f"SELECT * FROM runs WHERE {' AND '.join(conditions)} ORDER BY created_at DESC, id DESC LIMIT {int(limit)}"
        )
        with translated(self.path):
            rows = self._connection.execute(statement, values).fetchall()
        return [run for row in rows if (run := self._read("runs", row, run_from_row)) is not None]

    def run_project(self, run_id: str) -> str | None:
        """Return the project that is stored with a run; None when the run is unknown."""
        row = self._execute("SELECT project FROM runs WHERE id = ?", (text_in(run_id),)).fetchone()
        if row is None:
            return None
        return row[0].decode("utf-8", "surrogatepass") if isinstance(row[0], bytes) else str(row[0])

    def put_notice(self, notice: Notice) -> None:
        """Add a notice, or replace the one with the same id."""
        self._upsert("notices", "id", notice_to_row(notice))

    def notice(self, notice_id: str) -> Notice | None:
        """Return a notice by id."""
        return self._one("notices", notice_from_row, {"id": notice_id})

    def notices_of(self, *, run: str | None = None, state: NoticeState | None = None) -> list[Notice]:
        """Return notices of one run, in one state, or both; in the order in which they are due."""
        return self._many("notices", notice_from_row, {"run": run, "state": state}, "due_at, id")

    def prune_notices(self, older_than_s: float) -> None:
        """Forget notices that were made longer ago; their runs have ended long since."""
        self._execute("DELETE FROM notices WHERE created_at < ?", (self._clock.time() - older_than_s,))

    def put_schedule(self, schedule: Schedule) -> None:
        """Add a schedule, or replace the one with the same id."""
        self._upsert("schedules", "id", schedule_to_row(schedule))

    def schedule(self, schedule_id: str) -> Schedule | None:
        """Return a schedule by id."""
        return self._one("schedules", schedule_from_row, {"id": schedule_id})

    def schedules(self, project: str | None = None) -> list[Schedule]:
        """Return all schedules, or those of one project, oldest first."""
        return self._many("schedules", schedule_from_row, {"project": project}, "created_at, id")

    def delete_schedule(self, schedule_id: str) -> None:
        """Forget a schedule; its runs stay listed. No error when it is unknown."""
        self._execute("DELETE FROM schedules WHERE id = ?", (text_in(schedule_id),))

    def add_duration(self, key: str, seconds: float) -> None:
        """Remember how long a piece of code took; of each piece the last few times are kept.

        Args:
            key: Hash of the code.
            seconds: From its start to its end.
        """
        self._execute("INSERT INTO durations (key, seconds) VALUES (?, ?)", (key, seconds))
        kept = "SELECT id FROM durations WHERE key = ? ORDER BY id DESC LIMIT ?"
        self._execute(f"DELETE FROM durations WHERE key = ? AND id NOT IN ({kept})", (key, key, _KEPT_DURATIONS))
        self._execute("DELETE FROM durations WHERE id <= (SELECT max(id) FROM durations) - ?", (_ALL_DURATIONS,))

    def durations(self, key: str) -> list[float]:
        """Return how many seconds a piece of code took the last times, newest first."""
        rows = self._execute("SELECT seconds FROM durations WHERE key = ? ORDER BY id DESC", (key,)).fetchall()
        return [float(row[0]) for row in rows if isinstance(row[0], (int, float))]

    def prune_runs(self, older_than_s: float, keep: int) -> int:
        """Forget finished runs that are both older than an age and not among the newest.

        Args:
            older_than_s: Age in seconds since the run was made.
            keep: How many of the newest runs stay in any case.

        Returns:
            How many were forgotten.
        """
        unfinished = [status.value for status in RunStatus if not status.final]
        marks = ", ".join("?" * len(unfinished))
        statement = f"""DELETE FROM runs WHERE created_at < ? AND status NOT IN ({marks})
            AND id NOT IN (SELECT id FROM runs ORDER BY created_at DESC, id DESC LIMIT ?)"""
        cutoff = self._clock.time() - older_than_s
        return self._execute(statement, (cutoff, *unfinished, max(0, keep))).rowcount

    def _project_of(self, run: Run) -> Value:
        statement = """SELECT coalesce((SELECT project FROM runs WHERE id = ?),
            (SELECT project FROM sessions WHERE name = ?), '')"""
        project: Value = self._execute(statement, (text_in(run.id), text_in(run.session))).fetchone()[0]
        return project

    def _upsert(self, table: str, key: str, row: Mapping[str, Value]) -> None:
        columns = ", ".join(row)
        marks = ", ".join(f":{column}" for column in row)
        changes = ", ".join(f"{column} = excluded.{column}" for column in row if column != key)
        # Not INSERT OR REPLACE, which deletes the old row and with it the kernels of a session.
        self._execute(
            f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changes}", row
        )

    def _one(self, table: str, read: Callable[[sqlite3.Row], _Record], where: Mapping[str, str]) -> _Record | None:
        return next(iter(self._many(table, read, where, next(iter(where)))), None)

    def _many(
        self,
        table: str,
        read: Callable[[sqlite3.Row], _Record],
        where: Mapping[str, str | None],
        order: str,
        limit: int = -1,
    ) -> list[_Record]:
        given = {column: text_in(value) for column, value in where.items() if value is not None}
        condition = " AND ".join(f"{column} = :{column}" for column in given) or "true"
        statement = f"SELECT * FROM {table} WHERE {condition} ORDER BY {order} LIMIT {int(limit)}"
        with translated(self.path):
            rows = self._connection.execute(statement, given).fetchall()
        return [record for row in rows if (record := self._read(table, row, read)) is not None]

    def _read(self, table: str, row: sqlite3.Row, read: Callable[[sqlite3.Row], _Record]) -> _Record | None:
        try:
            return read(row)
        except RowError as error:
            notice = f"{self.path.name}: {table[:-1]} {row[0]!r} is left out, its {error} cannot be read"
            if notice not in self.notices and len(self.notices) < _MAX_NOTICES:
                self.notices.append(notice)
            return None

    def _execute(self, statement: str, values: Mapping[str, Value] | tuple[Value, ...]) -> sqlite3.Cursor:
        with translated(self.path):
            return self._connection.execute(statement, values)
