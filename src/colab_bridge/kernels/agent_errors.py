"""What can go wrong between the daemon and the agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colab_bridge.errors import ColabBridgeError, ConflictError

__all__ = ["AgentError", "AgentHeldError", "AgentUnavailableError", "one_line"]


def one_line(value: object, most: int = 300) -> str:
    """Return text from a runtime so that it can be shown: one line, not too long, nothing that moves a cursor."""
    if not isinstance(value, str):
        return ""
    return "".join(char for char in " ".join(value[: 4 * most].split()) if char.isprintable())[:most]


class AgentError(ColabBridgeError):
    """A call to the agent, or a stream, has failed.

    Args:
        code_name: Code of the service, or of the channel: ``deadline``, ``cancelled``, ``reset`` (the agent was started
            anew), ``closed``, ``full`` (too many calls at once), ``held``, ``none`` (no agent possible).
        message: One line for people.
        data: What the service said for programs.
    """

    default_code = "CB-AGENT"
    exit_status = 75
    http_status = 503

    def __init__(self, code_name: str, message: str, *, data: Mapping[str, Any] | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code_name = code_name
        self.data: Mapping[str, Any] = data or {}


class AgentHeldError(ConflictError):
    """Another daemon holds the agent.

    Args:
        holder: Its label, ``user@host``.
        since: When it took the agent, unix seconds.
        heard: When the agent heard it last, unix seconds.
    """

    default_code = "CB-CONFLICT-AGENT"

    def __init__(self, holder: str, since: float, heard: float) -> None:
        super().__init__(
            f"the workspace on the runtime is in use by {holder or 'another daemon'}",
            hint="stop Colab Bridge there, or take the workspace over",
        )
        self.holder = holder
        self.since = since
        self.heard = heard


class AgentUnavailableError(AgentError):
    """No agent can be had on this runtime, now and later; the message says why.

    Args:
        message: One sentence for people.
    """

    def __init__(self, message: str) -> None:
        super().__init__("none", message)
