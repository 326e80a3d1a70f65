"""How the machines of sessions are, over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from colab_bridge.app import App
from colab_bridge.model.records import Session

__all__ = ["machine_router", "machines_of"]

#: What `status` waits for a machine; one that does not answer in time is left out.
LOOK_S = 2.0


def machine_router(app: App) -> APIRouter:
    """Return the routes ``/sessions/{name}/machine``, ``/sessions/{name}/machine/live`` and ``/runs/{id}/process``."""
    router = APIRouter()

    @router.get("/sessions/{name}/machine")
    async def machine(name: str) -> dict[str, Any]:
        return {"session": name, "found": await app.machines.look(app.sessions.session(name))}

    @router.get("/sessions/{name}/machine/live")
    async def live(name: str, interval_s: Annotated[float, Query(ge=1, le=3600)] = 2.0) -> StreamingResponse:
        session = app.sessions.session(name)
        return StreamingResponse(_looks(app, session, interval_s), media_type="application/x-ndjson")

    @router.get("/runs/{run_id}/process")
    async def process(run_id: str) -> dict[str, Any]:
        run = app.runs.run(run_id)
        kernel = app.pool.kernel(run.kernel)
        return {"run": run.id, "found": await app.machines.kernel(app.sessions.session(run.session), kernel.remote_id)}

    return router


async def machines_of(app: App, sessions: list[Session]) -> dict[str, dict[str, Any] | None]:
    """Look at the machines of several sessions at once, for two seconds at most.

    Returns:
        What was found, by name of the session.
    """
    found: dict[str, dict[str, Any] | None] = {}

    async def look(session: Session) -> None:
        found[session.name] = await app.machines.look(session)

    with anyio.move_on_after(LOOK_S):
        async with anyio.create_task_group() as tasks:
            for session in sessions:
                tasks.start_soon(look, session)
    return found


async def _looks(app: App, session: Session, interval_s: float) -> AsyncIterator[bytes]:
    """Look again and again until the reader has gone or the daemon stops."""
    while not app.stopping.is_set():
        found = await app.machines.look(session)
        yield json.dumps({"session": session.name, "found": found}).encode() + b"\n"
        with anyio.move_on_after(interval_s):
            await app.stopping.wait()
