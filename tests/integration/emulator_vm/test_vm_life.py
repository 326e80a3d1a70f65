"""How emulated machines live beside one another, die, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx2
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from colab_bridge.errors import UserError
from colab_bridge.testing.colab.vm.contracts import Gpu
from colab_bridge.testing.colab.vm.machine import Death
from vm_support import WAIT_S, ControlSide, attached, client, kernel, machine, start

pytestmark = pytest.mark.anyio

CHILD = """
import asyncio, os, stat, subprocess, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from vm_support import *

def become_ordinary(uid):
    '''In a mount namespace of our own: let others reach the interpreter, then be one of them.'''
    for path in {sys.prefix, sys.base_prefix}:
        for folder in reversed(Path(path).parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                stage = Path(tempfile.mkdtemp(dir="/var/tmp"))
                stage.chmod(0o755)
                inner = stage / Path(path).relative_to(folder)
                inner.mkdir(parents=True)
                subprocess.run(["mount", "--rbind", path, inner], check=True)
                subprocess.run(["mount", "--rbind", stage, folder], check=True)
                print(stage, file=sys.stderr, flush=True)
    os.setgroups([]); os.setgid(uid); os.setuid(uid)

async def main():
    if os.environ.get("BECOME"):
        become_ordinary(int(os.environ["BECOME"]))
    vm = await start(Path(sys.argv[2]), ControlSide(), shared=len(sys.argv) > 3)
    async with kernel(vm) as cells:
        done = await cells.run("import os; print(os.getuid(), os.getcwd(), os.path.expanduser('~'))")
        print(vm.url(), vm.private, done.text.strip(), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def of_machine(folder: Path) -> list[psutil.Process]:
    """Return the processes that have the machine's variables or command lines."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(process)
    return [process for process in found if process.pid != os.getpid()]


async def until_gone(folder: Path) -> None:
    async with asyncio.timeout(WAIT_S):
        while of_machine(folder) or folder.exists():
            await asyncio.sleep(0.05)  # processes end without telling whoever did not start them


async def test_each_machine_has_a_content_of_its_own_and_the_host_sees_none_of_it(tmp_path: Path) -> None:
    before = set(os.listdir("/"))
    async with machine(tmp_path, endpoint="one") as one, machine(tmp_path, endpoint="two") as two:
        if not one.private:
            pytest.skip("this system gives no machine a /content of its own")
        for vm in (one, two):
            async with kernel(vm) as cells:
                await cells.run(f"open('/content/mine', 'w').write('{vm.spec.endpoint}')\nopen('/tmp/t', 'w').close()")
        for vm in (one, two):
            async with client(vm) as http:
                listed = (await http.get("/api/contents/content")).json()["content"]
                assert [entry["name"] for entry in listed] == ["mine"]
                assert (await http.get("/files/content/mine")).text == vm.spec.endpoint
            async with kernel(vm) as cells:
                code = "import os; print(os.listdir('/tmp'), os.listdir('/home'), open('/var/colab/hostname').read())"
                assert f"{vm.spec.endpoint}\n" in (await cells.run(code)).text
        assert set(os.listdir("/")) == before
        assert not Path("/tmp/t").exists()


async def test_a_machine_sees_its_own_processes_only(tmp_path: Path) -> None:
    async with machine(tmp_path) as vm:
        if not vm.private:
            pytest.skip("this system gives no machine a process namespace")
        async with kernel(vm) as cells:
            done = await cells.run("import psutil; print(len(psutil.pids()), psutil.Process(1).cmdline()[0])")
    assert int(done.text.split()[0]) <= 4
    assert "python" in done.text


async def test_a_package_installed_on_the_machine_is_not_installed_on_the_host(tmp_path: Path) -> None:
    code = (
        "import sys, sysconfig, pathlib; site = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "(site / 'only_there.py').write_text('x = 4711')\nimport only_there; print(only_there.x)"
    )
    async with machine(tmp_path) as vm:
        if not vm.private:
            pytest.skip("this system gives no machine a disk of its own")
        async with kernel(vm) as cells:
            assert (await cells.run(code)).text == "4711\n"
            alone = await cells.run("!{sys.executable} -I -c 'import google.colab; print(google.colab.__name__)'")
            assert alone.text.strip() == "google.colab"
        assert not Path(sysconfig.get_path("purelib"), "only_there.py").exists()


async def test_a_machine_whose_server_has_ended_is_no_longer_alive(tmp_path: Path) -> None:
    async with machine(tmp_path) as vm, client(vm) as http:
        kernel_id = (await http.post("/api/kernels", json={"name": "python3"})).json()["id"]
        assert vm.alive
        async with attached(vm, kernel_id) as cells:
            await cells.send("shell", "execute_request", {"code": "import os; os.kill(os.getppid(), 9)"})
            async with asyncio.timeout(WAIT_S):
                while vm.alive:
                    await asyncio.sleep(0.05)  # the supervisor says so when everything has ended
        assert (await http.get("/api")).status_code == 502


async def test_what_leaves_its_parent_on_purpose_ends_with_the_machine_all_the_same(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = 'import os, time\\nif os.fork() == 0:\\n os.setsid()\\n time.sleep(600)'\n"
        "subprocess.Popen([sys.executable, '-c', child], start_new_session=True)"
    )
    async with machine(tmp_path) as vm:
        async with kernel(vm) as cells:
            await cells.run(code)
        assert of_machine(vm.spec.folder)
    assert not of_machine(tmp_path)


async def test_a_killed_machine_refuses_connections_and_is_gone(tmp_path: Path) -> None:
    vm = await start(tmp_path, ControlSide())
    url = vm.url()
    async with client(vm) as http:
        kernel_id = (await http.post("/api/kernels", json={"name": "python3"})).json()["id"]
        async with attached(vm, kernel_id) as cells:
            vm.kill()
            assert not vm.alive
            with pytest.raises(ConnectionClosed):
                while True:
                    await cells.receive()
        with pytest.raises(httpx2.ConnectError):
            await http.get("/api")
    await until_gone(vm.spec.folder)
    assert vm.url() == url
    await vm.stop()


async def test_a_machine_can_die_without_a_sign(tmp_path: Path) -> None:
    vm = await start(tmp_path, ControlSide())
    async with client(vm) as http:
        assert (await http.get("/api")).status_code == 200
        vm.kill(Death.HANG)
        with pytest.raises(httpx2.ReadTimeout):
            await http.get("/api", timeout=0.3)
        with pytest.raises(httpx2.ReadTimeout):
            await httpx2.AsyncClient(base_url=vm.url(), trust_env=False).get("/api", timeout=0.3)
    await vm.stop()


async def test_the_name_of_a_machine_can_stop_to_resolve(tmp_path: Path) -> None:
    vm = await start(tmp_path, ControlSide())
    vm.kill(Death.UNRESOLVABLE)
    assert vm.url() == "http://8080-m-s-kkb-usc1f1-test.invalid"
    await vm.stop()


async def test_a_released_machine_is_gone_while_its_proxy_says_so(tmp_path: Path) -> None:
    control = ControlSide()
    vm = await start(tmp_path, control)
    async with client(vm) as http:
        assert (await http.get("/api")).status_code == 200
        control.assigned = False
        await vm.release()
        assert not of_machine(vm.spec.folder)
        assert not vm.spec.folder.exists()
        assert (await http.get("/api")).status_code == 404
    await vm.stop()
    await vm.stop()


async def test_a_machine_may_release_itself(tmp_path: Path) -> None:
    control = ControlSide()
    vm = await start(tmp_path, control)
    control.on_release = vm.release
    async with client(vm) as http:
        kernel_id = (await http.post("/api/kernels", json={"name": "python3"})).json()["id"]
        async with attached(vm, kernel_id) as cells:
            await cells.send(
                "shell", "execute_request", {"code": "from google.colab import runtime; runtime.unassign()"}
            )
            with pytest.raises(ConnectionClosed):
                while True:
                    await cells.receive()
    await until_gone(vm.spec.folder)
    assert control.released == [vm.spec.endpoint]
    await vm.stop()


@pytest.mark.parametrize("shared", [False, True])
async def test_a_killed_emulator_takes_its_machines_with_it(tmp_path: Path, shared: bool) -> None:
    if shared and Path("/content").exists():
        pytest.skip("/content is in use on this machine")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path), *(["shared"] * shared)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = await asyncio.to_thread(child.stdout.readline)
        folder = tmp_path / "m-s-kkb-usc1f1-test"
        assert " /content " in line
        assert of_machine(folder)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    await until_gone(folder)
    assert not (shared and Path("/content").exists())


async def test_where_there_are_no_private_mounts_one_machine_at_a_time_uses_content(tmp_path: Path) -> None:
    if Path("/content").exists() or os.geteuid() != 0:
        pytest.skip("/content is in use on this machine, or nobody may make it")
    async with machine(tmp_path, shared=True, endpoint="one") as vm:
        assert not vm.private
        async with kernel(vm) as cells:
            done = await cells.run("import os; open('a', 'w').close(); print(os.getcwd(), os.environ['HOME'])")
        assert done.text.split() == ["/content", str(vm.spec.folder / "root")]
        assert Path("/content/a").exists()
        assert Path("/var/colab/hostname").read_text() == "one\n"
        with pytest.raises(UserError, match="another emulated machine uses /content") as refused:
            await start(tmp_path, ControlSide(), shared=True, endpoint="two")
        assert "release that machine first" in refused.value.hint
    assert not Path("/content").exists()
    assert not Path("/var/colab").exists()


async def test_somebodys_own_content_is_not_touched(tmp_path: Path) -> None:
    if Path("/content").exists() or os.geteuid() != 0:
        pytest.skip("/content is in use on this machine, or nobody may make it")
    Path("/content").mkdir()
    Path("/content/thesis").write_text("mine")
    try:
        with pytest.raises(UserError, match="not the emulator's"):
            await start(tmp_path, ControlSide(), shared=True)
        assert Path("/content/thesis").read_text() == "mine"
    finally:
        shutil.rmtree("/content")


async def test_an_ordinary_user_gets_private_machines_too() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("the other tests show it when run by an ordinary user")
    nobody = pwd.getpwnam("nobody")
    folder = Path("/var/tmp") / f"cb-vm-{os.getpid()}"
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    child = subprocess.Popen(
        ["unshare", "--mount", sys.executable, "-c", CHILD, str(Path(__file__).parent), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BECOME": str(nobody.pw_uid)},
    )
    try:
        line = await asyncio.to_thread(child.stdout.readline)
    finally:
        child.kill()
        trouble = child.communicate()[1]
        await until_gone(folder / "m-s-kkb-usc1f1-test")
        folder.rmdir()
        for stage in re.findall(r"^(/var/tmp/\S+)$", trouble, re.MULTILINE):
            shutil.rmtree(stage)  # the mounts in it were those of a namespace that has gone
    assert line.split()[1:] == ["True", "0", "/content", "/root"], trouble


async def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -I ]; then exec {sys.executable} "$@"; fi\necho "no module here" >&2; exit 1\n'
    )
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match="no module here"):
        await start(tmp_path, ControlSide(), python=str(python))
    assert not of_machine(tmp_path)


async def test_a_card_is_what_it_is_and_not_what_was_asked_for(tmp_path: Path) -> None:
    query = "!nvidia-smi --query-gpu=name,memory.total --format=csv,noheader"
    async with machine(tmp_path, kind="gpu", accelerator="A100") as vm, kernel(vm) as cells, client(vm) as http:
        assert (await cells.run(query)).text.strip() == "NVIDIA A100-SXM4-40GB, 40960 MiB"
        vm.set_gpus([Gpu(name="Tesla T4", memory_total_bytes=16106127360, utilisation=0.5, ever_used=True)])
        assert (await cells.run(query)).text.strip() == "Tesla T4, 15360 MiB"
        assert (await cells.run("!nvidia-smi -L")).text.startswith("GPU 0: Tesla T4 (UUID: GPU-")
        assert "Tesla T4" in (await cells.run("!nvidia-smi")).text
        shown = json.loads((await http.get("/api/colab/resources")).text.partition("\n")[2])
        assert shown["gpus"][0]["gpuUtilization"] == 0.5
        vm.set_gpus([])
        assert "No devices were found" in (await cells.run("!nvidia-smi")).text


@pytest.mark.parametrize(("kind", "accelerator", "shown"), [("cpu", "", "0 None"), ("tpu", "V5E1", "0 v5litepod-1")])
async def test_a_machine_without_a_card_has_no_nvidia_smi(
    tmp_path: Path, kind: str, accelerator: str, shown: str
) -> None:
    code = "import os, shutil; print(os.environ['COLAB_GPU'], os.environ.get('TPU_ACCELERATOR_TYPE'))"
    async with machine(tmp_path, kind=kind, accelerator=accelerator) as vm, kernel(vm) as cells:
        assert (await cells.run(code)).text.strip() == shown
        found = await cells.run("import shutil; print(shutil.which('nvidia-smi') or '')")
    assert str(tmp_path) not in found.text
