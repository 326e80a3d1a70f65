"""What the control side of the emulator gives to its machines, and what it says about tokens. Pure."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["CheckToken", "CredentialsFor", "DataFault", "DataFaults", "Gpu", "MachineSpec", "TokenVerdict", "Unassign"]

Kind = Literal["cpu", "gpu", "tpu"]


class TokenVerdict(enum.Enum):
    """What a runtime proxy token is worth for one machine and one port."""

    VALID = "valid"
    EXPIRED = "expired"
    WRONG = "wrong"
    """Bad signature, another machine or another port."""
    UNASSIGNED = "unassigned"
    """The machine is not (or no longer) assigned, whatever the token says."""


#: ``check_token(endpoint, port, token)``; called for every request and every WebSocket upgrade.
CheckToken = Callable[[str, int, str], TokenVerdict]
#: ``credentials(endpoint, authtype)``: what the machine's own metadata server hands out for ``dfs_ephemeral`` or
#: ``auth_user_ephemeral``: an access token once the control side has propagated credentials, None before.
CredentialsFor = Callable[[str, str], str | None]
#: ``unassign(endpoint)``: code on the machine asks for its own release.
Unassign = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFault:
    """One fault of the data plane.

    Attributes:
        delay_s: Seconds to wait before anything else.
        hang: Take the request and never answer.
        status: Answer with this HTTP status and ``body`` instead of forwarding; 0 forwards.
        body: Body of that answer.
        headers: Headers of that answer.
        cut_after_bytes: Reset the connection after so many bytes of the answer (0: before the first one); None never.
            On a WebSocket the bytes are those of frames from the machine, so that a frame ends in its middle.
    """

    delay_s: float = 0.0
    hang: bool = False
    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    cut_after_bytes: int | None = None


class DataFaults(Protocol):
    """The switchboard, as far as the data plane needs it."""

    def match(
        self,
        plane: str,
        method: str,
        path: str,
        *,
        endpoint: str = "",
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> DataFault | None:
        """Return the fault for this request and count it as used; None when there is none.

        Args:
            plane: ``data`` here.
            method: HTTP method, or ``WS`` for a WebSocket upgrade.
            path: Path without the query.
            endpoint: Which machine.
            query: Its query parameters, for the record.
            headers: Its headers, for the record.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A card as ``nvidia-smi`` and the resources page show it.

    Attributes:
        name: Product name, such as ``Tesla T4``.
        memory_total_bytes: Memory of the card.
        memory_used_bytes: Memory in use.
        utilisation: 0 to 1.
        ever_used: Whether anything has run on it yet.
    """

    name: str
    memory_total_bytes: int
    memory_used_bytes: int = 0
    utilisation: float = 0.0
    ever_used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A machine to be started.

    Attributes:
        endpoint: Its id, such as ``gpu-t4-s-kkb-usw1b1-36jsit0sm8axr``; also its hostname file's content.
        accelerator: Google's name in upper case; empty or ``NONE`` for none.
        kind: ``cpu``, ``gpu`` or ``tpu``.
        high_memory: Whether it has the larger memory shape.
        version: Runtime version label, such as ``2026.01``; empty means latest.
        folder: Existing folder that belongs to this machine alone: its disk lies below it and is removed at the end.
        python: Interpreter with ``jupyter_server`` and ``ipykernel``; ours when empty.
        gpus: The cards that are really there, whatever was asked for; None means those of ``accelerator``.
        drive_folder: Folder that stands for *My Drive*; None makes an empty one.
        ssh: Whether the machine was made with an SSH server.
        env: More environment variables of its processes.
    """

    endpoint: str
    accelerator: str = ""
    kind: Kind = "cpu"
    high_memory: bool = False
    version: str = ""
    folder: Path
    python: str = ""
    gpus: tuple[Gpu, ...] | None = None
    drive_folder: Path | None = None
    ssh: bool = False
    env: Mapping[str, str] = field(default_factory=dict[str, str])
