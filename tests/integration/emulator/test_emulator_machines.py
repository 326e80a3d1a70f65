"""Both sides of the emulator together: real machines behind the runtime proxy."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import psutil
import pytest

from colab_bridge.testing.colab import ColabEmulator, EmulatorOptions, emulator
from emulator_caller import Caller, decoded, nbh_of, open_caller

KERNELS = "/api/kernels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A runtime as its client knows it."""

    endpoint: str
    url: str
    token: str
    http: httpx2.AsyncClient

    async def get(self, path: str, token: str = "") -> httpx2.Response:
        headers = {"X-Colab-Runtime-Proxy-Token": token or self.token}
        return await self.http.get(self.url + path, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def colab(anyio_backend: str) -> AsyncIterator[ColabEmulator]:
    """An emulator with real machines; no process of it is left at the end."""
    before = set(psutil.Process().children(recursive=True))
    async with emulator(EmulatorOptions(tier="pro_plus")) as running:
        yield running
    # A process that was killed is there until the system has taken it away.
    left = set(psutil.Process().children(recursive=True)) - before
    assert psutil.wait_procs(left, timeout=10)[1] == []


@contextlib.asynccontextmanager
async def runtime(caller: Caller, **query: str) -> AsyncIterator[Assigned]:
    """Assign a runtime; it is given back at the end."""
    caller.http.timeout = httpx2.Timeout(60)
    made = decoded(await caller.assign(**query))
    proxy = made["runtimeProxyInfo"]
    try:
        yield Assigned(endpoint=made["endpoint"], url=proxy["url"], token=proxy["token"], http=caller.http)
    finally:
        left = caller.colab.state.runtimes.get(made["endpoint"])
        if left is not None:
            await caller.colab.state.end(left, "unassigned")


@pytest.fixture
async def assigned(caller: Caller) -> Assigned:
    """The runtime of one notebook: the same one for many tests, for as long as none of them ends it."""
    caller.http.timeout = httpx2.Timeout(60)
    query = {"nbh": nbh_of("123e4567-e89b-42d3-a456-426614174000"), "variant": "GPU", "accelerator": "A100"}
    found = decoded(await caller.tun("GET", "/tun/m/assign", query))
    if "endpoint" not in found:
        found = decoded(await caller.tun("POST", "/tun/m/assign", query, xsrf=found["token"]))
    await caller.keep_alive(found["endpoint"])
    proxy = found["runtimeProxyInfo"]
    return Assigned(endpoint=found["endpoint"], url=proxy["url"], token=proxy["token"], http=caller.http)


async def control(caller: Caller, path: str, body: dict[str, Any]) -> httpx2.Response:
    return await caller.http.post(caller.colab.control_url + path, json=body)


async def test_a_token_opens_until_it_expires_and_a_new_one_opens_the_same_address(
    colab: ColabEmulator, caller: Caller, assigned: Assigned
) -> None:
    assert (await assigned.get(KERNELS)).json() == []
    await colab.advance(3601)
    refused = await assigned.get(KERNELS)
    assert refused.status_code == 404
    assert "json" not in refused.headers["content-type"]
    everything = decoded(await caller.tun("GET", "/tun/m/assignments"))["assignments"]
    [listed] = [entry for entry in everything if entry["endpoint"] == assigned.endpoint]
    assert listed["runtimeProxyInfo"]["url"] == assigned.url
    assert (await assigned.get(KERNELS, listed["runtimeProxyInfo"]["token"])).json() == []


async def test_the_proxy_knows_when_a_runtime_was_released(colab: ColabEmulator, caller: Caller) -> None:
    async with runtime(caller) as assigned:
        machine = colab.state.runtimes[assigned.endpoint].machine
        await caller.unassign(assigned.endpoint)
        assert not machine.alive
        assert (await assigned.get(KERNELS)).status_code == 404


async def test_each_port_has_an_address_and_a_token_of_its_own(caller: Caller, assigned: Assigned) -> None:
    query = {"endpoint": assigned.endpoint, "port": "7860"}
    other = (await caller.call("GET", "gapi", "/v1/runtime-proxy-token", params=query)).json()
    assert other["url"] != assigned.url
    assert (await assigned.get(KERNELS, other["token"])).status_code == 404


async def test_faults_hit_the_data_plane_and_are_in_the_record(
    colab: ColabEmulator, caller: Caller, assigned: Assigned
) -> None:
    colab.faults.add(kind="status", service="data", path=KERNELS, status=502, body="bad gateway")
    colab.faults.add(kind="close", service="data", path="/api/status")
    refused = await assigned.get(KERNELS)
    assert (refused.status_code, refused.text) == (502, "bad gateway")
    with pytest.raises(httpx2.TransportError):
        await assigned.get("/api/status")
    assert (await assigned.get(KERNELS)).status_code == 200
    seen = [(r.path, r.fault, r.endpoint) for r in colab.requests if r.service == "data"][-3:]
    assert seen == [
        (KERNELS, ("status",), assigned.endpoint),
        ("/api/status", ("close",), assigned.endpoint),
        (KERNELS, (), assigned.endpoint),
    ]


async def test_what_a_client_must_not_send_to_a_machine_is_noted(
    colab: ColabEmulator, caller: Caller, assigned: Assigned
) -> None:
    before = len(colab.violations)
    assert (await caller.http.get(assigned.url + KERNELS)).status_code == 404
    headers = {"X-Colab-Runtime-Proxy-Token": assigned.token, "Authorization": f"Bearer {colab.access_token}"}
    assert (await caller.http.get(assigned.url + KERNELS, headers=headers)).status_code == 200
    noted = [(found.route, found.what) for found in colab.violations[before:]]
    assert noted == [
        (f"GET {KERNELS}", "no runtime proxy token"),
        (f"GET {KERNELS}", "a Google access token for a runtime"),
    ]


@pytest.mark.parametrize(("kind", "why"), [("kill_vm", "killed"), ("prune", "idle")])
async def test_a_machine_is_lost_in_the_middle_of_the_work(
    colab: ColabEmulator, caller: Caller, kind: Any, why: str
) -> None:
    async with runtime(caller) as assigned:
        colab.faults.add(kind=kind, service="data", path=KERNELS)
        with contextlib.suppress(httpx2.TransportError):
            assert (await assigned.get(KERNELS)).status_code >= 400
        assert colab.state.ended[assigned.endpoint] == why
        assert assigned.endpoint not in await caller.endpoints()


async def test_what_is_really_there_may_differ_from_what_was_granted(caller: Caller, assigned: Assigned) -> None:
    told = (await assigned.get("/api/colab/resources")).text.removeprefix(")]}'\n")
    assert "A100" in json.loads(told)["gpus"][0]["name"]
    body = {"gpus": [{"name": "Tesla T4", "memory_total_bytes": 16_106_127_360}]}
    assert (await control(caller, f"/vm/{assigned.endpoint}/gpus", body)).status_code == 200
    told = (await assigned.get("/api/colab/resources")).text.removeprefix(")]}'\n")
    assert json.loads(told)["gpus"][0]["name"] == "Tesla T4"


async def test_the_way_to_a_machine_can_be_made_slow_and_cut(caller: Caller, assigned: Assigned) -> None:
    path = f"/vm/{assigned.endpoint}/link"
    await control(caller, path, {"latency_s": 0.4})
    began = time.monotonic()
    assert (await assigned.get(KERNELS)).status_code == 200
    assert time.monotonic() - began >= 0.4
    await control(caller, path, {"action": "refuse"})
    with pytest.raises(httpx2.TransportError):
        await assigned.get(KERNELS)
    await control(caller, path, {"action": "restore"})
    assert (await assigned.get(KERNELS)).status_code == 200


async def test_two_machines_have_a_content_folder_each(caller: Caller) -> None:
    async with runtime(caller) as one, runtime(caller) as two:
        body = {"type": "file", "format": "text", "content": "one"}
        headers = {"X-Colab-Runtime-Proxy-Token": one.token}
        put = await caller.http.put(f"{one.url}/api/contents/content/only.txt", json=body, headers=headers)
        assert put.status_code == 201
        assert (await one.get("/api/contents/content/only.txt")).json()["content"] == "one"
        assert (await two.get("/api/contents/content/only.txt")).status_code == 404


async def test_traffic_alone_does_not_keep_a_runtime(colab: ColabEmulator, caller: Caller) -> None:
    async with runtime(caller) as assigned:
        await colab.advance(3000)
        assert (await assigned.get(KERNELS)).status_code == 200
        await colab.advance(2400)
        assert colab.state.ended[assigned.endpoint] == "idle"


async def test_a_signed_in_program_elsewhere_uses_the_environment(colab: ColabEmulator) -> None:
    assert set(colab.env()) == {*colab.urls, "COLAB_BRIDGE_ACCESS_TOKEN"}
    async with open_caller(colab, colab.env()["COLAB_BRIDGE_ACCESS_TOKEN"]) as caller:
        assert await caller.endpoints() == list(colab.state.runtimes)
