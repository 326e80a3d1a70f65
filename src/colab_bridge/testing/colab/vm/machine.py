"""One emulated machine: a real Jupyter server, and a runtime proxy in front of each of its ports."""

from __future__ import annotations

import enum
from typing import Self

from colab_bridge.testing.colab.vm.contracts import (
    CheckToken,
    CredentialsFor,
    DataFault,
    DataFaults,
    Gpu,
    MachineSpec,
    TokenVerdict,
    Unassign,
)
from colab_bridge.testing.colab.vm.link import Link

__all__ = [
    "CheckToken",
    "CredentialsFor",
    "DataFault",
    "DataFaults",
    "Death",
    "Gpu",
    "Machine",
    "MachineSpec",
    "TokenVerdict",
    "Unassign",
]


class Death(enum.Enum):
    """How a machine that has died looks from outside."""

    REFUSED = "refused"
    """Connections are refused."""
    HANG = "hang"
    """Connections are taken, and nothing ever comes."""
    UNRESOLVABLE = "unresolvable"
    """Refused, and :meth:`Machine.url` names a host that no resolver knows."""


class Machine:
    """A machine that runs; made by :meth:`start`.

    Attributes:
        spec: What it was made from.
        link: The way between clients and the machine: latency, bandwidth, cuts.
        alive: Whether its processes run.
    """

    spec: MachineSpec
    link: Link
    alive: bool

    @classmethod
    async def start(
        cls,
        spec: MachineSpec,
        *,
        check_token: CheckToken,
        faults: DataFaults,
        credentials: CredentialsFor | None = None,
        unassign: Unassign | None = None,
        expired_status: int = 404,
    ) -> Self:
        """Start a machine; returns once its Jupyter server answers.

        Args:
            spec: What to start.
            check_token: Judge of the tokens that arrive.
            faults: Switchboard that is asked for each request.
            credentials: Source of propagated credentials; None has none.
            unassign: Called when code on the machine asks for its release; None ignores it.
            expired_status: Status for a bad token, 404 or 401.

        Raises:
            UserError: this system cannot give the machine a ``/content`` of its own; the hint says what is missing.
            RuntimeError: the Jupyter server did not start; the text ends with its log.
        """
        raise NotImplementedError

    def url(self, port: int = 8080) -> str:
        """Return the base URL of the runtime proxy for one port of the machine, without a trailing slash.

        The first call for a port opens a listener of its own on loopback; the same port has the same URL ever after.
        """
        raise NotImplementedError

    def set_gpus(self, gpus: tuple[Gpu, ...]) -> None:
        """Change what ``nvidia-smi`` and the resources page show, from now on."""
        raise NotImplementedError

    def kill(self, how: Death = Death.REFUSED) -> None:
        """Let the machine die at once, without a word to anybody."""
        raise NotImplementedError

    async def release(self) -> None:
        """End the machine and remove its disk, but let its proxies answer on: they are the service's, not its own."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End the machine, if it still runs, and its proxies; nothing is left behind. May be called again."""
        raise NotImplementedError
