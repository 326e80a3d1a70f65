"""Which secrets there are and who may have them, over HTTP; never their values."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from colab_bridge.api.schemas import ApprovalBody
from colab_bridge.app import App

__all__ = ["secrets_router"]


def secrets_router(app: App) -> APIRouter:
    """Return the routes below ``/secrets``."""
    router = APIRouter(prefix="/secrets")

    @router.get("")
    async def list_secrets(project: str = "") -> dict[str, Any]:
        return {"secrets": [entry.to_json(project) for entry in app.secrets.entries()]}

    @router.post("/{name}/allow")
    async def allow(name: str, body: ApprovalBody) -> dict[str, Any]:
        return app.secrets.allow(body.project, name).to_json(body.project)

    @router.post("/{name}/deny")
    async def deny(name: str, body: ApprovalBody) -> dict[str, Any]:
        return app.secrets.deny(body.project, name).to_json(body.project)

    return router
