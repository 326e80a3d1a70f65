"""The kernel WebSocket of a local runtime: as jupyter_server's own, but small frames leave at once."""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

__all__ = ["LocalChannels"]


class LocalChannels(ZMQChannelsWebsocketConnection):
    """A connection without Nagle's algorithm, which tornado leaves on: a frame need not wait for an acknowledgement."""

    def connect(self) -> Any:
        """Begin to carry messages."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
