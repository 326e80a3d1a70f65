"""How kernels are reached: what can be set, what a runtime gets, what came of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from colab_bridge.model.records import Session

__all__ = ["KernelTransport", "Transport", "wants_tunnel"]


class Transport(StrEnum):
    """The setting of the same name."""

    AUTO = "auto"
    TUNNEL = "tunnel"
    WEBSOCKET = "websocket"

    @classmethod
    def parse(cls, value: object) -> Transport:
        """Return a stored value; kernels of versions that stored none were reached over the WebSocket."""
        return cls(value) if isinstance(value, str) and value in list(cls) else cls.WEBSOCKET


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTransport:
    """How one kernel is reached now.

    Attributes:
        way: ``tunnel`` or ``websocket``; empty while that is being found out.
        reason: Empty, or why it is not the tunnel that was wanted.
    """

    way: str
    reason: str = ""


def wants_tunnel(wanted: Transport, session: Session) -> bool:
    """Return whether a new kernel of a session is to have a tunnel.

    A plain local runtime gets one only when it is asked for by name: its server has no output limit, the connection to
    it does not break, and a second kernel on the user's own machine would have to be worth it.

    Args:
        wanted: The setting.
        session: The session.
    """
    if wanted is Transport.AUTO:
        return session.provider != "local" or bool(session.options.get("isolated"))
    return wanted is Transport.TUNNEL
