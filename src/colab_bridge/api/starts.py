"""What is said while sessions start, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from colab_bridge.app import App

__all__ = ["starts_router"]


def starts_router(app: App) -> APIRouter:
    """Return the route ``/starts``."""
    router = APIRouter(prefix="/starts")

    @router.get("")
    async def lines(
        project: str, after: Annotated[int, Query(ge=0)] = 0, within_s: Annotated[float, Query(ge=0)] = 3600.0
    ) -> dict[str, Any]:
        found = app.sessions.acquirer.starts.lines(project, after, within_s)
        return {"lines": [{"number": line.number, "text": line.text} for line in found]}

    return router
