"""The terminal of an emulated machine, and the refusals of its SSH tunnel."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from colab_bridge.testing.colab.vm import ssh, terminal
from colab_bridge.testing.colab.vm.machine import Machine
from vm_support import WAIT_S, machine, token_for, ws, ws_url

pytestmark = pytest.mark.anyio

ED25519 = "ssh-ed25519 " + base64.b64encode(bytes(51)).decode() + " me@here"


async def read_until(socket: ClientConnection, text: str) -> str:
    seen = ""
    async with asyncio.timeout(WAIT_S):
        while text not in seen:
            frame = json.loads(await socket.recv())
            assert list(frame) == ["data"]
            seen += frame["data"]
    return seen


async def type_in(socket: ClientConnection, text: str) -> None:
    await socket.send(json.dumps({"data": text}))


async def wait_closed(socket: ClientConnection) -> None:
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.recv()


@pytest.fixture(params=["tmux", "plain"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With tmux, and as where there is none."""
    if request.param == "plain":
        monkeypatch.setattr(terminal.shutil, "which", lambda name: None)
    elif shutil.which("tmux") is None:
        pytest.skip("tmux is not installed; the plain terminal is tested all the same")
    return str(request.param)


async def test_what_is_typed_runs_on_the_machine_and_its_output_comes_back(vm: Machine, kind: str) -> None:
    async with ws(vm, "/colab/tty") as socket:
        await socket.send(json.dumps({"cols": 120, "rows": 40}))
        await type_in(socket, 'cd /content; echo "it is $(pwd) $((20+3))"\n')
        await read_until(socket, "it is /content 23")


async def test_the_terminal_learns_the_size_of_the_window(vm: Machine, kind: str) -> None:
    async with ws(vm, "/colab/tty") as socket:
        await socket.send(json.dumps({"cols": 101, "rows": 37}))
        await type_in(socket, "clear; sleep 0.3; echo columns=$(tput cols)=\n")
        await read_until(socket, "columns=101=")


async def test_a_second_client_takes_the_terminal_and_finds_the_shell_as_it_was(vm: Machine, kind: str) -> None:
    async with ws(vm, "/colab/tty") as first:
        await type_in(first, "left=over; echo read''y\n")
        await read_until(first, "ready")
        async with ws(vm, "/colab/tty") as second:
            await wait_closed(first)
            await type_in(second, "echo found-$left-\n")
            await read_until(second, "found-over-")


async def test_the_query_carries_the_token_of_a_terminal_too(vm: Machine) -> None:
    token = token_for(vm.spec.endpoint, 8080)
    async with connect(ws_url(vm, f"/colab/tty?colab-runtime-proxy-token={token}"), proxy=None) as socket:
        await type_in(socket, "echo $((40+2))\n")
        await read_until(socket, "42")


async def test_frames_that_mean_nothing_are_ignored(vm: Machine) -> None:
    async with ws(vm, "/colab/tty") as socket:
        for frame in ("no json", "[1]", '{"data": 5}', '{"cols": "x", "rows": 1}', '{"cols": -1, "rows": 99999999}'):
            await socket.send(frame)
        await type_in(socket, "echo $((40+2))\n")
        await read_until(socket, "42")


@pytest.mark.parametrize(
    ("key", "status", "text"),
    [(None, 400, "missing pubkey"), ("ssh-rsa AAAA me", 400, "unsupported key type"), (ED25519, 502, "not reachable")],
)
async def test_the_ssh_tunnel_says_with_status_and_length_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, status: int, text: str
) -> None:
    monkeypatch.setattr(ssh, "_sshd", lambda: None)
    async with machine(tmp_path, ssh=True) as vm:
        with pytest.raises(InvalidStatus) as refused:
            async with ws(vm, "/colab/ssh", headers={"X-Colab-Ssh-Pubkey": key} if key else {}):
                pass
    response = refused.value.response
    assert response.status_code == status
    assert response.body is not None
    assert text in response.body.decode()
    assert int(response.headers["content-length"]) == len(response.body)


async def test_a_machine_made_without_ssh_has_no_tunnel(vm: Machine) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with ws(vm, "/colab/ssh", headers={"X-Colab-Ssh-Pubkey": ED25519}):
            pass
    assert refused.value.response.status_code == 404


async def test_a_bad_token_at_the_tunnel_is_told_from_a_machine_without_ssh(vm: Machine) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with ws(vm, "/colab/ssh", headers={"X-Colab-Runtime-Proxy-Token": "bad", "X-Colab-Ssh-Pubkey": ED25519}):
            pass
    assert refused.value.response.status_code == 401


async def test_the_tunnel_carries_bytes_both_ways_for_one_session_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"X-Colab-Ssh-Pubkey": ED25519}
    async with machine(tmp_path, ssh=True) as vm:
        server = vm.spec.folder / "bin" / "echo-server"  # in place of sshd, which few machines have
        server.write_text("#!/bin/sh\nexec cat\n")
        server.chmod(0o755)
        monkeypatch.setattr(ssh, "_sshd", lambda: str(server))
        async with ws(vm, "/colab/ssh", headers=key) as first:
            await first.send(bytes(range(256)))
            assert await first.recv() == bytes(range(256))
            with pytest.raises(InvalidStatus) as refused:
                async with ws(vm, "/colab/ssh", headers=key):
                    pass
            assert refused.value.response.status_code == 429
            assert json.loads(refused.value.response.body or b"") == {"error": "already-active-session"}
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    async with ws(vm, "/colab/ssh", headers=key) as second:
                        await second.send(b"again")
                        assert await second.recv() == b"again"
                    break
                except InvalidStatus:
                    await asyncio.sleep(0.05)  # the machine's side ends a moment after ours
        assert (vm.spec.folder / "ssh" / "authorized_keys").read_text() == ED25519 + "\n"


@pytest.mark.skipif(
    os.geteuid() != 0 or ssh._sshd() is None or shutil.which("ssh") is None,
    reason="needs root, an installed sshd with its user, and ssh; the tunnel itself is tested without",
)
async def test_ssh_logs_in_as_root_on_the_machine(tmp_path: Path) -> None:
    identity = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", identity], check=True)
    key = identity.with_suffix(".pub").read_text().strip()
    async with machine(tmp_path, ssh=True) as vm:

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with ws(vm, "/colab/ssh", headers={"X-Colab-Ssh-Pubkey": key}) as socket:
                up = asyncio.ensure_future(to_socket(reader, socket))
                async for frame in socket:
                    writer.write(frame)
                up.cancel()
            writer.close()

        server = await asyncio.start_server(carry, "127.0.0.1", 0)
        options = "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"
        done = await asyncio.create_subprocess_exec(
            *("ssh", "-i", identity, "-p", str(server.sockets[0].getsockname()[1])),
            *(word for option in options for word in ("-o", option)),
            *("root@127.0.0.1", "id -un; cat /var/colab/hostname"),
            stdout=subprocess.PIPE,
        )
        async with asyncio.timeout(WAIT_S):
            output, _ = await done.communicate()
        server.close()
    assert output.decode().split() == ["root", "m-s-kkb-usc1f1-test"]


async def to_socket(reader: asyncio.StreamReader, socket: ClientConnection) -> None:
    while data := await reader.read(65536):
        await socket.send(data)
