"""A client that does everything as the protocol wants it, written from the protocol text alone."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from colab_bridge.testing.colab import ColabEmulator
from colab_bridge.testing.colab.vm.contracts import Gpu, MachineSpec
from colab_bridge.testing.colab.vm.link import Link

XSSI = ")]}'\n"
TIMEOUT_S = 10.0


class NamedMachine:
    """Has an address and nothing behind it."""

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.alive = True
        self.ends: list[str] = []

    @property
    def link(self) -> Link:
        raise NotImplementedError

    def url(self, port: int = 8080) -> str:
        return f"http://127.0.0.1:9/{port}-{self.spec.endpoint}"

    def set_gpus(self, gpus: tuple[Gpu, ...]) -> None:
        self.spec = MachineSpec(endpoint=self.spec.endpoint, folder=self.spec.folder, gpus=gpus)

    def kill(self) -> None:
        self.alive = False
        self.ends.append("kill")

    async def release(self) -> None:
        self.alive = False
        self.ends.append("release")

    async def stop(self) -> None:
        self.alive = False
        self.ends.append("stop")


async def start_named(spec: MachineSpec, _hooks: Any) -> NamedMachine:
    return NamedMachine(spec)


def nbh_of(notebook: str | uuid.UUID) -> str:
    return str(notebook).replace("-", "_").ljust(44, ".")


class Caller:
    """Calls every service; ``headers`` are those of all calls."""

    def __init__(self, colab: ColabEmulator, http: httpx2.AsyncClient, token: str) -> None:
        self.colab = colab
        self.http = http
        self.headers = {
            "Authorization": f"Bearer {token}",
            "X-Colab-Client-Agent": "test",
            "Accept": "application/json",
        }

    def url(self, service: str, path: str) -> str:
        return self.colab.urls[f"COLAB_BRIDGE_{service.upper()}_URL"] + path

    async def call(
        self, method: str, service: str, path: str, *, headers: dict[str, str | None] | None = None, **more: Any
    ) -> httpx2.Response:
        """Call a service; a header that is None is left out."""
        merged = {k: v for k, v in {**self.headers, **(headers or {})}.items() if v is not None}
        return await self.http.request(method, self.url(service, path), headers=merged, **more)

    async def tun(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        xsrf: str | None = None,
        headers: dict[str, str | None] | None = None,
    ) -> httpx2.Response:
        """Call the session backend, with ``authuser``."""
        more = {"X-Goog-Colab-Token": xsrf, **(headers or {})}
        return await self.call(method, "colab", path, params={"authuser": "0", **(query or {})}, headers=more)

    async def assign(self, nbh: str = "", **query: str) -> httpx2.Response:
        """GET, then POST with its token."""
        query = {"nbh": nbh or nbh_of(uuid.uuid4()), **query}
        first = await self.tun("GET", "/tun/m/assign", query)
        assert first.status_code == 200, first.text
        return await self.tun("POST", "/tun/m/assign", query, xsrf=decoded(first)["token"])

    async def endpoint(self, **query: str) -> str:
        """Assign, and return the endpoint."""
        answer = await self.assign(**query)
        assert answer.status_code == 200, answer.text
        return str(decoded(answer)["endpoint"])

    async def endpoints(self) -> list[str]:
        answer = await self.tun("GET", "/tun/m/assignments")
        return [entry["endpoint"] for entry in decoded(answer)["assignments"]]

    async def unassign(self, endpoint: str) -> httpx2.Response:
        path = f"/tun/m/unassign/{endpoint}"
        token = decoded(await self.tun("GET", path))["token"]
        return await self.tun("POST", path, xsrf=token)

    async def keep_alive(self, endpoint: str, **headers: str | None) -> httpx2.Response:
        return await self.tun("GET", f"/tun/m/{endpoint}/keep-alive/", headers={"X-Colab-Tunnel": "Google", **headers})


@contextlib.asynccontextmanager
async def open_caller(colab: ColabEmulator, token: str = "") -> AsyncIterator[Caller]:
    async with httpx2.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as http:
        yield Caller(colab, http, token or colab.access_token)


def decoded(answer: httpx2.Response) -> Any:
    """Return the JSON of the session backend, which must have its prefix."""
    assert answer.text.startswith(XSSI), answer.text[:100]
    return json.loads(answer.text.removeprefix(XSSI))
