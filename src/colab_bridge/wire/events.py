"""One kernel message as the run event that viewers read. Pure.

Source: the project's "Events of a run" and Jupyter messaging protocol 5.4, "Messages on the IOPub channel".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from colab_bridge.wire.message import RawMessage

__all__ = ["event_from_message", "strip_ansi", "traceback_text"]

Event = dict[str, Any]

#: Control sequences (colours, cursor), operating system commands (titles, links), and other two-byte escapes.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")

_BUNDLES = {"display_data": "display", "update_display_data": "update_display", "execute_result": "result"}


def event_from_message(seq: int, message: RawMessage) -> Event | None:
    """Translate a message.

    Args:
        seq: Its number in the kernel's record.
        message: From a kernel, so anything may be in it.

    Returns:
        The event; None for a message that is none (status, comm, replies ...) or whose content makes no sense.

    Raises:
        MessageError: the header or the content is no JSON object.
    """
    if message.channel not in ("iopub", "stdin"):
        return None
    msg_type = message.msg_type
    if (msg_type == "input_request") != (message.channel == "stdin"):
        return None
    fields: Event | None = None
    if msg_type in _BUNDLES:
        fields = _bundle(_BUNDLES[msg_type], message.content_fields())
    elif msg_type == "stream":
        fields = _stream(message.content_fields())
    elif msg_type == "error":
        fields = _error(message.content_fields())
    elif msg_type == "clear_output":
        fields = {"type": "clear_output", "wait": message.content_fields().get("wait") is True}
    elif msg_type == "input_request":
        fields = _input_request(message.content_fields())
    return None if fields is None else {"seq": seq, **fields}


def strip_ansi(text: str) -> str:
    """Return a text without terminal control sequences."""
    return _ANSI.sub("", text)


def traceback_text(content: Mapping[str, Any]) -> str:
    """Return the traceback of an ``error`` message or of a failed reply as plain text, without colours.

    Args:
        content: With ``ename``, ``evalue`` and ``traceback``, any of which may be missing or wrong.

    Returns:
        Lines without a newline at the end; ``ename: evalue`` where there is no traceback, as in some kernels.
    """
    text = "\n".join(_lines(content.get("traceback")))
    if not text.strip():
        text = ": ".join(part for part in (_text(content.get("ename")), _text(content.get("evalue"))) if part)
    return strip_ansi(text).rstrip("\n")


def _stream(content: Mapping[str, Any]) -> Event | None:
    text, name = content.get("text"), content.get("name")
    if not isinstance(text, str):
        return None
    return {"type": "stream", "name": "stderr" if name == "stderr" else "stdout", "text": text}


def _bundle(kind: str, content: Mapping[str, Any]) -> Event | None:
    data = content.get("data")
    if not isinstance(data, dict):
        return None
    metadata = content.get("metadata")
    event: Event = {"type": kind, "data": data, "metadata": metadata if isinstance(metadata, dict) else {}}
    if kind == "result":
        count = content.get("execution_count")
        event["execution_count"] = count if isinstance(count, int) and not isinstance(count, bool) else None
        return event
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    event["display_id"] = display_id if isinstance(display_id, str) else None
    return event


def _error(content: Mapping[str, Any]) -> Event:
    return {
        "type": "error",
        "ename": _text(content.get("ename")),
        "evalue": _text(content.get("evalue")),
        "traceback": _lines(content.get("traceback")),
    }


def _input_request(content: Mapping[str, Any]) -> Event:
    return {
        "type": "input_request",
        "prompt": _text(content.get("prompt")),
        "password": content.get("password") is True,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _lines(value: Any) -> list[str]:
    return [line for line in value if isinstance(line, str)] if isinstance(value, list) else []
