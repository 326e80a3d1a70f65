"""A WebSocket of the daemon that can hand over binary messages in the callback that gets their bytes.

What goes through ASGI waits in a queue for a task, and stops and starts the reading from the connection each time:
0.15 ms of a cell's way to its kernel. An endpoint that wants none of this finds :data:`PROMPT` among the extensions of
its scope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["PROMPT", "PromptWebSocket", "deliver_promptly"]

#: Name of the extension; its value takes a function that is given each binary message.
PROMPT: Final = "colab_bridge.prompt"

Take = Callable[[bytes], None]
#: What is used of uvicorn's protocol beyond its interface, seen in 0.54; without it messages are fetched as usual.
_NEEDED: Final = ("close_sent", "curr_msg_data_type", "frames")


class PromptWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol with the extension; without its use everything is as before."""

    _taker: Take | None = None

    async def run_asgi(self) -> None:
        """Run the application, which may ask for its messages to be handed over."""
        extensions: dict[str, Any] | None = self.scope.get("extensions")
        if extensions is not None and all(hasattr(self, name) for name in _NEEDED):
            extensions[PROMPT] = self._deliver
        await super().run_asgi()

    def _deliver(self, take: Take) -> None:
        self._taker = take

    def send_receive_event_to_app(self) -> None:
        """Hand over a whole message, or leave it to the application to fetch it."""
        if self._taker is None or self.curr_msg_data_type == "text" or self.close_sent:
            super().send_receive_event_to_app()
            return
        data, self.frames = b"".join(self.frames), []
        self._taker(data)


def deliver_promptly(socket: WebSocket, take: Take) -> None:
    """Have binary messages handed over, where the server can; where not, they are received like all others.

    Args:
        socket: Not accepted yet, so that no message can have come.
        take: Is given each message on the event loop; must neither block nor raise.
    """
    if (deliver := socket.scope.get("extensions", {}).get(PROMPT)) is not None:
        deliver(take)
