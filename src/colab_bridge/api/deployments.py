"""Deployments over HTTP: notebooks that are published in Drive and run."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from colab_bridge.api.callers import with_caller
from colab_bridge.api.schemas import DeployBody
from colab_bridge.api.views import run_view
from colab_bridge.app import App
from colab_bridge.execution.deployments import Deployed

__all__ = ["deployments_router"]


def deployments_router(app: App) -> APIRouter:
    """Return the routes below ``/deployments``."""
    router = APIRouter(prefix="/deployments")

    @router.post("", status_code=201)
    async def deploy(body: DeployBody, request: Request) -> dict[str, Any]:
        async def publish() -> Deployed:
            app.credentials.learn(body.run.env)  # publishing comes before a session is looked for, which does the same
            return await app.deployments.deploy(body.run, share_with=body.share_with, role=body.role)

        made = await with_caller(request, publish)
        return {
            "run": run_view(app, made.run),
            "file": {"id": made.file.id, "name": made.file.name, "link": made.file.link, "created": made.file.created},
            "shared": list(made.shared),
            "link": made.link,
        }

    @router.get("/{run_id}")
    async def written(run_id: str) -> dict[str, Any]:
        state = await app.deployments.written(run_id)
        return {"file_id": state.file_id, "written": state.written, "problem": state.problem}

    return router
