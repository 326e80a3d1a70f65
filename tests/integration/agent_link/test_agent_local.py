"""The agent process on this machine, reached over its own socket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from agent_rig import PATIENCE_S, is_running, kill, local_dialer, running, until_gone
from agent_versions import another_version
from colab_bridge.kernels.agent_bundle import load_bundle
from colab_bridge.kernels.agent_local import LocalDialer
from colab_bridge.ports.upstream import LinkState

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_agents_left")]

MIB = 1024 * 1024


def agent_folder(tmp_path: Path) -> Path:
    return tmp_path / "runtime" / "colab-bridge" / "agents" / "ws-1"


async def start_by_hand(tmp_path: Path, **more: object) -> dict[str, object]:
    bundle = load_bundle()
    path = tmp_path / bundle.file_name
    path.write_bytes(bundle.data)
    request = {"workspace": "ws-1", "hash": bundle.content_hash, "bases": [str(tmp_path / "runtime")], **more}
    done = await anyio.run_process(
        [sys.executable, "-I", "-S", "-B", str(path), "start"], input=json.dumps(request).encode(), stderr=None
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


async def test_the_agent_is_nobodys_child_and_open_to_nobody_else(tmp_path: Path) -> None:
    async with running(local_dialer(tmp_path)) as rig:
        await rig.until_connected()
        pid = await rig.pid()
        process = psutil.Process(pid)
        assert process.ppid() != os.getpid()
        assert pid not in {child.pid for child in psutil.Process().children(recursive=True)}
        assert os.getsid(pid) == pid
        assert str(agent_folder(tmp_path)) in process.cmdline()
        for path in [agent_folder(tmp_path), *agent_folder(tmp_path).iterdir()]:
            assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path
        receiver = rig.source(20 * MIB)
        await receiver.until_ended()
        assert receiver.size_bytes == 20 * MIB
    # A link that has ended in an orderly way leaves the agent running, and its place to the next one.
    assert is_running(pid)
    async with running(local_dialer(tmp_path, "daemon-2"), "daemon-2") as other:
        status = await other.link.ready(PATIENCE_S)
        assert (status.state, status.held_by) == (LinkState.CONNECTED, "")
        assert await other.pid() == pid
        await other.link.call("agent.stop")
        await until_gone(pid)


async def test_where_no_unix_socket_can_be_it_is_tcp_with_a_token(tmp_path: Path) -> None:
    far = tmp_path / ("long" * 30)
    async with running(local_dialer(tmp_path, bases=[far])) as rig:
        await rig.until_connected()
        assert (await rig.link.call("echo.echo", {}, b"x"))[1] == b"x"
        address = json.loads((Path(rig.link.status.info["folder"]) / "agent.json").read_text())["address"]
        assert address["kind"] == "tcp"
        for said in (b"", b"0" * 64 + b"\n", b'{"v": 1, "probe": true}\n' * 5):
            reader, writer = await asyncio.open_connection("127.0.0.1", address["port"])
            writer.write(said + b'{"v": 1, "probe": true}\n' * 3)
            with anyio.fail_after(PATIENCE_S):
                assert await _read_all(reader) == b""
            writer.close()
        assert (await rig.link.call("echo.echo", {}, b"y"))[1] == b"y"


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_another_version_replaces_the_agent_and_keeps_its_files(tmp_path: Path) -> None:
    async with running(local_dialer(tmp_path)) as rig:
        await rig.until_connected()
        old = await rig.pid()
        (agent_folder(tmp_path) / "echo" / "store").write_text("kept")
    newer = another_version()
    dialer = LocalDialer(sys.executable, tmp_path / "bundles", [tmp_path / "runtime"], "ws-1", "daemon-1", bundle=newer)
    async with running(dialer) as rig:
        await rig.until_connected()
        assert rig.link.status.info["agent"] == newer.content_hash
        assert await rig.pid() != old
        await until_gone(old)
        assert (agent_folder(tmp_path) / "echo" / "store").read_text() == "kept"


async def test_many_starts_at_once_give_one_agent(tmp_path: Path) -> None:
    answers = await asyncio.gather(*(start_by_hand(tmp_path) for _ in range(4)))
    assert all(answer["ok"] for answer in answers)
    assert len({answer["pid"] for answer in answers}) == 1


async def test_an_agent_that_does_not_answer_is_ended_and_replaced(tmp_path: Path) -> None:
    first = await start_by_hand(tmp_path)
    pid = first["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    second = await start_by_hand(tmp_path)
    assert second["ok"]
    assert second["pid"] != pid
    await until_gone(pid)


async def test_a_home_that_cannot_be_written_is_told_and_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"a file, where a folder should be made")
    async with running(local_dialer(tmp_path, bases=[tmp_path / "home", tmp_path / "cache"])) as rig:
        await rig.until_connected()
        assert rig.link.status.text.startswith(f"the agent keeps its files in {tmp_path / 'cache'}")
        assert (await rig.link.call("echo.echo"))[0] == {}


async def test_no_place_at_all_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"")
    async with running(local_dialer(tmp_path, bases=[tmp_path / "home"])) as rig:
        status = await rig.link.ready(PATIENCE_S)
        assert (status.mode, status.state) == ("none", LinkState.GONE)
        assert status.text.startswith("no folder on the runtime can be written to")


async def test_an_agent_that_nobody_needs_ends_and_one_that_is_used_does_not(tmp_path: Path) -> None:
    async with running(local_dialer(tmp_path, idle_s=0.8)) as rig:
        await rig.until_connected()
        pid = await rig.pid()
        await rig.link.call("echo.sleep", {"seconds": 2.0})
        assert is_running(pid)
    await until_gone(pid)


async def test_an_agent_whose_folder_was_removed_ends(tmp_path: Path) -> None:
    answer = await start_by_hand(tmp_path, idle_s=8.0)
    pid = answer["pid"]
    assert isinstance(pid, int)
    shutil.rmtree(agent_folder(tmp_path))
    await until_gone(pid)


async def test_an_agent_with_too_much_memory_ends_and_the_next_one_is_found(tmp_path: Path) -> None:
    async with running(local_dialer(tmp_path, rss_bytes=MIB, idle_s=4.0)) as rig:
        await rig.until_connected()
        first = await rig.pid()
        await until_gone(first)
        await rig.until_connected()
        assert await rig.pid() != first


async def test_a_daemon_that_dies_keeps_the_agent_for_itself_for_a_while(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from colab_bridge.kernels.agent_link import AgentLink\n"
        "from colab_bridge.kernels.agent_local import LocalDialer\n"
        "async def main():\n"
        "    tmp = Path(sys.argv[1])\n"
        "    dialer = LocalDialer(sys.executable, tmp / 'bundles', [tmp / 'runtime'], 'ws-1', 'daemon-1')\n"
        "    link = AgentLink(dialer, 'daemon-1', 'first@test')\n"
        "    task = asyncio.create_task(link.run(lambda status: None))\n"
        "    await link.ready(30)\n"
        "    print('ready', flush=True)\n"
        "    await task\n"
        "asyncio.run(main())\n"
    )
    daemon = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        assert await asyncio.to_thread(daemon.stdout.readline) == b"ready\n"
    finally:
        kill(daemon.pid)
        daemon.wait()
        assert daemon.stdout is not None
        daemon.stdout.close()
    async with running(local_dialer(tmp_path, "daemon-2"), "daemon-2") as other:
        assert (await other.link.ready(PATIENCE_S)).held_by == "first@test"
    async with running(local_dialer(tmp_path)) as again:
        assert (await again.link.ready(PATIENCE_S)).state is LinkState.CONNECTED
