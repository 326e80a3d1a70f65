"""Kernels of front ends over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from colab_bridge.api.callers import with_caller
from colab_bridge.api.schemas import KernelBody
from colab_bridge.api.views import kernel_view
from colab_bridge.app import App
from colab_bridge.errors import RuntimeLostError
from colab_bridge.execution.preparation import relative_folder
from colab_bridge.model.records import KernelPurpose

__all__ = ["kernels_router"]


def kernels_router(app: App) -> APIRouter:
    """Return the routes below ``/kernels``, except the WebSocket."""
    router = APIRouter(prefix="/kernels")

    @router.get("")
    async def list_kernels(session: str | None = None) -> dict[str, Any]:
        return {"kernels": [kernel_view(app, kernel) for kernel in app.pool.kernels(session)]}

    @router.post("", status_code=201)
    async def make_kernel(body: KernelBody, request: Request) -> dict[str, Any]:
        return await with_caller(request, lambda: _for_front_end(app, body))

    @router.post("/{kernel_id}/interrupt", status_code=202)
    async def interrupt(kernel_id: str) -> dict[str, Any]:
        await app.pool.interrupt(kernel_id)
        return {"interrupted": kernel_id}

    @router.post("/{kernel_id}/restart", status_code=202)
    async def restart(kernel_id: str) -> dict[str, Any]:
        await app.pool.restart(kernel_id)
        return {"restarted": kernel_id}

    @router.delete("/{kernel_id}", status_code=204, response_model=None)
    async def delete(kernel_id: str, restart: bool = False) -> None:
        # With `restart` the front end starts a new proxy at once; either way this kernel is not needed any more.
        await app.pool.delete(kernel_id)

    return router


async def _for_front_end(app: App, body: KernelBody) -> dict[str, Any]:
    wish = body.wish()
    if body.only_held and not await app.sessions.is_held(wish):
        return {"id": None, "deferred": True}
    session = await app.sessions.ensure(wish)
    settings = app.sessions.settings(body.project, body.env)
    identity = {
        **body.identity,
        "reattach": settings.reattach,
        "restart_window_s": settings.restart_window_s,
    }
    decision = app.front_ends.decide_start(session.name, identity)
    for kernel_id in decision.remove:
        await app.pool.delete(kernel_id)
    if decision.reuse is not None:
        try:
            return kernel_view(app, app.pool.kernel(decision.reuse), reattached=True)
        except RuntimeLostError:
            pass  # it ended between the decision and now: a new one is what the user needs
    kernel = await app.pool.start(
        session.name,
        KernelPurpose.FRONTEND,
        str(identity.get("notebook") or identity.get("connection_file") or ""),
        spec=body.kernel_name,
        cwd=relative_folder(Path(body.cwd), session.project),
        identity=identity,
    )
    # One that dies before it connects leaves no orphan either.
    app.front_ends.expect_return(kernel)
    return kernel_view(app, kernel, restarted=decision.restarted)
