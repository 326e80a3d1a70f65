"""SSH to runtimes that offer it, over a WebSocket: binary frames are SSH's own bytes.

The last text frame holds JSON: ``{"type": "ended", "problem": ...}``, with a problem document or null.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import Any

import anyio
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from colab_bridge.app import App
from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.kernels.ssh_door import check_public_key, open_ssh
from colab_bridge.ports.account import AccountProvider

__all__ = ["ssh_router"]

log = logging.getLogger(__name__)


def ssh_router(app: App) -> APIRouter:
    """Return the route ``/sessions/{name}/ssh``."""
    router = APIRouter()

    @router.websocket("/sessions/{name}/ssh")
    async def ssh(socket: WebSocket, name: str, key: str = "") -> None:
        await socket.accept()
        try:
            problem = await _problem_of(app, socket, name, key)
        except* (WebSocketDisconnect, RuntimeError):
            # Starlette raises RuntimeError for a send after the peer's close.
            log.info("ssh disconnected", extra={"session": name})
            problem = None
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.send_text(json.dumps({"type": "ended", "problem": problem}))
            await socket.close()

    return router


async def _problem_of(app: App, socket: WebSocket, name: str, key: str) -> dict[str, Any] | None:
    try:
        await _serve(app, socket, name, key)
    except ColabBridgeError as error:
        return error.to_problem()
    return None


async def _serve(app: App, socket: WebSocket, name: str, key: str) -> None:
    session = app.sessions.session(name)
    if not isinstance(app.providers.get(session.provider), AccountProvider):
        raise UserError("SSH is for Colab runtimes", hint="colab-bridge console works on this one")
    remote = await open_ssh(await app.sessions.endpoint(name), check_public_key(key))
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_up, socket, remote, tasks.cancel_scope)
            tasks.start_soon(_until_stopped, app, tasks.cancel_scope)
            with contextlib.suppress(ConnectionClosed):
                async for data in remote:
                    await socket.send_bytes(data if isinstance(data, bytes) else data.encode())
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await remote.close()


async def _up(socket: WebSocket, remote: ClientConnection, scope: anyio.CancelScope) -> None:
    with contextlib.suppress(ConnectionClosed, WebSocketDisconnect, RuntimeError):
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            if data := message.get("bytes"):
                await remote.send(data)
    scope.cancel()


async def _until_stopped(app: App, scope: anyio.CancelScope) -> None:
    await app.stopping.wait()
    scope.cancel()
