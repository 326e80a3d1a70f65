"""A kernel's messages over a WebSocket, for front ends.

Down: 8 bytes little-endian number, then the message in the v1 framing; for viewers that ask for batches several of
those in one frame, each with its length. Up: the message alone. Each viewer reads the record at its own speed, so a
slow one holds up nobody.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import struct
from typing import Annotated, Any

import anyio
from anyio.abc import TaskGroup
from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from colab_bridge.api.prompt_websocket import deliver_promptly
from colab_bridge.app import App
from colab_bridge.errors import RuntimeLostError
from colab_bridge.kernels.hub import HubKernel, note_of
from colab_bridge.kernels.record import Entry, EntryKind
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["EarlyLane", "channels_router"]

log = logging.getLogger(__name__)

_SEQ = struct.Struct("<Q")
_FRAME_BYTES = 256 * 1024
_SEQ_AND_LENGTH = struct.Struct("<QQ")
#: What may wait for a viewer on its way past the record; an agent says what overtakes, and may be a hostile one.
_MOST_EARLY = 16
_MOST_EARLY_BYTES = 1024 * 1024

_STATES = {"link": None, "died": "dead", "restarted": "starting"}


def channels_router(app: App) -> APIRouter:
    """Return the route ``/kernels/{id}/channels``."""
    router = APIRouter()

    @router.websocket("/kernels/{kernel_id}/channels")
    async def channels(
        socket: WebSocket, kernel_id: str, after: Annotated[int, Query(ge=0, le=2**62)] = 0, batch: bool = False
    ) -> None:
        try:
            hub = app.pool.hub(kernel_id)
        except RuntimeLostError as error:
            await socket.accept()
            await socket.close(4404, error.message[:100])
            return
        deliver_promptly(socket, functools.partial(_submit, hub))
        await socket.accept()
        attached = {"type": "attached", "state": str(hub.state), "next_seq": hub.record.next_seq, "batch": batch}
        async with app.front_ends.attached(kernel_id):
            try:
                await socket.send_text(json.dumps(attached))
                await _relay(app, socket, hub, after, batch=batch)
            except* (WebSocketDisconnect, RuntimeError) as group:
                # Starlette raises RuntimeError for a send after the peer's close; both mean that the viewer has gone.
                reason = type(group.exceptions[0]).__name__
                log.info("front end disconnected", extra={"kernel": kernel_id, "reason": reason})

    return router


async def _relay(app: App, socket: WebSocket, hub: HubKernel, after: int, *, batch: bool) -> None:
    pass_down = _pass_down_together if batch else _pass_down_singly
    async with anyio.create_task_group() as tasks:

        async def upwards() -> None:
            try:
                while True:
                    await _take(socket, hub)
            except (WebSocketDisconnect, RuntimeError):
                tasks.cancel_scope.cancel()

        async def until_stopped() -> None:
            await app.stopping.wait()
            await socket.close(1012, "the daemon stops")
            tasks.cancel_scope.cancel()

        tasks.start_soon(upwards)
        tasks.start_soon(until_stopped)
        cursor = after
        with hub.showing_early(EarlyLane(socket, tasks).show if batch else _show_nothing):
            async for entries in hub.record.follow(after):
                if entries[0].seq > cursor + 1:
                    await _send(socket, {"type": "gap", "first": cursor + 1, "last": entries[0].seq - 1})
                await pass_down(socket, entries)
                cursor = entries[-1].seq
        if not app.stopping.is_set():
            await _send(socket, {"type": "state", "state": "gone", "text": hub.died or "the kernel was shut down"})
            await socket.close(4410, "the kernel is gone")
        tasks.cancel_scope.cancel()


class EarlyLane:
    """Sends what overtakes the record; what a slow viewer does not take is dropped, because it comes again.

    Args:
        socket: The viewer's.
        tasks: Where sending happens.
    """

    def __init__(self, socket: WebSocket, tasks: TaskGroup) -> None:
        self._socket = socket
        self._tasks = tasks
        self._waiting = 0

    def show(self, message: RawMessage) -> None:
        """Send a message when the viewer can take it."""
        if self._waiting < _MOST_EARLY and message.size_bytes <= _MOST_EARLY_BYTES:
            self._waiting += 1
            self._tasks.start_soon(self._send, message)

    async def _send(self, message: RawMessage) -> None:
        text = base64.b64encode(encode_v1(message)).decode("ascii")
        await _send(self._socket, {"type": "early", "message": text})
        self._waiting -= 1


def _show_nothing(_message: RawMessage) -> None:
    """Leave a viewer that reads each message by itself to the record."""


async def _take(socket: WebSocket, hub: HubKernel) -> None:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    if data := message.get("bytes"):  # text from a front end carries nothing that the daemon needs now
        _submit(hub, data)


def _submit(hub: HubKernel, data: bytes) -> None:
    """Give a front end's message to its kernel."""
    try:
        request = decode_v1(data)
        if request.channel == "iopub" or not request.msg_id:
            raise MessageError("not a request")
        hub.submit(request)
    except MessageError as error:
        log.warning("dropped a message of a front end", extra={"kernel": hub.id, "reason": str(error)})


async def _pass_down_singly(socket: WebSocket, batch: list[Entry]) -> None:
    for entry in batch:
        if entry.kind is EntryKind.DOWN:
            await socket.send_bytes(_SEQ.pack(entry.seq) + entry.body)
        else:
            await _pass_note(socket, entry)


async def _pass_down_together(socket: WebSocket, batch: list[Entry]) -> None:
    """Send several messages in one frame, and a large one in several.

    Each frame costs both sides a turn and a call of the system, and a large one is copied several times on its way.
    """
    pieces: list[bytes] = []
    size = 0
    for entry in batch:
        if entry.kind is EntryKind.NOTE:
            await _send_pieces(socket, pieces)
            await _pass_note(socket, entry)
        elif entry.kind is EntryKind.DOWN:
            if size + len(entry.body) > _FRAME_BYTES:
                await _send_pieces(socket, pieces)
                size = 0
            head = _SEQ_AND_LENGTH.pack(entry.seq, len(entry.body))
            if len(entry.body) > _FRAME_BYTES:
                await _send_in_parts(socket, head, entry.body)
            else:
                pieces += (head, entry.body)
                size += len(entry.body)
    await _send_pieces(socket, pieces)


async def _send_pieces(socket: WebSocket, pieces: list[bytes]) -> None:
    """Send pieces in one frame, and empty their list."""
    if pieces:
        frame = b"".join(pieces)
        pieces.clear()
        await socket.send_bytes(frame)


async def _send_in_parts(socket: WebSocket, head: bytes, body: bytes) -> None:
    view = memoryview(body)
    await socket.send_bytes(b"".join((head, view[:_FRAME_BYTES])))
    for start in range(_FRAME_BYTES, len(view), _FRAME_BYTES):
        await socket.send_bytes(bytes(view[start : start + _FRAME_BYTES]))


async def _pass_note(socket: WebSocket, entry: Entry) -> None:
    if entry.kind is EntryKind.NOTE and (text := _state_text(note_of(entry))) is not None:
        await _send(socket, text)


def _state_text(note: dict[str, Any]) -> dict[str, Any] | None:
    kind = note.get("type")
    if kind == "lost":
        return {"type": "lost", "text": note.get("text", "")}
    if kind in _STATES:
        return {"type": "state", "state": _STATES[kind] or note.get("state"), "text": note.get("text", "")}
    return None


async def _send(socket: WebSocket, value: dict[str, Any]) -> None:
    await socket.send_text(json.dumps(value, ensure_ascii=False))
