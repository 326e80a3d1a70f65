"""WebSockets of the daemon, for commands that carry bytes both ways."""

from __future__ import annotations

from websockets.sync.client import ClientConnection, connect

from colab_bridge.client.address import Address

__all__ = ["open_socket"]


def open_socket(address: Address, path: str, *, timeout_s: float) -> ClientConnection:
    """Open a WebSocket of the daemon.

    Args:
        address: The daemon.
        path: Path and query.
        timeout_s: Limit for opening it.

    Returns:
        The open connection, a context manager.

    Raises:
        OSError: nobody listens there, or nobody answers in time.
        InvalidHandshake: the daemon refuses.
    """
    return connect(
        f"ws://{address.host}{path}",
        additional_headers={"Authorization": f"Bearer {address.token}"},
        compression=None,
        proxy=None,
        open_timeout=timeout_s,
        close_timeout=1,
    )
