"""Health, status and the end of the daemon."""

from __future__ import annotations

import os
from typing import Any

import psutil
from fastapi import APIRouter

from colab_bridge import __version__
from colab_bridge.api.machine import machines_of
from colab_bridge.api.views import run_view, session_view
from colab_bridge.app import App
from colab_bridge.model.records import RunStatus

__all__ = ["status_router"]


def status_router(app: App) -> APIRouter:
    """Return the routes ``/health``, ``/status`` and ``/shutdown``."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": __version__, "pid": os.getpid()}

    @router.get("/status")
    async def status(machines: bool = False) -> dict[str, Any]:
        daemon = {
            "pid": os.getpid(),
            "version": __version__,
            "uptime_s": round(app.clock.time() - app.started_at, 1),
            "rss_bytes": psutil.Process().memory_info().rss,
            "home": str(app.paths.home) if app.paths.home else None,
            "notices": app.all_notices(),
        }
        running = app.store.runs(status=RunStatus.RUNNING, limit=100)
        sessions = app.sessions.sessions()
        looks = await machines_of(app, sessions) if machines else {}
        return {
            "daemon": daemon,
            "sessions": [{**session_view(app, one), "machine": looks.get(one.name)} for one in sessions],
            "runs": [run_view(app, run) for run in running],
        }

    @router.post("/shutdown", status_code=202)
    async def shutdown() -> dict[str, Any]:
        app.stopping.set()
        return {"stopping": True, "pid": os.getpid()}

    return router
