"""How kernels are reached: what can be set, what a runtime gets, what came of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["KernelTransport", "Transport"]


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
