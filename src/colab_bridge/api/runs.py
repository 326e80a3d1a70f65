"""Runs over HTTP, with their events as NDJSON."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from colab_bridge.api.callers import with_caller
from colab_bridge.api.event_stream import EventResponse
from colab_bridge.api.schemas import InputBody, KillBody, RunRequest, SaveBody
from colab_bridge.api.views import run_view
from colab_bridge.app import App

__all__ = ["runs_router"]


def runs_router(app: App) -> APIRouter:
    """Return the routes below ``/runs``."""
    router = APIRouter(prefix="/runs")

    @router.post("", status_code=201, response_model=None)
    async def start(body: RunRequest, request: Request, follow: bool = False) -> Response | dict[str, Any]:
        run = await with_caller(request, lambda: app.runs.start(body))
        return EventResponse(app, run, 0, follow=True) if follow else run_view(app, run)

    @router.get("")
    async def list_runs(
        session: str | None = None, project: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> dict[str, Any]:
        runs = app.runs.runs(session=session, project=project, limit=limit)
        return {"runs": [run_view(app, run) for run in runs]}

    @router.get("/{run_id}")
    async def one_run(run_id: str) -> dict[str, Any]:
        return run_view(app, app.runs.run(run_id))

    @router.get("/{run_id}/events", response_model=None)
    async def events(run_id: str, after: Annotated[int, Query(ge=0, le=2**62)] = 0, follow: bool = True) -> Response:
        return EventResponse(app, app.runs.run(run_id), after, follow=follow)

    @router.post("/{run_id}/input", status_code=204, response_model=None)
    async def answer(run_id: str, body: InputBody) -> None:
        app.runs.answer(run_id, body.value, eof=body.eof)

    @router.post("/{run_id}/interrupt", status_code=202)
    async def interrupt(run_id: str) -> dict[str, Any]:
        await app.runs.interrupt(run_id)
        return {"interrupted": run_id}

    @router.post("/{run_id}/kill", status_code=202)
    async def kill(run_id: str, body: KillBody) -> dict[str, Any]:
        await app.runs.kill(run_id, restart=body.restart)
        return {"killed": run_id}

    @router.post("/{run_id}/save")
    async def save(run_id: str, body: SaveBody) -> dict[str, Any]:
        return {"path": str(await app.runs.save(run_id, body.path))}

    return router
