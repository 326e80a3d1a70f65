"""Executes one request on a kernel and follows it in the record until it has ended."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from colab_bridge.errors import RuntimeLostError
from colab_bridge.kernels.hub import HubKernel, note_of
from colab_bridge.kernels.record import Entry, EntryKind
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["ExecutionResult", "execute", "submit_execution"]

MessageSink = Callable[[RawMessage], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """How one ``execute_request`` ended.

    Attributes:
        status: ``ok``, ``error`` or ``aborted``.
        ename: Name of the exception, empty without one.
        evalue: Its text.
        expressions: Results of ``user_expressions``, by name, as ``text/plain``.
        last_seq: Number of the last record entry that belongs to it.
        lost: Empty, or why output may be missing.
    """

    status: str
    ename: str = ""
    evalue: str = ""
    expressions: dict[str, str] = field(default_factory=dict)
    last_seq: int = 0
    lost: str = ""


def submit_execution(
    hub: HubKernel,
    msg_id: str,
    code: str,
    *,
    session: str,
    allow_stdin: bool,
    store_history: bool = True,
    expressions: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Send an ``execute_request``; sending it again after a restart of the daemon has no effect.

    Source: Jupyter messaging protocol 5.4, "Execute".
    """
    content = {
        "code": code,
        "silent": False,
        "store_history": store_history,
        "user_expressions": expressions or {},
        "allow_stdin": allow_stdin,
        # Requests of other callers may wait behind this one, and must not be thrown away because it fails.
        "stop_on_error": False,
    }
    hub.submit(
        RawMessage.build("shell", "execute_request", content, msg_id=msg_id, session=session, metadata=metadata)
    )


async def execute(hub: HubKernel, msg_id: str, after: int, sink: MessageSink) -> ExecutionResult:
    """Follow an execution to its end.

    Args:
        hub: The kernel.
        msg_id: Id of its ``execute_request``.
        after: Record number before the request.
        sink: Gets every message that belongs to it, in order.

    Returns:
        Its result, after both its reply and its idle status were seen.

    Raises:
        RuntimeLostError: the kernel died or was restarted before it ended.
    """
    tracker = _Tracker(msg_id)
    async for entry in _entries(hub, after):
        if entry.kind is EntryKind.NOTE:
            tracker.note(note_of(entry))
        elif entry.kind is EntryKind.DOWN and (message := _read(entry)) is not None:
            if message.parent_id == msg_id:
                with contextlib.suppress(MessageError):
                    sink(message)
                    tracker.message(message)
        tracker.last_seq = entry.seq
        if tracker.ended:
            return tracker.result()
    raise RuntimeLostError("the kernel was shut down before the run ended", hint="run it again", code="CB-LOST-003")


async def _entries(hub: HubKernel, after: int) -> AsyncIterator[Entry]:
    async for batch in hub.entries(after):
        for entry in batch:
            yield entry


def _read(entry: Entry) -> RawMessage | None:
    try:
        message = decode_v1(entry.body)
        message.parent_fields()
    except MessageError:
        return None
    return message


class _Tracker:
    """Collects what decides about the end of one execution."""

    def __init__(self, msg_id: str) -> None:
        self.msg_id = msg_id
        self.last_seq = 0
        self._reply: dict[str, Any] | None = None
        self._idle = False
        self._lost = ""

    @property
    def ended(self) -> bool:
        return self._reply is not None and self._idle

    def note(self, note: dict[str, Any]) -> None:
        kind = note.get("type")
        if kind == "lost":
            self._lost = str(note.get("text", ""))
        elif kind in ("died", "restarted"):
            raise RuntimeLostError(
                str(note.get("text") or "the kernel died"),
                hint="variables are gone; outputs up to here are kept",
                code="CB-LOST-002",
            )

    def message(self, message: RawMessage) -> None:
        if message.msg_type == "execute_reply":
            self._reply = message.content_fields()
        elif message.msg_type == "status" and message.content_fields().get("execution_state") == "idle":
            self._idle = True

    def result(self) -> ExecutionResult:
        reply = self._reply or {}
        status = str(reply.get("status", "error"))
        return ExecutionResult(
            status=status if status in ("ok", "error", "aborted") else "error",
            ename=str(reply.get("ename", "")),
            evalue=str(reply.get("evalue", "")),
            expressions=_plain_expressions(reply.get("user_expressions")),
            last_seq=self.last_seq,
            lost=self._lost,
        )


def _plain_expressions(value: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    if isinstance(value, dict):
        for name, entry in value.items():
            data = entry.get("data") if isinstance(entry, dict) else None
            if isinstance(data, dict) and isinstance(data.get("text/plain"), str):
                found[str(name)] = data["text/plain"]
    return found
