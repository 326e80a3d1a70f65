"""Sessions over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from colab_bridge.api.callers import with_caller
from colab_bridge.api.schemas import NewSessionBody
from colab_bridge.api.views import session_view
from colab_bridge.app import App
from colab_bridge.model.records import KernelPurpose, Session

__all__ = ["sessions_router"]


def sessions_router(app: App) -> APIRouter:
    """Return the routes below ``/sessions``."""
    router = APIRouter(prefix="/sessions")

    @router.get("")
    async def list_sessions(project: str | None = None) -> dict[str, Any]:
        return {"sessions": [session_view(app, session) for session in app.sessions.sessions(project)]}

    @router.post("", status_code=201)
    async def make_session(body: NewSessionBody, request: Request) -> dict[str, Any]:
        async def ensure() -> Session:
            return await app.sessions.ensure(body.wish(), create_named=True, choose=body.choose)

        return session_view(app, await with_caller(request, ensure))

    @router.get("/{name}")
    async def one_session(name: str) -> dict[str, Any]:
        return session_view(app, app.sessions.session(name))

    @router.delete("/{name}")
    async def stop_session(name: str) -> dict[str, Any]:
        app.forwards.session_ended(name)
        return {"stopped": name, "kernels": await app.sessions.stop(name, app.pool)}

    @router.get("/{name}/kernelspecs")
    async def kernelspecs(name: str) -> dict[str, Any]:
        app.sessions.session(name)
        specs = await (await app.pool.server(name)).kernelspecs()
        shown = {
            key: {"display_name": spec.display_name, "language": spec.language} for key, spec in specs.specs.items()
        }
        return {"default": specs.default, "kernelspecs": shown}

    @router.post("/{name}/interrupt")
    async def interrupt(name: str) -> dict[str, Any]:
        app.sessions.session(name)
        return {"interrupted": await _interrupt_busy(app, name)}

    @router.post("/{name}/restart")
    async def restart(name: str) -> dict[str, Any]:
        app.sessions.session(name)
        main = app.pool.find(name, KernelPurpose.MAIN, "main")
        if main is None:
            # None yet, or it has died and was cleared away: the next run gets a new one, which is what was asked for.
            return {"restarted": []}
        await app.pool.restart(main.id)
        return {"restarted": [main.id]}

    return router


async def _interrupt_busy(app: App, name: str) -> list[str]:
    """Interrupt every kernel of a session that executes something, and return their ids."""
    busy = [kernel.id for kernel in app.pool.kernels(name) if app.pool.hub(kernel.id).busy]
    for kernel_id in busy:
        await app.pool.interrupt(kernel_id)
    return busy
