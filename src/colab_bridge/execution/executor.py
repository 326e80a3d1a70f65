"""Executes one request on a kernel and follows it in the record until it has ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from colab_bridge.errors import RuntimeLostError
from colab_bridge.kernels.hub import HubKernel, note_of
from colab_bridge.kernels.own_messages import OUTPUT_LOST
from colab_bridge.kernels.record import Entry, EntryKind
from colab_bridge.wire.jupyter_ws import COPIED_BYTES, decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["ExecutionResult", "execute", "execution_request", "kernel_time", "submit_execution"]

MessageSink = Callable[[RawMessage], None]
#: A clock that was set in between may show any time.
LONGEST_S = 366 * 86_400.0


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
        kernel_s: Seconds from its begin to its end by the kernel's clock; None when the kernel does not say.
    """

    status: str
    ename: str = ""
    evalue: str = ""
    expressions: dict[str, str] = field(default_factory=dict)
    last_seq: int = 0
    lost: str = ""
    kernel_s: float | None = None


def execution_request(
    msg_id: str,
    code: str,
    *,
    session: str,
    allow_stdin: bool,
    store_history: bool = True,
    expressions: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
) -> RawMessage:
    """Return an ``execute_request``.

    Args:
        msg_id: Id of the request, the same at each try.
        code: What to execute.
        session: Goes into the header.
        allow_stdin: Whether the code may ask for input.
        store_history: Whether it counts and enters the history.
        expressions: ``user_expressions``.
        metadata: Of the message.

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
    return RawMessage.build("shell", "execute_request", content, msg_id=msg_id, session=session, metadata=metadata)


def submit_execution(
    hub: HubKernel,
    msg_id: str,
    code: str,
    *,
    session: str,
    after: int,
    allow_stdin: bool,
    store_history: bool = True,
    expressions: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Send an ``execute_request``; sending it again after a restart of the daemon has no effect.

    Args:
        hub: The kernel.
        msg_id: As for :func:`execution_request`, and so are those that follow.
        code: What to execute.
        session: Goes into the header.
        after: Record number before the request. Where the record does not reach back to it any more, the request
            went out.
        allow_stdin: Whether the code may ask for input.
        store_history: Whether it counts and enters the history.
        expressions: ``user_expressions``.
        metadata: Of the message.
    """
    request = execution_request(
        msg_id,
        code,
        session=session,
        allow_stdin=allow_stdin,
        store_history=store_history,
        expressions=expressions,
        metadata=metadata,
    )
    if not hub.knows(msg_id) and hub.record.first_seq > after + 1:
        hub.assume_sent(request)
    else:
        hub.submit(request)


async def execute(hub: HubKernel, msg_id: str, after: int, sink: MessageSink) -> ExecutionResult:
    """Follow an execution to its end.

    Args:
        hub: The kernel.
        msg_id: Id of its ``execute_request``.
        after: Record number before the request.
        sink: Gets every message that belongs to it or to another request of its run, in order: threads and
            tasks that an earlier cell has started print while a later one runs.

    Returns:
        Its result, after both its reply and its idle status were seen.

    Raises:
        RuntimeLostError: the kernel died or was restarted before it ended.
    """
    tracker = _Tracker(msg_id, after)
    run_prefix = msg_id.rpartition(".")[0] + "."
    async for batch in hub.record.follow(after):
        if _take(batch, tracker, run_prefix, sink):
            return tracker.result()
    raise RuntimeLostError("the kernel was shut down before the run ended", hint="run it again", code="CB-LOST-003")


def _take(batch: list[Entry], tracker: _Tracker, run_prefix: str, sink: MessageSink) -> bool:
    """Take in the entries of a batch, which is empty then, until the execution has ended; return whether it has.

    Nothing is held on to, because a single entry may be as large as all the others together.
    """
    batch.reverse()
    while batch and not tracker.ended:
        entry = batch.pop()
        tracker.check_number(entry.seq)
        if entry.kind is EntryKind.NOTE:
            tracker.note(note_of(entry))
            continue
        message = _read(entry)
        del entry
        if message is not None and message.parent_id.startswith(run_prefix):
            with contextlib.suppress(MessageError):
                if message.size_bytes > COPIED_BYTES:
                    message.keep_parsed_only()
                sink(message)
            if message.parent_id == tracker.msg_id:
                tracker.message(message)
    return tracker.ended


def _read(entry: Entry) -> RawMessage | None:
    """Return a message from the kernel; None for what is none, or unreadable."""
    if entry.kind is not EntryKind.DOWN:
        return None
    try:
        message = decode_v1(entry.body)
        message.parent_fields()
        message.header_fields()
    except MessageError:
        return None
    return message


def _content(message: RawMessage) -> dict[str, Any]:
    try:
        return message.content_fields()
    except MessageError:
        return {}  # an answer that cannot be read is an answer: nothing else will come


class _Tracker:
    """Collects what decides about the end of one execution."""

    def __init__(self, msg_id: str, after: int) -> None:
        self.msg_id = msg_id
        self.last_seq = after
        self._reply: dict[str, Any] | None = None
        self._error: dict[str, Any] = {}
        self._idle = False
        self._lost = ""
        self._begun_at: datetime | None = None
        self._idle_at: datetime | None = None

    @property
    def ended(self) -> bool:
        return self._reply is not None and self._idle

    def check_number(self, seq: int) -> None:
        """Take the number of the next entry; one that is too large means that some have left the record."""
        if seq > self.last_seq + 1:
            self._lost = f"the entries {self.last_seq + 1} to {seq - 1} are not in the record any more"
        self.last_seq = seq

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
            self._reply = _content(message)
        elif message.msg_type == "error":
            self._error = _content(message)
        elif message.msg_type == "status":
            self._status(message, _content(message).get("execution_state"))

    def _status(self, message: RawMessage, state: object) -> None:
        if state == "idle":
            self._idle, self._idle_at = True, kernel_time(message)
        elif state == "busy" and self._begun_at is None:
            self._begun_at = kernel_time(message)

    def _seconds(self) -> float | None:
        if self._begun_at is None or self._idle_at is None:
            return None
        seconds = (self._idle_at - self._begun_at).total_seconds()
        return seconds if 0 <= seconds <= LONGEST_S else None

    def result(self) -> ExecutionResult:
        reply = self._reply or {}
        if reply.get("ename") == OUTPUT_LOST and self._error:
            reply = {**self._error, "status": "error"}  # the lost reply said the same
        status = str(reply.get("status", "error"))
        return ExecutionResult(
            status=status if status in ("ok", "error", "aborted") else "error",
            ename=str(reply.get("ename", "")),
            evalue=str(reply.get("evalue", "")),
            expressions=_plain_expressions(reply.get("user_expressions")),
            last_seq=self.last_seq,
            lost=self._lost,
            kernel_s=self._seconds(),
        )


def kernel_time(message: RawMessage) -> datetime | None:
    """Return when a message was made, by its sender's clock; None when it does not say so, or not with a zone."""
    text = message.header_fields().get("date")
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _plain_expressions(value: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    if isinstance(value, dict):
        for name, entry in value.items():
            data = entry.get("data") if isinstance(entry, dict) else None
            if isinstance(data, dict) and isinstance(data.get("text/plain"), str):
                found[str(name)] = data["text/plain"]
    return found
