"""Connections to an agent: what a way there must offer."""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["Dialer", "Wire"]


class Wire(Protocol):
    """One connection that carries bytes both ways."""

    async def read(self) -> bytes:
        """Return the next bytes, in any pieces; empty at the end of the connection.

        Raises:
            ColabBridgeError: it broke, and the text says more than that.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when the transport can take more. A connection that has ended swallows them."""
        ...

    async def aclose(self) -> None:
        """End the connection; short."""
        ...


class Dialer(Protocol):
    """Makes connections to one agent, and starts it where it does not run.

    Attributes:
        mode: How the latest connection went.
    """

    mode: Literal["tunnel", "control"]

    async def dial(self) -> Wire:
        """Return a new connection to the agent, on which nothing has been said yet.

        Raises:
            AgentUnavailableError: no agent can be had on this runtime.
            ColabBridgeError: not this time.
        """
        ...

    def start_over(self) -> None:
        """Look whether the agent runs, and start it where it does not, before the next connection."""
        ...

    async def aclose(self) -> None:
        """Give back what the dialer keeps on the server."""
        ...
