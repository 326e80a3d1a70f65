"""What a runtime lacks or forbids, through the whole stack: code still runs, and ``status`` has one line about it."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.testing.jupyter import start_jupyter_server
from daemon_home import DaemonHome
from tunnel_rig import in_thread

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(150),
    pytest.mark.skipif(sys.platform == "win32", reason="the server gets its environment from a shell script"),
]

#: What the Jupyter protocol itself has; https://jupyter-client.readthedocs.io/en/stable/messaging.html
ORDINARY = [
    "execute_request",
    "complete_request",
    "inspect_request",
    "kernel_info_request",
    "interrupt_request",
    "shutdown_request",
    "input_reply",
]
MANY_LINES = "for n in range(20_000): print(n)"


def shell_python(folder: Path, before: str) -> str:
    """Return an interpreter that does something in a shell first."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nset -e\n{before}\nexec {shlex.quote(sys.executable)} "$@"\n')
    script.chmod(0o755)
    return str(script)


def mounting_python(folder: Path, *commands: str) -> str:
    """Return an interpreter with mounts that only it and its children see; skips where that is not allowed."""
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("mounts of one's own need unshare and its privileges")
    inner = folder / "mounted"
    inner.write_text("#!/bin/sh\nset -e\n" + "\n".join(commands) + f'\nexec {shlex.quote(sys.executable)} "$@"\n')
    inner.chmod(0o755)
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec unshare -m {shlex.quote(str(inner))} "$@"\n')
    script.chmod(0o755)
    return str(script)


class Place:
    """A session on a degraded server, and a user who types."""

    def __init__(self, home: DaemonHome, name: str, project: Path) -> None:
        self.home, self.name, self.project = home, name, project

    async def type(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "colab_bridge", *argv]
        done: subprocess.CompletedProcess[str] = await in_thread(
            subprocess.run, command, cwd=self.project, capture_output=True, text=True, timeout=100, check=False
        )
        return done

    async def printed(self, code: str) -> str:
        done = await self.type("exec", "-s", self.name, code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def status(self) -> str:
        """Return what ``status`` shows of this session."""
        done = await self.type("status")
        assert done.returncode == 0, done.stderr
        _, _, own = done.stdout.partition(f"session  {self.name}")
        return own.partition("\nsession  ")[0]

    async def only_line(self, words: str) -> str:
        """Return the one line of ``status`` with these words."""
        status = await self.status()
        found = [line for line in status.splitlines() if words in line]
        assert len(found) == 1, status
        return found[0]


@contextlib.asynccontextmanager
async def place(home: DaemonHome, folder: Path, **traits: Any) -> AsyncIterator[Place]:
    name = folder.name.replace("_", "-").strip("-")[-50:]
    project = home.new_project(name)
    root = folder / "root"
    root.mkdir()
    async with start_jupyter_server(root, **traits) as server:
        url = f"{server.base_url}/?token={server.token}"
        body = {"project": str(project), "name": name, "provider": "jupyter", "options": {"url": url}, "env": {}}
        await in_thread(home.client().post, "/v1/sessions", body)
        try:
            yield Place(home, name, project)
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(home.client().delete, f"/v1/sessions/{name}", timeout_s=40)


async def test_connection_files_that_cannot_be_read_leave_the_websocket(
    shared_home: DaemonHome, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    before = f"export PYTHONPATH={shlex.quote(str(Path(__file__).parent))} HIDDEN_FILES={shlex.quote(str(hidden))}"
    traits = {"ServerApp__kernel_manager_class": "hidden_files.HiddenFiles"}
    async with place(shared_home, tmp_path, python=shell_python(tmp_path, before), **traits) as here:
        assert await here.printed("print('there')") == "there\n"
        assert "over the websocket, because" in await here.only_line("connection file")


@pytest.mark.parametrize("status", [403, 409, 429, 500, 503])
async def test_a_server_that_forbids_a_second_kernel_keeps_the_users(
    shared_home: DaemonHome, tmp_path: Path, status: int
) -> None:
    before = f"export PYTHONPATH={shlex.quote(str(Path(__file__).parent))} REFUSE_WITH={status}"
    traits = {"ServerApp__kernel_manager_class": "one_kernel.OneKernel"}
    async with place(shared_home, tmp_path, python=shell_python(tmp_path, before), **traits) as here:
        assert await here.printed("print('mine')") == "mine\n"
        assert await here.printed(MANY_LINES) == "".join(f"{n}\n" for n in range(20_000))
        assert "kernel" in await here.only_line("link     websocket")


async def test_without_an_agent_files_go_both_ways_modules_are_reloaded_and_one_line_says_what_is_missing(
    shared_home: DaemonHome, tmp_path: Path
) -> None:
    before = f"export PYTHONPATH={shlex.quote(str(Path(__file__).parent))} REFUSE_WITH=403"
    traits = {"ServerApp__kernel_manager_class": "one_kernel.OneKernel"}
    async with place(shared_home, tmp_path, python=shell_python(tmp_path, before), **traits) as here:
        (here.project / "data").mkdir()
        (here.project / "data" / "in.txt").write_text("42")
        (here.project / "mine.py").write_text("VALUE = 1\n")
        code = "import mine; print(mine.VALUE, open('data/in.txt').read()); _ = open('out.txt', 'w').write('x')"
        assert await here.printed(code) == "1 42\n"
        assert (here.project / "out.txt").read_text() == "x"
        (here.project / "mine.py").write_text("VALUE = 22\n")
        assert await here.printed("print(mine.VALUE)") == "22\n"
        status = (await here.type("sync", "status", "-s", here.name)).stdout.splitlines()
        assert [line for line in status if line.startswith("degraded") and "no agent here" in line] != []
        (there,) = [line for line in status if line.startswith("there")]
        assert there.startswith("there     colab-bridge/")
        assert str(shared_home.folder) not in there


async def test_a_server_that_lets_only_ordinary_messages_through_has_the_websocket(
    shared_home: DaemonHome, tmp_path: Path
) -> None:
    traits = {"MappingKernelManager__allowed_message_types": ORDINARY}
    async with place(shared_home, tmp_path, **traits) as here:
        assert await here.printed("print('plain')") == "plain\n"
        assert "does not let the agent's messages through" in await here.only_line("link     websocket")


async def test_a_home_that_is_read_only_is_told_and_the_tunnel_works(shared_home: DaemonHome, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    python = mounting_python(
        tmp_path,
        f"mount -t tmpfs -o ro none {shlex.quote(str(home))}",
        f"unset XDG_DATA_HOME XDG_CACHE_HOME; export HOME={shlex.quote(str(home))}",
    )
    async with place(shared_home, tmp_path, python=python) as here:
        assert await here.printed(MANY_LINES) == "".join(f"{n}\n" for n in range(20_000))
        await here.only_line("link     tunnel")
        assert "Read-only file system" in await here.only_line("the agent keeps its files in")


def full_disk(tmp_path: Path, size: str, *more: str) -> str:
    """Return an interpreter for which home, temp and memory are one small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    where = shlex.quote(str(disk))
    return mounting_python(
        tmp_path,
        f"mount -t tmpfs -o size={size} none {where}",
        "mount -t tmpfs -o size=4k none /dev/shm; head -c 4096 /dev/zero > /dev/shm/full",
        f"mkdir {where}/tmp",
        f"export HOME={where} XDG_DATA_HOME={where}/data XDG_CACHE_HOME={where}/cache TMPDIR={where}/tmp",
        *more,
    )


async def test_a_disk_without_room_for_the_journal_is_told_and_output_arrives(
    shared_home: DaemonHome, tmp_path: Path
) -> None:
    async with place(shared_home, tmp_path, python=full_disk(tmp_path, "24m")) as here:
        assert await here.printed(MANY_LINES) == "".join(f"{n}\n" for n in range(20_000))
        await here.only_line("link     tunnel")
        await here.only_line("almost full")


async def test_a_home_that_is_full_is_told_and_the_agent_goes_elsewhere(
    shared_home: DaemonHome, tmp_path: Path
) -> None:
    fill = 'head -c 8m /dev/zero > "$HOME/full" || true'
    async with place(shared_home, tmp_path, python=full_disk(tmp_path, "1m", fill)) as here:
        assert await here.printed(MANY_LINES) == "".join(f"{n}\n" for n in range(20_000))
        await here.only_line("link     tunnel")
        assert "No space left on device" in await here.only_line("the agent keeps its files in")


async def test_files_that_do_not_fit_on_the_runtimes_disk_are_told_and_code_runs_without_them_on_request(
    shared_home: DaemonHome, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    python = mounting_python(tmp_path, f"mount -t tmpfs -o size=4m none {shlex.quote(str(root))}")
    async with place(shared_home, tmp_path, python=python) as here:
        (here.project / "big.bin").write_bytes(os.urandom(8 * 2**20))
        done = await here.type("exec", "-s", here.name, "print('ran')")
        assert (done.returncode, done.stdout) == (1, "")
        what, _fix = done.stderr.splitlines()
        assert "the disk of the runtime is full" in what
        done = await here.type("exec", "-s", here.name, "--allow-stale", "print('ran')")
        assert (done.returncode, done.stdout) == (0, "ran\n")


async def test_without_proc_the_tunnel_works_and_a_dead_kernel_is_noticed(
    shared_home: DaemonHome, tmp_path: Path
) -> None:
    python = mounting_python(tmp_path, "mount -t tmpfs none /proc")
    async with place(shared_home, tmp_path, python=python) as here:
        assert await here.printed("import os; print(os.listdir('/proc'))") == "[]\n"
        await here.only_line("link     tunnel")
        await here.only_line("/proc")
        done = await here.type("exec", "-s", here.name, "import os; os._exit(3)")
        assert done.returncode == 69
        assert await here.printed("print('again')") == "again\n"
