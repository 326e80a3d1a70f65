"""Jobs: runs that nobody has to watch. They are runs like all others; here is what only they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colab_bridge.errors import ConflictError, UserError
from colab_bridge.execution.service import RunService
from colab_bridge.model.records import Run
from colab_bridge.store.store import Store

__all__ = ["JobResult", "Jobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a job has left.

    Attributes:
        run: The run, which has ended.
        error: ``{"ename", "evalue"}`` of the exception that ended it; None without one.
        outputs: Files that it wrote: the notebook with its outputs, and what it made beside it.
    """

    run: Run
    error: dict[str, Any] | None
    outputs: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return round(max(0.0, (self.run.finished_at or self.run.created_at) - self.run.created_at), 3)


class Jobs:
    """Finds jobs and tells what became of them.

    Args:
        store: Where runs are remembered.
        runs: The runs.
    """

    def __init__(self, store: Store, runs: RunService) -> None:
        self._store = store
        self._runs = runs

    def recent(self, project: str | None = None, *, limit: int = 50) -> list[Run]:
        """Return jobs, newest first, of all projects or of one."""
        return self._store.jobs(project, limit=limit)

    def job(self, job_id: str, *, project: str | None = None) -> Run:
        """Return a job by id; ``last`` means the newest, of the project where one is given.

        Any run can be asked for by its id: the moment somebody leaves one, it is a job to them.

        Raises:
            UserError: there is none.
        """
        if job_id != "last":
            return self._runs.run(job_id)
        newest = self._store.jobs(project, limit=1)
        if not newest:
            raise UserError("there is no job yet", hint="start one: colab-bridge run -d SCRIPT", code="CB-USER-060")
        return newest[0]

    def result(self, job_id: str) -> JobResult:
        """Return what a job has left.

        Raises:
            ConflictError: it has not ended.
            UserError: there is no such job.
        """
        run = self.job(job_id)
        if not run.status.final:
            raise ConflictError(
                f"job {run.id} is still running", hint=f"colab-bridge job attach {run.id}", code="CB-CONFLICT-004"
            )
        stored = run.progress.get("result")
        result = stored if isinstance(stored, dict) else {}
        error = result.get("error")
        return JobResult(
            run=run,
            error=error if isinstance(error, dict) else None,
            outputs=tuple(str(path) for path in result.get("outputs") or ()),
        )
