"""The events of a run as a response of newline-delimited JSON that goes on as long as the run."""

from __future__ import annotations

import anyio
import anyio.abc
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from colab_bridge.api.json_pieces import json_pieces
from colab_bridge.api.views import run_view
from colab_bridge.app import App
from colab_bridge.execution.events import Event
from colab_bridge.model.records import Run

__all__ = ["EventResponse"]

#: Seconds after which a line is sent that only says that the connection lives.
PING_S = 20.0
#: Bytes that are sent at once; more would be copied by the server and the system while they wait.
_PIECE_BYTES = 256 * 1024


class EventResponse(Response):
    """Streams events until the run has finished, the reader has gone, or the daemon stops.

    A generator would be simpler, but one that is left in the middle keeps its tasks until it is collected.

    Args:
        app: The application.
        run: The run.
        after: Number of the last event that the reader has.
        follow: Wait for more while the run goes on.
    """

    media_type = "application/x-ndjson"

    def __init__(self, app: App, run: Run, after: int, *, follow: bool) -> None:
        super().__init__(status_code=200)
        self._app = app
        self._run = run
        self._after = after
        self._follow = follow
        self._sending = anyio.Lock()
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; ASGI's entry point."""
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_reader, receive, tasks.cancel_scope)
            tasks.start_soon(self._watch_daemon, tasks.cancel_scope)
            tasks.start_soon(self._ping, send)
            await self._send_events(send)
            tasks.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        batches = self._app.runs.events(self._run.id, after=self._after, follow=self._follow)
        async for batch in batches:
            batch.reverse()
            while batch:
                await self._send_some(send, batch)

    async def _send_some(self, send: Send, batch: list[Event]) -> None:
        """Send events from the end of a list in one go, up to a limit, or one giant event; they leave the list."""
        async with self._sending:
            waiting: list[bytes] = []
            size = 0
            while batch and size < _PIECE_BYTES:
                for piece in json_pieces(self._shown(batch.pop())):
                    waiting.append(piece)
                    size += len(piece)
                    if size > _PIECE_BYTES:
                        await _send_body(send, waiting)
                        size = 0
                waiting.append(b"\n")
            await _send_body(send, waiting)

    async def _ping(self, send: Send) -> None:
        while True:
            await anyio.sleep(PING_S)
            async with self._sending:
                await _send_body(send, [b'{"type":"ping"}\n'])

    @staticmethod
    async def _watch_reader(receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _watch_daemon(self, scope: anyio.CancelScope) -> None:
        await self._app.stopping.wait()
        scope.cancel()

    def _shown(self, event: Event) -> Event:
        if event["type"] == "started":
            return {**event, "run": run_view(self._app, self._app.runs.run(self._run.id))}
        return event


async def _send_body(send: Send, pieces: list[bytes]) -> None:
    """Send pieces as one, and empty their list."""
    body = b"".join(pieces)
    pieces.clear()
    await send({"type": "http.response.body", "body": body, "more_body": True})
