"""The link to an agent through the doorman kernel of a real Jupyter server, on good lines and on bad ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import psutil
import pytest

from agent_rig import PATIENCE_S, doorman_dialer, kill, running, until_gone
from colab_bridge.kernels.agent_errors import AgentError, AgentHeldError
from colab_bridge.kernels.agent_socket import Mode
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.ports.upstream import LinkState
from colab_bridge.testing.jupyter import JupyterChild, start_jupyter_server
from colab_bridge.testing.relay import TcpRelay

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_agents_left")]

MIB = 1024 * 1024


async def kernel_ids(server: JupyterChild) -> set[str]:
    rest = JupyterServer(server.endpoint())
    try:
        return {kernel.id for kernel in await rest.list_kernels()}
    finally:
        await rest.aclose()


async def pid_of_kernel(server: JupyterChild, kernel_id: str) -> int:
    for child in psutil.Process(server.pid).children(recursive=True):
        if any(kernel_id in argument for argument in child.cmdline()):
            return child.pid
    raise AssertionError("the kernel has no process")


@pytest.mark.parametrize("mode", ["tunnel", "control"])
async def test_a_server_gives_calls_and_50_mb_down_a_stream(server: JupyterChild, tmp_path: Path, mode: Mode) -> None:
    dialer = doorman_dialer(server, tmp_path, mode=mode)
    async with running(dialer) as rig:
        status = await rig.link.ready(PATIENCE_S)
        assert (status.state, status.mode, status.text) == (LinkState.CONNECTED, mode, "")
        assert {"agent", "echo"} <= set(status.info["services"])

        result, payload = await rig.link.call("echo.echo", {"x": "ü"}, b"\0\xff" * 500_000)
        assert (result, len(payload)) == ({"x": "ü"}, 1_000_000)

        receiver = rig.source(50 * MIB)
        await receiver.until_ended()
        assert receiver.size_bytes == 50 * MIB
        assert receiver.numbers == list(range(1, 201))
        await rig.link.call("agent.stop")
        await dialer.aclose()
    assert dialer.kernel_id not in await kernel_ids(server)


async def test_resets_and_truncations_lose_nothing_in_either_direction(
    server: JupyterChild, relay: TcpRelay, tmp_path: Path
) -> None:
    async with running(doorman_dialer(server, tmp_path, relay=relay)) as rig:
        await rig.until_connected()
        down = rig.source(24 * MIB)
        mirror = rig.mirror()
        assert mirror.stream is not None
        for number in range(300):
            while not mirror.stream.can_send(50_000):
                await anyio.sleep(0.01)
            mirror.stream.send({"n": number}, b"%06d" % number + bytes(20_000))
            if number == 60:
                relay.reset()
            if number in (120, 180):
                relay.truncate_after(100_000)
            if number == 240:
                relay.close()
            await anyio.sleep(0)
        await mirror.until_bytes(300 * 20_006)
        await down.until_ended()
        assert [payload[:6] for payload in mirror.payloads] == [b"%06d" % number for number in range(300)]
        assert down.numbers == list(range(1, 97))
        assert relay.connections > 2


async def test_a_black_hole_is_noticed_and_what_was_sent_into_it_arrives(
    server: JupyterChild, relay: TcpRelay, tmp_path: Path
) -> None:
    async with running(doorman_dialer(server, tmp_path, relay=relay)) as rig:
        await rig.until_connected()
        relay.blackhole(refuse_new=True)
        call = asyncio.create_task(rig.link.call("echo.echo", {"sent": "into the hole"}, deadline_s=PATIENCE_S))
        status = await rig.until(lambda status: status.state is LinkState.RECONNECTING)
        assert "nothing was heard" in status.text
        relay.restore()
        assert (await call)[0] == {"sent": "into the hole"}


async def test_a_killed_doorman_kernel_costs_neither_the_agent_nor_a_stream(
    server: JupyterChild, tmp_path: Path
) -> None:
    dialer = doorman_dialer(server, tmp_path)
    async with running(dialer) as rig:
        await rig.until_connected()
        agent = await rig.pid()
        receiver = rig.source(20 * MIB, consume=False)
        await receiver.until_bytes(MIB)
        kill(await pid_of_kernel(server, dialer.kernel_id))
        await rig.until(lambda status: status.state is LinkState.RECONNECTING)
        await rig.until_connected()
        assert await rig.pid() == agent
        assert receiver.end is None and receiver.unacknowledged is None
        result, _payload = await rig.link.call("echo.echo", {"still": True})
        assert result == {"still": True}


async def test_a_deleted_doorman_kernel_is_replaced_by_one_other(server: JupyterChild, tmp_path: Path) -> None:
    dialer = doorman_dialer(server, tmp_path)
    async with running(dialer) as rig:
        await rig.until_connected()
        agent, first = await rig.pid(), dialer.kernel_id
        before = await kernel_ids(server)
        rest = JupyterServer(server.endpoint())
        await rest.delete_kernel(first)
        await rest.aclose()
        await rig.until(lambda status: status.state is LinkState.RECONNECTING)
        await rig.until_connected()
        assert await rig.pid() == agent
        assert await kernel_ids(server) == before - {first} | {dialer.kernel_id}


async def test_a_killed_agent_is_started_again_and_streams_say_what_was_not_consumed(
    server: JupyterChild, tmp_path: Path
) -> None:
    async with running(doorman_dialer(server, tmp_path)) as rig:
        await rig.until_connected()
        agent = await rig.pid()
        receiver = rig.mirror()
        assert receiver.stream is not None
        receiver.stream.send({"n": 1}, b"first")
        await receiver.until_bytes(5)
        # What the agent says about its consumption comes a little later than its answer, but before this one.
        await rig.link.call("echo.sleep", {"seconds": 0.1})
        kill(agent)
        await until_gone(agent)
        receiver.stream.send({"n": 2}, b"second")
        await receiver.until_ended()
        assert [piece.payload for piece in receiver.unacknowledged or []] == [b"second"]
        await rig.until_connected()
        assert await rig.pid() != agent


async def test_a_second_daemon_is_told_who_holds_the_agent_and_may_take_it(
    server: JupyterChild, tmp_path: Path
) -> None:
    async with running(doorman_dialer(server, tmp_path)) as first:
        await first.until_connected()
        agent = await first.pid()
        async with running(doorman_dialer(server, tmp_path, owner="daemon-2"), "daemon-2") as second:
            status = await second.link.ready(PATIENCE_S)
            assert status.held_by == "daemon-1@test"
            assert isinstance(second.link.error, AgentHeldError)
            with pytest.raises(AgentError) as refused:
                await second.link.call("echo.echo")
            assert refused.value.code_name == "held"
            assert "daemon-1@test" in refused.value.message

            second.link.take_over()
            await second.until_connected()
            assert await second.pid() == agent
            status = await first.until(lambda status: status.held_by == "daemon-2@test")
            assert status.state is LinkState.RECONNECTING


async def test_a_daemon_that_was_started_anew_finds_its_doorman_and_leaves_none_behind(
    server: JupyterChild, tmp_path: Path
) -> None:
    dialer = doorman_dialer(server, tmp_path)
    async with running(dialer) as rig:
        await rig.until_connected()
        agent = await rig.pid()
    again = doorman_dialer(server, tmp_path)
    async with running(again) as rig:
        await rig.until_connected()
        assert (await rig.pid(), again.kernel_id) == (agent, dialer.kernel_id)
    # Its own memory lost, only the agent's folder knows the kernel.
    (tmp_path / "doorman-daemon-1.json").unlink()
    forgetful = doorman_dialer(server, tmp_path)
    async with running(forgetful) as rig:
        await rig.until_connected()
        assert await rig.pid() == agent
        ids = await kernel_ids(server)
        assert forgetful.kernel_id in ids
        assert dialer.kernel_id not in ids


async def test_a_server_that_swallows_our_messages_has_no_agent_and_says_so(tmp_path: Path) -> None:
    allowed = ["execute_request", "kernel_info_request"]
    traits = {"MappingKernelManager__allowed_message_types": allowed}
    async with (
        start_jupyter_server(tmp_path, **traits) as strict,
        running(doorman_dialer(strict, tmp_path)) as rig,
    ):
        status = await rig.link.ready(PATIENCE_S)
        assert (status.mode, status.state) == ("none", LinkState.GONE)
        assert status.text == "the server does not let the agent's messages through"
        with pytest.raises(AgentError) as refused:
            await rig.link.call("echo.echo")
        assert refused.value.code_name == "none"
