"""Ports that lead to runtimes, over HTTP. They are open for as long as whoever opened them listens."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import anyio
from fastapi import APIRouter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from colab_bridge.api.schemas import ForwardBody
from colab_bridge.app import App
from colab_bridge.sessions.forwards import Forward

__all__ = ["forwards_router"]

#: Seconds after which a line is sent that only says that the connection lives.
PING_S = 20.0


def forwards_router(app: App) -> APIRouter:
    """Return the routes ``/forwards`` and ``/sessions/{name}/forwards``."""
    router = APIRouter()

    @router.get("/forwards")
    async def list_forwards() -> dict[str, Any]:
        return {"forwards": [dataclasses.asdict(forward) for forward in app.forwards.all()]}

    @router.post("/sessions/{name}/forwards", response_model=None)
    async def hold(name: str, body: ForwardBody) -> Response:
        opened: list[Forward] = []
        try:
            for wish in body.ports:
                opened.append(await app.forwards.add(name, wish.port, wish.local_port))  # noqa: PERF401  # some may fail
        except BaseException:
            for forward in opened:
                app.forwards.remove(forward.id)
            raise
        return _HoldResponse(app, opened)

    return router


class _HoldResponse(Response):
    """Says which ports are open, and closes them when the reader has gone or the daemon stops."""

    media_type = "application/x-ndjson"

    def __init__(self, app: App, forwards: list[Forward]) -> None:
        super().__init__(status_code=200)
        self._app = app
        self._forwards = forwards
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the ports open; ASGI's entry point."""
        del scope
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            opened = {"type": "open", "forwards": [dataclasses.asdict(forward) for forward in self._forwards]}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_reader, receive, tasks.cancel_scope)
                tasks.start_soon(self._speak, send, opened)
                await self._app.stopping.wait()
                tasks.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for forward in self._forwards:
                self._app.forwards.remove(forward.id)

    async def _speak(self, send: Send, first: dict[str, Any]) -> None:
        line: dict[str, Any] = first
        while True:
            body = json.dumps(line).encode() + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await anyio.sleep(PING_S)
            line = {"type": "ping"}

    async def _watch_reader(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()
