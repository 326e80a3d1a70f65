"""Sending on a WebSocket from the callback that has the message: no queue, no task, no turn of the event loop."""

from __future__ import annotations

from websockets.asyncio.connection import Connection
from websockets.protocol import State

__all__ = ["send_promptly"]

#: Unsent bytes above which a connection counts as slow; then a task waits for it, with the library's own flow control.
SLOW_BYTES = 64 * 1024
#: A large message is not copied into the same buffer as small ones.
LARGE_BYTES = 1024 * 1024


def send_promptly(connection: Connection, data: str | bytes) -> bool:
    """Hand a whole message to the system, unless the connection is not open or slow.

    Call it only while no ``send`` of the same connection is under way.

    Args:
        connection: Of the library ``websockets``.
        data: A text or a binary message.

    Returns:
        False when nothing was done; then it is to be sent with ``connection.send``.
    """
    if connection.protocol.state is not State.OPEN or len(data) > LARGE_BYTES:
        return False
    if connection.transport.is_closing() or connection.transport.get_write_buffer_size() > SLOW_BYTES:
        return False
    if isinstance(data, str):
        connection.protocol.send_text(data.encode())
    else:
        connection.protocol.send_binary(data)
    connection.send_data()
    return True
