"""Messages that the hub writes in a kernel's place, because the kernel's own were lost or never made. Pure."""

from __future__ import annotations

from typing import Any

from colab_bridge._util.ids import new_id
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["OUTPUT_LOST", "OwnMessages", "readable_reply"]

#: Name of the error in a reply that stands for a lost one.
OUTPUT_LOST = "OutputLost"


class OwnMessages:
    """Makes messages with an identity of their own.

    Attributes:
        session: The ``session`` of their headers.
    """

    def __init__(self) -> None:
        self.session = new_id("hub")

    def make(self, channel: str, msg_type: str, content: dict[str, Any], parent: dict[str, Any]) -> RawMessage:
        """Return one message that answers the request with the header ``parent``."""
        return RawMessage.build(channel, msg_type, content, msg_id=new_id("hub"), session=self.session, parent=parent)

    def idle(self, parent: dict[str, Any]) -> RawMessage:
        """Return the word that a request has been dealt with."""
        return self.make("iopub", "status", {"execution_state": "idle"}, parent)

    def refusal(self, request: RawMessage, ename: str, message: str, hint: str) -> list[RawMessage]:
        """Return the answer to a request that is not carried, as a kernel would answer one that fails."""
        content = {
            "status": "error",
            "ename": ename,
            "evalue": message,
            "traceback": [message, hint],
            "execution_count": None,
        }
        parent = request.header_fields()
        reply_type = request.msg_type.removesuffix("_request") + "_reply"
        return [
            self.make("iopub", "error", content, parent),
            self.make(request.channel, reply_type, content, parent),
            self.idle(parent),
        ]

    def lost_reply(self, parent: dict[str, Any]) -> RawMessage:
        """Return what stands for the reply of an execution that was lost on the way."""
        text = "the execution has ended, but its reply was lost while the connection was down"
        content: dict[str, Any] = {
            "status": "error",
            "ename": OUTPUT_LOST,
            "evalue": text,
            "traceback": [f"{OUTPUT_LOST}: {text}"],
            "execution_count": None,
        }
        return self.make("shell", "execute_reply", content, parent)


def readable_reply(message: RawMessage) -> RawMessage:
    """Return a reply; one whose content cannot be read as an empty one, because nothing else will come."""
    try:
        message.content_fields()
    except MessageError:
        return RawMessage("shell", message.header, message.parent, message.metadata, b"{}", message.buffers)
    return message
