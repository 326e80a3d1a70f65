"""One emulated machine: a real Jupyter server, and a runtime proxy in front of each of its ports."""

from __future__ import annotations

import asyncio
import enum
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self

from colab_bridge.testing.colab.vm import cards
from colab_bridge.testing.colab.vm.backends import JupyterBackend, PortBackend
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
from colab_bridge.testing.colab.vm.metadata import MetadataServer
from colab_bridge.testing.colab.vm.processes import MachineProcesses
from colab_bridge.testing.colab.vm.proxy import ProxyRules, RuntimeProxy
from colab_bridge.testing.colab.vm.proxy_rules import JUPYTER_PORT
from colab_bridge.testing.colab.vm.services import MachineServices
from colab_bridge.testing.colab.vm.ssh import SshService
from colab_bridge.testing.colab.vm.terminal import TerminalService

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

_NVIDIA_SMI = Path(__file__).with_name("guest") / "nvidia_smi.py"
_GPUS_FILE = "gpus.json"


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

    Args:
        spec: What it was made from.
        rules: What all of its proxies share.

    Attributes:
        spec: What it was made from.
        link: The way between clients and the machine: latency, bandwidth, cuts.
    """

    def __init__(self, spec: MachineSpec, rules: ProxyRules) -> None:
        self.spec = spec
        self.link: Link = rules.link
        self._rules = rules
        self._gpus = cards.gpus_of(spec)
        self._proxies: dict[int, RuntimeProxy] = {}
        self._death: Death | None = None
        self._releasing = asyncio.Lock()
        self._processes: MachineProcesses | None = None
        self._jupyter: JupyterBackend | None = None
        self._closers: list[Callable[[], Awaitable[None]]] = []

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
        shared: bool = False,
    ) -> Self:
        """Start a machine; returns once its Jupyter server answers.

        Args:
            spec: What to start.
            check_token: Judge of the tokens that arrive.
            faults: Switchboard that is asked for each request.
            credentials: Source of propagated credentials; None has none.
            unassign: Called when code on the machine asks for its release; None ignores it.
            expired_status: Status for a bad token, 404 or 401.
            shared: True to work in the host's own ``/content``, even where the machine could have one of its own.

        Raises:
            UserError: this system cannot give the machine a ``/content``; the hint says what is missing.
            RuntimeError: the Jupyter server did not start; the text ends with its log.
        """
        rules = ProxyRules(
            endpoint=spec.endpoint, check_token=check_token, faults=faults, expired_status=expired_status
        )
        self = cls(spec, rules)
        try:
            metadata = await MetadataServer.start(spec.endpoint, credentials, unassign)
            self._closers.append(metadata.close)
            env = {**_environment(metadata.address), **cards.accelerator_environment(spec)}
            self._processes = await MachineProcesses.start(spec, env, install=self._install_nvidia_smi, shared=shared)
            await self._open_services(self._processes)
        except BaseException:
            await self.stop()
            raise
        return self

    async def _open_services(self, processes: MachineProcesses) -> None:
        spec = self.spec
        ssh = SshService(offered=spec.ssh, folder=spec.folder, spawn=processes.spawn)
        services = await MachineServices.start(TerminalService(processes.spawn), ssh)
        self._closers.append(services.close)
        pages: dict[str, Callable[[], object]] = {
            "/api/colab/resources": lambda: cards.resources(spec, self._gpus),
            "/api/colab/drive": lambda: {"dfs": []},
            "/api/colab/build-info": lambda: {"release_tag": f"release-colab_{spec.version or 'latest'}"},
        }
        server = processes.server
        self._jupyter = JupyterBackend(server.port, server.token, services.port, pages)

    @property
    def alive(self) -> bool:
        """Whether its processes run."""
        return self._processes is not None and self._death is None and not self._processes.ended

    @property
    def private(self) -> bool:
        """Whether it has a ``/content`` of its own; False where it works in the host's."""
        return self._processes is not None and self._processes.private

    def url(self, port: int = JUPYTER_PORT) -> str:
        """Return the base URL of the runtime proxy for one port of the machine, without a trailing slash.

        The first call for a port opens a listener of its own on loopback; the same port has the same URL ever after.
        """
        if self._death is Death.UNRESOLVABLE:
            return f"http://{port}-{self.spec.endpoint}.invalid"  # RFC 6761 section 6.4: never resolves
        if port not in self._proxies:
            backend = self._jupyter if port == JUPYTER_PORT and self._jupyter is not None else PortBackend(port)
            self._proxies[port] = RuntimeProxy(port, self._rules, backend)
        return f"http://{self._proxies[port].authority}"

    def set_gpus(self, gpus: Sequence[Gpu]) -> None:
        """Change what ``nvidia-smi`` and the resources page show, from now on."""
        self._gpus = tuple(gpus)
        self._write_gpus()

    def kill(self, how: Death = Death.REFUSED) -> None:
        """Let the machine die at once, without a word to anybody."""
        self._death = how
        if how is Death.HANG:
            self.link.hang()
        else:
            for proxy in self._proxies.values():
                proxy.refuse()
            self.link.refuse()
        if self._processes is not None:
            self._processes.kill()

    async def release(self) -> None:
        """End the machine and remove its disk, but let its proxies answer on: they are the service's, not its own."""
        async with self._releasing:
            processes, self._processes = self._processes, None
            if processes is not None:
                await processes.end()
            closers, self._closers = self._closers, []
            for close in reversed(closers):
                await close()

    async def stop(self) -> None:
        """End the machine, if it still runs, and its proxies; nothing is left behind. May be called again."""
        await self.release()
        proxies, self._proxies = self._proxies, {}
        for proxy in proxies.values():
            await proxy.close()

    def _install_nvidia_smi(self) -> None:
        """Put ``nvidia-smi`` on the machine's path if it has a card, as the driver would."""
        if self.spec.kind != "gpu" or sys.platform == "win32":
            return
        self._write_gpus()
        program = self.spec.folder / "bin" / "nvidia-smi"
        source = _NVIDIA_SMI.read_text(encoding="utf-8")
        program.write_text(f"#!{self.spec.python or sys.executable} -IS\n{source}", encoding="utf-8")
        program.chmod(0o755)

    def _write_gpus(self) -> None:
        folder = self.spec.folder / "bin"
        beside = folder / (_GPUS_FILE + ".new")
        beside.write_text(json.dumps(cards.gpus_to_json(self._gpus)), encoding="utf-8")
        os.replace(beside, folder / _GPUS_FILE)


def _environment(metadata_address: str) -> dict[str, str]:
    """Return the variables by which code on such a machine finds the services around it."""
    return {
        "TBE_RUNTIME_ADDR": metadata_address,
        "TBE_EPHEM_CREDS_ADDR": metadata_address,
        "TBE_CREDS_ADDR": metadata_address,
        "USE_AUTH_EPHEM": "1",
    }
