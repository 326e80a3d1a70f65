"""Runs over HTTP, with their events as NDJSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from colab_bridge.api.schemas import InputBody, KillBody, RunRequest, SaveBody
from colab_bridge.api.views import run_view
from colab_bridge.app import App
from colab_bridge.execution.events import Event
from colab_bridge.model.records import Run

__all__ = ["runs_router"]

#: Seconds of silence after which a line is sent that only says that the connection lives.
PING_S = 20.0


def runs_router(app: App) -> APIRouter:
    """Return the routes below ``/runs``."""
    router = APIRouter(prefix="/runs")

    @router.post("", status_code=201, response_model=None)
    async def start(body: RunRequest, follow: bool = False) -> Response | dict[str, Any]:
        run = await app.runs.start(body)
        return _stream(app, run, 0, follow=True) if follow else run_view(run)

    @router.get("")
    async def list_runs(
        session: str | None = None, project: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> dict[str, Any]:
        runs = app.runs.runs(session=session, project=project, limit=limit)
        return {"runs": [run_view(run) for run in runs]}

    @router.get("/{run_id}")
    async def one_run(run_id: str) -> dict[str, Any]:
        return run_view(app.runs.run(run_id))

    @router.get("/{run_id}/events", response_model=None)
    async def events(run_id: str, after: Annotated[int, Query(ge=0, le=2**62)] = 0, follow: bool = True) -> Response:
        return _stream(app, app.runs.run(run_id), after, follow=follow)

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


def _stream(app: App, run: Run, after: int, *, follow: bool) -> StreamingResponse:
    return StreamingResponse(_lines(app, run, after, follow=follow), media_type="application/x-ndjson")


async def _lines(app: App, run: Run, after: int, *, follow: bool) -> AsyncIterator[bytes]:
    """Yield one line per event; a reader that goes away ends it."""
    batches = app.runs.events(run.id, after=after, follow=follow)
    async for batch in _with_pings(batches):
        yield b"".join(_line(app, run, event) for event in batch)


def _line(app: App, run: Run, event: Event) -> bytes:
    if event["type"] == "started":
        event = {**event, "run": run_view(app.runs.run(run.id))}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


async def _with_pings(batches: AsyncIterator[list[Event]]) -> AsyncIterator[list[Event]]:
    """Pass batches on, and a ping whenever nothing came for a while, so that a broken connection is noticed."""
    send, receive = anyio.create_memory_object_stream[list[Event]](1)

    async def pump() -> None:
        async with send:
            async for batch in batches:
                await send.send(batch)

    async with anyio.create_task_group() as tasks, receive:
        tasks.start_soon(pump)
        while True:
            with anyio.move_on_after(PING_S) as waiting:
                try:
                    batch = await receive.receive()
                except anyio.EndOfStream:
                    return
            yield [{"type": "ping"}] if waiting.cancelled_caught else batch
