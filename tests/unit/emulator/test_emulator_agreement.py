"""Whatever clients do, all dialects tell the same story, and only what may allocate does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colab_bridge.testing.colab.assembly import ColabEmulator
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.vm.contracts import Gpu, MachineSpec
from colab_bridge.testing.colab.vm.link import Link

XSSI = ")]}'\n"
NOTEBOOKS = ["a" * 44, "b" * 44, "c" * 44]
HARDWARE = [{}, {"variant": "GPU", "accelerator": "T4"}, {"variant": "TPU", "accelerator": "V5E1"}, {"shape": "hm"}]
PUBLIC = [{"variant": "VARIANT_CPU"}, {"variant": "VARIANT_GPU", "accelerator": "L4", "shape": "SHAPE_HIGHMEM"}]
KINDS = {0: "cpu", 1: "gpu", 2: "tpu", "VARIANT_UNSPECIFIED": "cpu", "VARIANT_CPU": "cpu"}
KINDS |= {"VARIANT_GPU": "gpu", "VARIANT_TPU": "tpu"}


class NoMachine:
    """A name where a machine would be."""

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.alive = True

    @property
    def link(self) -> Link:
        raise NotImplementedError

    def url(self, port: int = 8080) -> str:
        return f"http://127.0.0.1:9/{port}/{self.spec.endpoint}"

    def set_gpus(self, gpus: tuple[Gpu, ...]) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        self.alive = False

    async def release(self) -> None:
        self.alive = False

    async def stop(self) -> None:
        self.alive = False


async def no_machine(spec: MachineSpec, _hooks: Any) -> NoMachine:
    return NoMachine(spec)


class InMemory:
    """All services of an emulator, called without sockets."""

    def __init__(self, folder: Path) -> None:
        self.colab = ColabEmulator(EmulatorOptions(paid_units=1e6), folder, no_machine)
        self._applications, _ = self.colab._applications()

    async def call(self, method: str, service: str, path: str, **more: Any) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=self._applications[service])  # type: ignore[arg-type]  # uvicorn's own types
        headers = {
            "Authorization": f"Bearer {self.colab.access_token}",
            "X-Colab-Client-Agent": "t",
            "Accept": "application/json",
            **more.pop("headers", {}),
        }
        async with httpx2.AsyncClient(transport=transport, base_url="http://emulator") as http:
            return await http.request(method, path, headers=headers, **more)

    async def tun(self, method: str, path: str, xsrf: str = "", **query: str) -> Any:
        headers = {"X-Goog-Colab-Token": xsrf} if xsrf else {}
        answer = await self.call(method, "colab", path, params={**query, "authuser": "0"}, headers=headers)
        return json.loads(answer.text.removeprefix(XSSI)) if answer.text.startswith(XSSI) else None

    # -- what clients do

    async def look(self, notebook: int, hardware: int) -> None:
        before = set(self.colab.state.runtimes)
        await self.tun("GET", "/tun/m/assign", nbh=NOTEBOOKS[notebook], **HARDWARE[hardware])
        assert set(self.colab.state.runtimes) <= before

    async def assign(self, notebook: int, hardware: int) -> None:
        query = {"nbh": NOTEBOOKS[notebook], **HARDWARE[hardware]}
        found = await self.tun("GET", "/tun/m/assign", **query)
        made = found if "endpoint" in found else await self.tun("POST", "/tun/m/assign", found["token"], **query)
        if made is not None and "endpoint" in made:
            again = await self.tun("GET", "/tun/m/assign", nbh=NOTEBOOKS[notebook])
            assert again["endpoint"] == made["endpoint"]
            assert again["runtimeProxyInfo"]["token"] != made["runtimeProxyInfo"]["token"]

    async def create(self, notebook: int, hardware: int) -> None:
        body = {"runtimeSpec": PUBLIC[hardware % 2]}
        operation = (await self.call("POST", "public_api", "/v1beta/runtimes", json=body)).json()
        path = f"/v1/{operation['name']}:wait"
        ended = (await self.call("GET", "public_api", path, params={"timeout": "60s"})).json()
        assert ended["done"]

    async def unassign(self, notebook: int, hardware: int) -> None:
        endpoint = self._some(notebook)
        token = await self.tun("GET", f"/tun/m/unassign/{endpoint}")
        if token is not None:
            await self.tun("POST", f"/tun/m/unassign/{endpoint}", token["token"])
            assert endpoint not in self.colab.state.runtimes

    async def delete(self, notebook: int, hardware: int) -> None:
        runtimes = list(self.colab.state.runtimes.values())
        if runtimes:
            await self.call("DELETE", "public_api", f"/v1beta/runtimes/{runtimes[notebook % len(runtimes)].id}")

    async def ping(self, notebook: int, hardware: int) -> None:
        path = f"/tun/m/{self._some(notebook)}/keep-alive/"
        await self.call("GET", "colab", path, params={"authuser": "0"}, headers={"X-Colab-Tunnel": "Google"})

    async def wait(self, notebook: int, hardware: int) -> None:
        self.colab.clock.advance(1800.0 * (notebook + 1))

    def _some(self, number: int) -> str:
        endpoints = [*self.colab.state.runtimes, *self.colab.state.ended, "never-there"]
        return endpoints[number % len(endpoints)]

    # -- what must hold after each of it

    async def agree(self) -> None:
        tunnel = (await self.tun("GET", "/tun/m/assignments"))["assignments"]
        internal = (await self.call("GET", "gapi", "/v1/assignments")).json().get("assignments", [])
        public = (await self.call("GET", "public_api", "/v1beta/runtimes")).json().get("runtimes", [])
        units = await self.tun("GET", "/tun/m/ccu-info")
        query = {"get_ccu_consumption_info": "true"}
        user = (await self.call("GET", "gapi", "/v1/user-info", params=query)).json()

        told = [(a["endpoint"], KINDS[a["variant"]], a["accelerator"], a["machineShape"] == 1) for a in tunnel]
        inside = [
            (a["endpoint"], KINDS[a["variant"]], a["accelerator"], a["machineShape"] == "SHAPE_HIGH_MEM")
            for a in internal
        ]
        outside = [
            (
                r["connectionInfo"]["endpoint"],
                KINDS[r["runtimeSpec"]["variant"]],
                r["runtimeSpec"]["accelerator"],
                r["runtimeSpec"]["shape"] == "SHAPE_HIGHMEM",
            )
            for r in public
        ]
        assert told == inside == outside
        notebooks = [a["notebookIdHash"] for a in internal if "notebookIdHash" in a]
        assert len(notebooks) == len(set(notebooks))
        counts = {units["assignmentsCount"], user["assignmentsCount"], len(told)}
        assert counts == {len(told)}
        assert len(told) <= 4
        rate = units["consumptionRateHourly"]
        assert rate == user["consumptionRateHourly"]
        assert (rate == 0) is (told == [])
        tokens = [a["runtimeProxyInfo"]["token"] for a in tunnel + internal]
        assert len(tokens) == len(set(tokens))
        alive = {endpoint for endpoint, *_ in told}
        assert not alive & set(self.colab.state.ended)


ACTIONS = ["look", "assign", "create", "unassign", "delete", "ping", "wait"]
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, len(NOTEBOOKS) - 1), st.integers(0, len(HARDWARE) - 1)),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_all_dialects_tell_one_story_after_every_step(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    async def play() -> None:
        services = InMemory(tmp_path_factory.mktemp("emulator"))
        for name, notebook, hardware in steps:
            action: Callable[[int, int], Awaitable[None]] = getattr(services, name)
            await action(notebook, hardware)
            await services.agree()
        missing_ids = [found.what for found in services.colab.violations]
        assert set(missing_ids) <= {"no requestId"}

    anyio.run(play)
