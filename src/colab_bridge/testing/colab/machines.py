"""What the control side needs of a machine, so that tests of the control side can do without real ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from colab_bridge.testing.colab.vm.contracts import (
    CheckToken,
    CredentialsFor,
    DataFaults,
    Gpu,
    MachineSpec,
    Unassign,
)
from colab_bridge.testing.colab.vm.link import Link

__all__ = ["MachineHooks", "RunningMachine", "StartMachine"]


class RunningMachine(Protocol):
    """A machine; see :class:`colab_bridge.testing.colab.vm.machine.Machine`."""

    @property
    def alive(self) -> bool:
        """Whether its processes run."""
        ...

    @property
    def link(self) -> Link:
        """The way between clients and the machine."""
        ...

    def url(self, port: int = 8080) -> str:
        """Return the base URL of the runtime proxy for one port."""
        ...

    def set_gpus(self, gpus: tuple[Gpu, ...]) -> None:
        """Change which cards the machine really has."""
        ...

    def kill(self) -> None:
        """Let the machine die at once."""
        ...

    async def release(self) -> None:
        """End the machine; its proxies answer on."""
        ...

    async def stop(self) -> None:
        """End the machine and its proxies."""
        ...


class MachineHooks(DataFaults, Protocol):
    """What machines ask the control side."""

    @property
    def check_token(self) -> CheckToken:
        """Judge of the tokens that arrive."""
        ...

    @property
    def credentials(self) -> CredentialsFor:
        """Source of propagated credentials."""
        ...

    @property
    def unassign(self) -> Unassign:
        """Called when code on the machine asks for its release."""
        ...


#: Starts a machine; the real one by default.
StartMachine = Callable[[MachineSpec, MachineHooks], Awaitable[RunningMachine]]
