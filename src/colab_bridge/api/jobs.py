"""Jobs over HTTP: runs that go on with nobody attached."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from colab_bridge.api.schemas import CancelBody
from colab_bridge.api.views import run_view
from colab_bridge.app import App
from colab_bridge.execution.jobs import JobResult
from colab_bridge.model.records import Run

__all__ = ["jobs_router"]


def jobs_router(app: App) -> APIRouter:
    """Return the routes below ``/jobs``."""
    router = APIRouter(prefix="/jobs")

    @router.get("")
    async def list_jobs(project: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> dict[str, Any]:
        return {"jobs": [_view(app, run) for run in app.jobs.recent(project, limit=limit)]}

    @router.get("/{job_id}")
    async def one_job(job_id: str, project: str | None = None) -> dict[str, Any]:
        return _view(app, app.jobs.job(job_id, project=project))

    @router.get("/{job_id}/result")
    async def result(job_id: str) -> dict[str, Any]:
        return _result_view(app.jobs.result(job_id))

    @router.post("/{job_id}/cancel")
    async def cancel(job_id: str, body: CancelBody) -> dict[str, Any]:
        run = app.jobs.job(job_id)
        return {"cancelled": run.id, "how": await app.runs.cancel(run.id, grace_s=body.grace_s)}

    return router


def _view(app: App, run: Run) -> dict[str, Any]:
    return {
        **run_view(app, run),
        "schedule": run.spec.get("schedule"),
        "waiting_for_input": app.runs.waits_for_input(run.id),
    }


def _result_view(result: JobResult) -> dict[str, Any]:
    run = result.run
    return {
        "id": run.id,
        "status": str(run.status),
        "exit_code": run.exit_code,
        "duration_s": result.duration_s,
        "error": result.error,
        "outputs": list(result.outputs),
        "output_may_be_lost": run.output_may_be_lost,
    }
