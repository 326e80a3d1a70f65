"""A slow, narrow or broken link to an emulated machine, and planned faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from colab_bridge.testing.colab.vm.contracts import DataFault
from colab_bridge.testing.colab.vm.machine import Machine
from vm_support import WAIT_S, ControlSide, attached, client, ws

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def restored(vm: Machine) -> AsyncIterator[None]:
    yield
    vm.link.restore()


async def kernel_id(vm: Machine) -> str:
    async with client(vm) as http:
        return str((await http.post("/api/kernels", json={"name": "python3"})).json()["id"])


async def test_latency_is_paid_once_a_round_trip_and_once_more_by_a_new_connection(vm: Machine) -> None:
    vm.link.latency_s = 0.2
    async with client(vm) as http:
        started = time.monotonic()
        await http.get("/api")
        first = time.monotonic()
        await http.get("/api")
        second = time.monotonic()
    assert first - started >= 0.4
    assert second - first >= 0.2


async def test_a_long_way_does_not_make_it_narrow(vm: Machine) -> None:
    async with client(vm) as http:
        await http.put("/api/contents/content/big", json={"type": "file", "format": "text", "content": "x" * 3_000_000})
        vm.link.latency_s = 0.5
        started = time.monotonic()
        assert len((await http.get("/files/content/big")).content) == 3_000_000
        took = time.monotonic() - started
    # 46 pieces of 64 KiB: were each to wait for the one before, they would take more than eleven seconds.
    assert 0.5 <= took < 8


async def test_bandwidth_is_shared_by_all_connections(vm: Machine) -> None:
    async with client(vm) as http:
        await http.put("/api/contents/content/half", json={"type": "file", "format": "text", "content": "x" * 500_000})
        vm.link.bytes_per_s = 1_000_000
        started = time.monotonic()
        await asyncio.gather(http.get("/files/content/half"), http.get("/files/content/half"))
    assert time.monotonic() - started >= 0.95


async def test_a_cut_resets_what_is_open_and_leaves_the_kernel_as_it_was(vm: Machine) -> None:
    kernel = await kernel_id(vm)
    async with attached(vm, kernel) as cells:
        await cells.run("kept = 4711")
        vm.link.cut()
        with pytest.raises(ConnectionClosed):
            await cells.receive()
    async with attached(vm, kernel) as cells:
        assert (await cells.run("print(kept)")).text == "4711\n"


async def test_a_cut_connection_is_no_longer_counted(vm: Machine) -> None:
    kernel = await kernel_id(vm)
    async with attached(vm, kernel) as cells, client(vm) as http:
        await cells.run("1")
        vm.link.cut()
        async with asyncio.timeout(WAIT_S):
            while (await http.get(f"/api/kernels/{kernel}")).json()["connections"]:
                await asyncio.sleep(0.02)  # the server learns of it when its own socket ends
        assert vm.link.connections == 1


async def test_what_a_hanging_link_has_held_back_arrives_when_it_is_restored(vm: Machine) -> None:
    async with client(vm) as http:
        await http.get("/api")
        vm.link.hang()
        asking = asyncio.ensure_future(http.get("/api"))
        fresh = asyncio.ensure_future(client_once(vm))
        assert not (await asyncio.wait([asking, fresh], timeout=0.5))[0]
        vm.link.restore()
        assert (await asking).status_code == 200
        assert (await fresh).status_code == 200


async def client_once(vm: Machine) -> httpx2.Response:
    async with client(vm) as http:
        return await http.get("/api")


async def test_a_link_that_has_forgotten_resets_what_it_held(vm: Machine) -> None:
    async with client(vm) as http:
        await http.get("/api")
        vm.link.hang(forget=True)
        asking = asyncio.ensure_future(http.post("/api/kernels/x/interrupt"))
        assert not (await asyncio.wait([asking], timeout=0.3))[0]
        vm.link.restore()
        with pytest.raises(httpx2.HTTPError):
            await asking
        assert (await http.get("/api")).status_code == 200


async def test_a_link_that_refuses_is_used_again_once_restored(vm: Machine) -> None:
    vm.link.refuse()
    with pytest.raises(httpx2.HTTPError):
        await client_once(vm)
    vm.link.restore()
    assert (await client_once(vm)).status_code == 200


async def test_a_truncated_link_ends_a_frame_in_its_middle(vm: Machine) -> None:
    kernel = await kernel_id(vm)
    async with attached(vm, kernel) as cells:
        await cells.run("1")
        vm.link.truncate_after(300)
        with pytest.raises(ConnectionClosed):
            await cells.run("print('x' * 100_000)")
    async with attached(vm, kernel) as cells:
        assert (await cells.run("print(2)")).text.endswith("2\n")


async def test_a_planned_answer_comes_in_place_of_the_machines(vm: Machine, control: ControlSide) -> None:
    control.faults["/api/kernels"] = DataFault(status=503, body=b"later", headers={"Retry-After": "3"})
    async with client(vm) as http:
        answer = await http.get("/api/kernels")
        assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (503, b"later", "3")
        assert (await http.get("/api/kernels")).status_code == 200
        control.faults["/api/kernels"] = DataFault(status=204, body=b"never sent")
        assert (await http.get("/api/kernels")).content == b""
        assert (await http.get("/api/kernels")).status_code == 200


async def test_a_planned_delay_and_a_planned_cut_happen(vm: Machine, control: ControlSide) -> None:
    control.faults["/api/kernelspecs"] = DataFault(delay_s=0.3)
    control.faults["/api/kernels"] = DataFault(cut_after_bytes=10)
    async with client(vm) as http:
        started = time.monotonic()
        assert (await http.get("/api/kernelspecs")).status_code == 200
        assert time.monotonic() - started >= 0.3
        with pytest.raises(httpx2.HTTPError):
            await http.get("/api/kernels")


async def test_a_planned_hang_lasts_until_the_client_gives_up(vm: Machine, control: ControlSide) -> None:
    control.faults["/api"] = DataFault(hang=True)
    async with client(vm) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.get("/api", timeout=0.3)
        assert (await http.get("/api")).status_code == 200


async def test_a_fault_of_a_websocket_is_planned_by_its_path(vm: Machine, control: ControlSide) -> None:
    path = f"/api/kernels/{await kernel_id(vm)}/channels"
    control.faults[path] = DataFault(cut_after_bytes=400)

    async def read_to_the_end(socket: ClientConnection) -> None:
        while True:
            await socket.recv()

    async with ws(vm, path) as socket:
        await socket.send(
            '{"channel":"shell","header":{"msg_id":"1","msg_type":"kernel_info_request","session":"s"},'
            '"parent_header":{},"metadata":{},"content":{}}'
        )
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(WAIT_S):
                await read_to_the_end(socket)
    assert ("WS", path) in control.seen
