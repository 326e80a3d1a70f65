"""What a kernel's message means to somebody who watches a run. Pure."""

from __future__ import annotations

import re
from typing import Any

from colab_bridge.wire.message import RawMessage

__all__ = ["event_from_message", "strip_ansi", "traceback_text"]

Event = dict[str, Any]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def event_from_message(seq: int, message: RawMessage) -> Event | None:
    """Return the run event for a message, None when it is none.

    The kernel is not trusted: members of the wrong type become empty ones.

    Args:
        seq: Number of the message in the record.
        message: From the kernel.

    Raises:
        MessageError: header or content is no JSON object.
    """
    build = _BUILDERS.get((message.channel, message.msg_type))
    if build is None:
        return None
    return {"seq": seq, **build(message.content_fields())}


def _stream(content: Event) -> Event:
    name = "stderr" if content.get("name") == "stderr" else "stdout"
    return {"type": "stream", "name": name, "text": _text(content.get("text"))}


def _display(content: Event) -> Event:
    return {"type": "display", **_bundle(content), "display_id": _display_id(content)}


def _update(content: Event) -> Event:
    return {"type": "update_display", **_bundle(content), "display_id": _display_id(content)}


def _result(content: Event) -> Event:
    count = content.get("execution_count")
    return {"type": "result", **_bundle(content), "execution_count": count if isinstance(count, int) else None}


def _error(content: Event) -> Event:
    lines = content.get("traceback")
    return {
        "type": "error",
        "ename": _text(content.get("ename")),
        "evalue": _text(content.get("evalue")),
        "traceback": [_text(line) for line in lines] if isinstance(lines, list) else [],
    }


def _clear(content: Event) -> Event:
    return {"type": "clear_output", "wait": content.get("wait") is True}


def _input(content: Event) -> Event:
    return {
        "type": "input_request",
        "prompt": _text(content.get("prompt")),
        "password": content.get("password") is True,
    }


_BUILDERS = {
    ("iopub", "stream"): _stream,
    ("iopub", "display_data"): _display,
    ("iopub", "update_display_data"): _update,
    ("iopub", "execute_result"): _result,
    ("iopub", "error"): _error,
    ("iopub", "clear_output"): _clear,
    ("stdin", "input_request"): _input,
}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _bundle(content: Event) -> Event:
    data, metadata = content.get("data"), content.get("metadata")
    return {
        "data": {str(key): value for key, value in data.items()} if isinstance(data, dict) else {},
        "metadata": metadata if isinstance(metadata, dict) else {},
    }


def _display_id(content: Event) -> str | None:
    transient = content.get("transient")
    value = transient.get("display_id") if isinstance(transient, dict) else None
    return value if isinstance(value, str) else None


def strip_ansi(text: str) -> str:
    """Return a text without terminal control sequences."""
    return _ANSI.sub("", text)


def traceback_text(content: Event) -> str:
    """Return a traceback as plain text: the kernel's lines, or name and value where it sent none."""
    event = _error(content)
    text = "\n".join(event["traceback"]) or f"{event['ename']}: {event['evalue']}"
    return strip_ansi(text)
