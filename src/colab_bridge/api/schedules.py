"""Schedules over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from colab_bridge.api.schemas import ScheduleBody
from colab_bridge.app import App
from colab_bridge.execution.request import RunRequest
from colab_bridge.model.jobs import Schedule

__all__ = ["schedules_router"]


def schedules_router(app: App) -> APIRouter:
    """Return the routes below ``/schedules``."""
    router = APIRouter(prefix="/schedules")

    @router.get("")
    async def list_schedules(project: str | None = None) -> dict[str, Any]:
        return {"schedules": [_view(schedule) for schedule in app.schedules.schedules(project)]}

    @router.post("", status_code=201)
    async def make_schedule(body: ScheduleBody) -> dict[str, Any]:
        account = _payer(app, body.request)
        return {**_view(app.schedules.add(body.rule, body.request)), "account": account}

    @router.delete("/{schedule_id}")
    async def remove_schedule(schedule_id: str) -> dict[str, Any]:
        return {"removed": app.schedules.remove(schedule_id).id}

    return router


def _payer(app: App, request: RunRequest) -> str:
    """Return whose account the runs will spend from, as far as it is known without asking anybody."""
    named = app.sessions.payer(request.wish())
    return app.credentials.account(named) if named is not None else ""


def _view(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as the API shows it: without the request, which may hold secrets."""
    return {
        "id": schedule.id,
        "project": schedule.project,
        "title": schedule.title,
        "rule": schedule.rule,
        "next_at": schedule.next_at,
        "last_run": schedule.last_run or None,
        "last_due": schedule.last_due or None,
        "last_error": schedule.last_error,
        "created_at": schedule.created_at,
    }
