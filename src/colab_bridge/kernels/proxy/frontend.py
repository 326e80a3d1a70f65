"""The way to the front ends: signing, routing, sending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from colab_bridge.kernels.proxy.local_messages import LocalMessages
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.kernels.proxy.sockets import KernelSockets
from colab_bridge.wire.message import RawMessage
from colab_bridge.wire.zmq_frames import Signer, to_frames

__all__ = ["FrontEnd"]

Identities = Sequence[bytes]


class FrontEnd:
    """Everything that is connected to our sockets.

    Args:
        sockets: Bound.
        signer: Signs with the key of the connection file.
        outbox: Knows who asked what.
        local: Makes our own messages.
    """

    def __init__(self, sockets: KernelSockets, signer: Signer, outbox: Outbox, local: LocalMessages) -> None:
        self._sockets = sockets
        self._signer = signer
        self._outbox = outbox
        self._local = local

    def relay(self, message: RawMessage) -> None:
        """Pass on a message of the kernel; replies that none of our front ends asked for are dropped.

        Raises:
            MessageError: its header is unreadable.
        """
        if message.channel == "iopub":
            self.publish(message)
            return
        asker = self._outbox.asker(message)
        if asker:  # an empty one has been answered already
            self._send(asker, message)

    def publish(self, message: RawMessage) -> None:
        """Send a message for iopub to all that are subscribed."""
        self._send([message.msg_type.encode("utf-8")], message)

    def welcome(self, subscription: bytes) -> None:
        """Greet a new subscriber; its topic must be the subscription, else it would not get it."""
        self._send([subscription], self._local.welcome(subscription))

    def answer(self, request: RawMessage, identities: Identities, content: Mapping[str, Any]) -> None:
        """Answer a request ourselves, ``busy`` and ``idle`` around it; a failed execution also gets its ``error``."""
        self.publish(self._local.status(request, "busy"))
        if request.msg_type == "execute_request" and content.get("status") == "error":
            self.publish(self._local.error(request, content))
        self._send(identities, self._local.reply(request, content))
        self.publish(self._local.status(request, "idle"))

    def farewell(self, request: RawMessage, identities: Identities, *, restart: bool) -> None:
        """Answer a ``shutdown_request``, to whoever sent it and to all that are subscribed."""
        content = {"status": "ok", "restart": restart}
        self.answer(request, identities, content)
        # A message of its own: clients refuse a signature that they have seen before.
        self.publish(self._local.build("iopub", "shutdown_reply", content, request.header_fields()))

    def ask(self, request: RawMessage, identities: Identities, prompt: str) -> None:
        """Ask whoever sent a request for a line of text."""
        self._send(identities, self._local.question(request.header_fields(), prompt))

    def tell(self, parent: Mapping[str, Any], text: str) -> None:
        """Show a line of ours below the cell whose request header is given."""
        self.publish(self._local.stderr(parent, f"[colab-bridge] {text}\n"))

    def _send(self, identities: Identities, message: RawMessage) -> None:
        self._sockets.send(message.channel, to_frames(identities, message, self._signer))
