"""Messages that the proxy makes itself, because no kernel is there to make them.

Source: Jupyter messaging protocol 5.4; the member lists follow "Request-Reply", "Execution errors" and "Streams".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colab_bridge import __version__
from colab_bridge._util.ids import new_id
from colab_bridge.errors import ColabBridgeError
from colab_bridge.wire.message import PROTOCOL_VERSION, MessageError, RawMessage

__all__ = ["LocalMessages", "error_content", "idle_content", "interrupted_content", "kernel_info_content"]


class LocalMessages:
    """Builds messages under one session id of our own."""

    def __init__(self) -> None:
        self._session = new_id("proxy")

    def build(
        self, channel: str, msg_type: str, content: Mapping[str, Any], parent: Mapping[str, Any] | None = None
    ) -> RawMessage:
        """Make any message; ``parent`` is the header of its cause."""
        return RawMessage.build(
            channel, msg_type, content, msg_id=new_id("proxy"), session=self._session, parent=parent
        )

    def reply(self, request: RawMessage, content: Mapping[str, Any]) -> RawMessage:
        """Make the reply to a request, for the channel that it came on."""
        msg_type = request.msg_type.removesuffix("_request") + "_reply"
        return self.build(request.channel, msg_type, content, request.header_fields())

    def status(self, request: RawMessage, state: str) -> RawMessage:
        """Make the ``busy`` or ``idle`` around a request."""
        return self.build("iopub", "status", {"execution_state": state}, request.header_fields())

    def error(self, request: RawMessage, content: Mapping[str, Any]) -> RawMessage:
        """Make the error output of an execution."""
        shown = {key: content[key] for key in ("ename", "evalue", "traceback")}
        return self.build("iopub", "error", shown, request.header_fields())

    def stderr(self, parent: Mapping[str, Any], text: str) -> RawMessage:
        """Make a line on the standard error of an execution, given by its header."""
        return self.build("iopub", "stream", {"name": "stderr", "text": text}, parent)

    def question(self, parent: Mapping[str, Any], prompt: str) -> RawMessage:
        """Make a question that is shown in the cell given by its header."""
        return self.build("stdin", "input_request", {"prompt": prompt, "password": False}, parent)

    def welcome(self, subscription: bytes) -> RawMessage:
        """Make the answer to an iopub subscription (JEP 65)."""
        return self.build("iopub", "iopub_welcome", {"subscription": subscription.decode("utf-8", "replace")})


def kernel_info_content(banner: str) -> dict[str, Any]:
    """Return a ``kernel_info_reply`` for when the kernel cannot be asked; enough for a front end to show it."""
    return {
        "status": "ok",
        "protocol_version": PROTOCOL_VERSION,
        "implementation": "colab-bridge",
        "implementation_version": __version__,
        "language_info": {
            "name": "python",
            "version": "3",
            "mimetype": "text/x-python",
            "file_extension": ".py",
            "pygments_lexer": "ipython3",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "nbconvert_exporter": "python",
        },
        "banner": banner,
        "debugger": False,
        "help_links": [],
    }


def idle_content(request: RawMessage) -> dict[str, Any]:
    """Return what a kernel answers that has nothing to tell yet."""
    if request.msg_type == "execute_request":
        return {"status": "ok", "execution_count": 0, "user_expressions": {}, "payload": []}
    if request.msg_type == "comm_info_request":
        return {"status": "ok", "comms": {}}
    if request.msg_type == "history_request":
        return {"status": "ok", "history": []}
    if request.msg_type == "inspect_request":
        return {"status": "ok", "found": False, "data": {}, "metadata": {}}
    if request.msg_type == "is_complete_request":
        return {"status": "unknown"}
    if request.msg_type == "complete_request":
        cursor = request.content_fields().get("cursor_pos", 0)
        return {"status": "ok", "matches": [], "cursor_start": cursor, "cursor_end": cursor, "metadata": {}}
    return _failed("ColabBridgeError", "the machine is not there yet", ["run a cell first"])


def error_content(error: ColabBridgeError) -> dict[str, Any]:
    """Return the content of a reply and of an ``error`` output that say why there is no kernel."""
    return _failed("ColabBridgeError", error.message, [error.message, error.hint] if error.hint else [error.message])


def interrupted_content() -> dict[str, Any]:
    """Return the content for an execution that was stopped before a kernel saw it."""
    text = "stopped before it began: the kernel was still being started"
    return _failed("KeyboardInterrupt", text, [f"KeyboardInterrupt: {text}"])


def _failed(name: str, value: str, traceback: list[str]) -> dict[str, Any]:
    return {
        "status": "error",
        "ename": name,
        "evalue": value,
        "traceback": traceback,
        "execution_count": 0,
        "user_expressions": {},
        "payload": [],
    }


def restart_wanted(request: RawMessage) -> bool:
    """Read ``restart`` from a ``shutdown_request``; False when it is unreadable."""
    try:
        return bool(request.content_fields().get("restart", False))
    except MessageError:
        return False
