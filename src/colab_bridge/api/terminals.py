"""Shells on runtimes over a WebSocket.

Binary frames are what is typed and what is shown. Text frames hold JSON: ``{"resize": [cols, rows]}`` up,
``{"type": "ended", "code": ..., "message": ...}`` down as the last one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from colab_bridge.agent.events import Piece, StreamData
from colab_bridge.api.schemas import ShellBody
from colab_bridge.app import App
from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.agent_link import AgentLink
from colab_bridge.kernels.agent_traffic import LinkStream

__all__ = ["terminals_router"]

log = logging.getLogger(__name__)

#: An agent may have to be started first.
_READY_S = 60.0
_CALL_S = 10.0
_PIECE_BYTES = 64 * 1024
_MOST_TEXT = 1000


def terminals_router(app: App) -> APIRouter:
    """Return the routes ``/sessions/{name}/terminal`` and ``/sessions/{name}/shells``."""
    router = APIRouter(prefix="/sessions/{name}")

    @router.websocket("/terminal")
    async def terminal(
        socket: WebSocket,
        name: str,
        shell: Annotated[str, Query(pattern=r"^[A-Za-z0-9._-]{1,60}$")] = "main",
        cols: Annotated[int, Query(ge=1, le=1000)] = 80,
        rows: Annotated[int, Query(ge=1, le=1000)] = 24,
    ) -> None:
        await socket.accept()
        try:
            await _serve(app, socket, name, {"shell": shell, "cols": cols, "rows": rows})
        except* (WebSocketDisconnect, RuntimeError):
            # Starlette raises RuntimeError for a send after the peer's close; the shell goes on.
            log.info("terminal disconnected", extra={"session": name})

    @router.get("/shells")
    async def shells(name: str) -> dict[str, Any]:
        link = app.agents.link(app.sessions.session(name))
        await link.ready(_READY_S)
        found, _ = await link.call("terminal.list", deadline_s=_CALL_S)
        return {"shells": found.get("shells")}

    @router.post("/shells/end", status_code=204, response_model=None)
    async def end(name: str, body: ShellBody) -> None:
        link = app.agents.link(app.sessions.session(name))
        await link.ready(_READY_S)
        await link.call("terminal.end", {"shell": body.shell}, deadline_s=_CALL_S)

    return router


async def _serve(app: App, socket: WebSocket, name: str, params: dict[str, Any]) -> None:
    try:
        session = app.sessions.session(name)
        link = app.agents.link(session)
        await link.ready(_READY_S)
        root = session.handle.root if session.handle is not None else None
        await _Bridge(app, socket, link, {**params, "cwd": root or ""}).run()
    except ColabBridgeError as error:
        await _say_ended(socket, "unreachable", error.message)


class _Bridge:
    """Joins one socket and one stream; a :class:`~colab_bridge.kernels.agent_traffic.LinkStreamHandler`."""

    def __init__(self, app: App, socket: WebSocket, link: AgentLink, params: dict[str, Any]) -> None:
        self._app = app
        self._socket = socket
        self._link = link
        self._params = params
        self._stream: LinkStream | None = None
        self._pieces: list[StreamData] = []
        self._end: tuple[str, str] | None = None
        self._news = anyio.Event()
        self._room = anyio.Event()

    async def run(self) -> None:
        """Carry everything until either end has gone."""
        self._stream = self._link.open_stream("terminal.attach", self._params, handler=self)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._up, tasks.cancel_scope)
                tasks.start_soon(self._until_stopped, tasks.cancel_scope)
                await self._down()
                tasks.cancel_scope.cancel()
        finally:
            self._stream.close()

    async def _until_stopped(self, scope: anyio.CancelScope) -> None:
        await self._app.stopping.wait()
        await self._socket.close(1012, "the daemon stops")
        scope.cancel()

    async def _down(self) -> None:
        assert self._stream is not None
        while True:
            while self._pieces:
                piece = self._pieces.pop(0)
                await self._socket.send_bytes(piece.payload)
                self._stream.consumed(piece.seq)
            if self._end is not None:
                await _say_ended(self._socket, *self._end)
                return
            self._news = anyio.Event()
            await self._news.wait()

    async def _up(self, scope: anyio.CancelScope) -> None:
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                if data := message.get("bytes"):
                    for at in range(0, len(data), _PIECE_BYTES):
                        await self._send({}, data[at : at + _PIECE_BYTES])
                elif (size := _size(message.get("text"))) is not None:
                    await self._send({"resize": size}, b"")
        except (WebSocketDisconnect, RuntimeError):
            log.info("terminal hung up")
        scope.cancel()

    async def _send(self, header: dict[str, Any], payload: bytes) -> None:
        assert self._stream is not None
        while self._end is None and not self._stream.can_send(len(payload) + 1024):
            self._room = anyio.Event()
            await self._room.wait()
        if self._end is None:
            self._stream.send(header, payload)

    # -- LinkStreamHandler -----------------------------------------------------------------------------------

    def opened(self) -> None:
        """The agent is connected (again); nothing was lost."""

    def data(self, piece: StreamData) -> None:
        """Take what is to be shown."""
        self._pieces.append(piece)
        self._news.set()

    def gap(self, first: int, last: int) -> None:
        """Cannot be: a shell's stream has no numbers of its own."""

    def writable(self) -> None:
        """Go on sending."""
        self._room.set()

    def lost(self, unacknowledged: Sequence[Piece]) -> None:
        """The agent was started anew, and its shells are gone."""
        self.closed("lost", "the agent on the runtime was started anew; the shell is gone")

    def closed(self, code: str, message: str) -> None:
        """The shell has ended, or another terminal has it."""
        self._end = (code, message)
        self._news.set()
        self._room.set()


def _size(text: str | None) -> list[int] | None:
    try:
        size = json.loads((text or "")[:_MOST_TEXT]).get("resize")
    except (ValueError, AttributeError, RecursionError):
        return None
    valid = isinstance(size, list) and len(size) == 2 and all(isinstance(number, int) for number in size)
    return size if valid else None


async def _say_ended(socket: WebSocket, code: str, message: str) -> None:
    await socket.send_text(json.dumps({"type": "ended", "code": code[:50], "message": message[:_MOST_TEXT]}))
    await socket.close()
