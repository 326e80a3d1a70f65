"""A provider in front of an emulator whose machines are names only, and what tests ask of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from colab_bridge.config.services import service_urls
from colab_bridge.errors import AuthError
from colab_bridge.model.credentials import COLAB_SCOPES, AccessToken
from colab_bridge.model.runtime import RuntimeHandle, RuntimeRequest, Secret
from colab_bridge.providers.colab.provider import ColabProvider
from colab_bridge.testing.colab import ColabEmulator
from colab_bridge.testing.colab.vm.contracts import Gpu, MachineSpec
from colab_bridge.testing.colab.vm.link import Link

ASSIGN = "/tun/m/assign"


class NamedMachine:
    """A machine without processes; its proxy addresses lead nowhere."""

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.alive = True
        self.link = Link()

    def url(self, port: int = 8080) -> str:
        return f"http://127.0.0.1:9/{self.spec.endpoint}/{port}"

    def set_gpus(self, gpus: tuple[Gpu, ...]) -> None:
        self.gpus = gpus

    def kill(self) -> None:
        self.alive = False

    async def release(self) -> None:
        self.alive = False

    async def stop(self) -> None:
        self.alive = False


async def start_named(spec: MachineSpec, _hooks: Any) -> NamedMachine:
    return NamedMachine(spec)


class Tokens:
    """Gives the emulator's access token, or what a test puts in its place; counts refusals."""

    def __init__(self, colab: ColabEmulator) -> None:
        self._colab = colab
        self.values = [colab.access_token]
        self.refused = 0

    async def token(
        self, *, account: str = "", scopes: frozenset[str] = COLAB_SCOPES, stale: AccessToken | None = None
    ) -> AccessToken:
        del account, scopes
        if stale is not None:
            self.refused += 1
            if len(self.values) == 1:
                raise AuthError("Google has ended this sign-in", hint="colab-bridge auth login")
            self.values.pop(0)
        return AccessToken(value=Secret(self.values[0]), account=self._colab.options.email)


@dataclass
class Scene:
    """An emulator, a provider, and what was said and waited.

    Attributes:
        pauses: Seconds of each pause; the emulator's clock is moved by them instead of waiting.
    """

    colab: ColabEmulator
    folder: Path
    tokens: Tokens
    said: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    on_pause: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.provider = self.another()

    def another(self) -> ColabProvider:
        """Return a provider over the same folder, as a daemon that was started anew has it."""
        return ColabProvider(
            self.folder, self.tokens, service_urls(self.colab.urls), self.colab.clock, pause=self.pause
        )

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.on_pause()
        await self.colab.advance(seconds)
        await anyio.lowlevel.checkpoint()

    async def acquire(self, provider: ColabProvider | None = None, **options: object) -> RuntimeHandle:
        request = RuntimeRequest(session="s", project="/p", options=options, report=self.said.append)
        return await (provider or self.provider).acquire(request)

    def fault(self, kind: str, path: str = ASSIGN, *, method: str = "POST", service: str = "colab", **more: Any) -> str:
        return self.colab.faults.add(kind=kind, service=service, method=method, path=path, **more)

    def asked(self, method: str, path: str) -> int:
        """Return how many requests of a kind the emulator has seen."""
        return sum(1 for each in self.colab.requests if each.method == method and each.path == path)

    @property
    def running(self) -> list[str]:
        return sorted(self.colab.state.runtimes)
