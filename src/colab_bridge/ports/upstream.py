"""How kernel messages reach the daemon and leave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from colab_bridge.wire.message import RawMessage

__all__ = ["LinkState", "Upstream", "UpstreamEvents"]


class LinkState(StrEnum):
    """The state of the link to one remote kernel."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    GONE = "gone"  # the server says that the kernel does not exist: final


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamEvents:
    """What an upstream calls, always from the event loop.

    Attributes:
        message: One message from the kernel, in the order of arrival; must not block.
        state: The link changed; the text says why, for people. ``CONNECTED`` is reported once per connection made.
        gap: Output between server and daemon may have been lost; the text says why. Called before the messages that
            follow the gap.
    """

    message: Callable[[RawMessage], None]
    state: Callable[[LinkState, str], None]
    gap: Callable[[str], None]


class Upstream(Protocol):
    """A connection to one remote kernel that repairs itself until it is closed.

    The plain WebSocket implements it now, the agent's tunnel later. ``run`` owns all tasks of the connection.

    Attributes:
        reliable: True when a message handed to :meth:`send` can never be lost by a reconnect. Where it is False, the
            hub
            asks after each reconnect which requests arrived, and sends the others again.
    """

    reliable: bool

    async def run(self, events: UpstreamEvents) -> None:
        """Keep the link up until cancelled or until the kernel is gone."""
        ...

    def send(self, message: RawMessage) -> None:
        """Queue a message for the kernel; it goes out as soon as the link is up, in order.

        Raises:
            UserError: the message is larger than the transport can carry.
        """
        ...

    def reconnect(self) -> None:
        """Make the connection anew, because the kernel was restarted on purpose and is another process now."""
        ...

    def set_busy(self, busy: bool) -> None:
        """Tell the link whether the kernel executes something, which decides about its pings."""
        ...
