"""The lid: everything on this side is killed and the network is cut while a cell prints; later all of it is there.

A cell prints a numbered line a second for ten minutes, with images and a tqdm bar between. After one minute front end,
proxy kernel and daemon are killed and the network goes; after six minutes they start again. The test runs that fifty
times faster; ``make campaign-lid`` takes the ten minutes (``COLAB_BRIDGE_LID_SCALE=1``).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.testing.jupyter import start_jupyter_server
from colab_bridge.testing.relay import TcpRelay
from daemon_home import DaemonHome, Seen, eventually, kill
from notebook_files import printed, read, write
from old_server import old_server_python

SCALE = float(os.environ.get("COLAB_BRIDGE_LID_SCALE", "50"))
LINES = 600
KILLED_AT, BACK_AT, END_AT = 60 / SCALE, 360 / SCALE, 600 / SCALE
#: Seconds in which everything must be there again, counted from the start of the daemon, on a machine that has a
#: processor for it.
PROMISE_S = 5.0

CELL = f"""\
import base64, time
from IPython.display import display
from tqdm import tqdm
pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
begun = time.monotonic()
for n in tqdm(range({LINES}), mininterval=0):
    print('line', n, flush=True)
    if n % 50 == 0:
        display({{'image/png': pixel, 'text/plain': f'image {{n}}'}}, raw=True)
    time.sleep(max(0, begun + (n + 1) / {SCALE} - time.monotonic()))
"""
EVERY_LINE = "".join(f"line {n}\n" for n in range(LINES))

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180 + 3 * END_AT)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def slowness_now() -> float:
    """Return how many seconds a second of work takes, because others use the machine too; 1 where nobody does."""
    begun, before = time.monotonic(), os.times()
    subprocess.run([sys.executable, "-c", "import asyncio, json, sqlite3, http.client"], check=True)
    wall, after = time.monotonic() - begun, os.times()
    worked = after.children_user + after.children_system - before.children_user - before.children_system
    return max(1.0, wall / worked) if worked else 1.0  # Windows does not count what children have used


async def in_thread(function: Callable[..., Any], *arguments: Any, **members: Any) -> Any:
    return await anyio.to_thread.run_sync(lambda: function(*arguments, **members), abandon_on_cancel=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A home with a session on a server with default limits, behind a network that can go away."""

    home: DaemonHome
    relay: TcpRelay
    session: str = "lid"

    async def close_lid(self, *processes: int) -> None:
        """Kill the daemon and these processes, and take the network away, all at once."""
        self.relay.blackhole(refuse_new=True)
        for pid in (*processes, self.home.pid):
            await in_thread(kill, pid)

    async def open_lid(self) -> float:
        """Bring the network back and start the daemon; returns the time at which both were asked for."""
        started = time.monotonic()
        self.relay.restore()
        await in_thread(self.home.client)
        return started


@pytest.fixture(params=["current server", "jupyter_server 1.24 on Python 3.10"])
def server_python(request: pytest.FixtureRequest) -> str:
    """Interpreter of the server; made when there is none yet."""
    return sys.executable if request.param == "current server" else old_server_python()


@contextlib.asynccontextmanager
async def at_desk(home: DaemonHome, folder: Path, python: str) -> AsyncIterator[Desk]:
    root = folder / "remote"
    root.mkdir()
    async with start_jupyter_server(root, python=python) as server, TcpRelay("127.0.0.1", server.port) as relay:
        url = f"http://127.0.0.1:{relay.port}/?token={server.token}"
        body = {"project": str(home.project), "name": "lid", "provider": "jupyter", "options": {"url": url}, "env": {}}
        await in_thread(home.client().post, "/v1/sessions", body)
        try:
            yield Desk(home=home, relay=relay)
        finally:
            relay.restore()
            with anyio.CancelScope(shield=True):
                await in_thread(home.client().delete, "/v1/sessions/lid", timeout_s=60)


def lines_of(cell: dict[str, Any]) -> int:
    """Return how many lines a saved cell shows; they must be the first ones, each once, in order."""
    text = printed(cell)
    count = text.count("\n")
    assert text == "".join(f"line {n}\n" for n in range(count))
    return count


def assert_complete(path: Path) -> None:
    (cell,) = read(path)
    assert printed(cell) == EVERY_LINE
    images = [o["data"]["text/plain"] for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert images == [f"image {n}" for n in range(0, LINES, 50)]
    assert "600/600" in printed(cell, "stderr")
    assert cell["execution_count"] == 1


async def test_a_run_shows_everything_once_after_the_lid_was_closed(
    daemon_home: DaemonHome, tmp_path: Path, server_python: str
) -> None:
    async with at_desk(daemon_home, tmp_path, server_python) as desk:
        path = write(daemon_home.project / "lid.ipynb", CELL)
        members: dict[str, Any] = {"session": desk.session, "notebook": {"path": str(path)}}
        run = await in_thread(daemon_home.start, "notebook", **members)
        await in_thread(daemon_home.until_text, run["id"], "line 0\n")
        begun = time.monotonic()
        front_end = subprocess.Popen(
            [sys.executable, "-c", "from colab_bridge.cli.main import main; main()", "attach", run["id"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=daemon_home.project,
        )
        await anyio.sleep(KILLED_AT - (time.monotonic() - begun))
        await desk.close_lid(front_end.pid)
        front_end.wait()
        await anyio.sleep(BACK_AT - (time.monotonic() - begun))
        slowness = await in_thread(slowness_now)
        away = int((time.monotonic() - begun) * SCALE) - 2
        opened = await desk.open_lid()

        def caught_up() -> Seen | None:
            seen = daemon_home.record(run["id"])
            return seen if seen.text().count("\n") >= away else None

        seen = await in_thread(eventually, caught_up, f"{away} lines are there", 60)
        await in_thread(eventually, lambda: lines_of(read(path)[0]) >= away, "they are in the notebook")
        took = time.monotonic() - opened
        assert took < PROMISE_S * max(slowness, await in_thread(slowness_now))
        count = seen.text().count("\n")
        assert seen.text() == "".join(f"line {n}\n" for n in range(count))
        whole = await in_thread(daemon_home.follow, run["id"])
        assert whole.text() == EVERY_LINE
        assert (whole.status, whole.of("lost")) == ("ok", [])
        assert_complete(path)


async def test_a_notebook_in_a_front_end_is_complete_after_the_lid_was_closed(
    daemon_home: DaemonHome, tmp_path: Path, server_python: str
) -> None:
    async with at_desk(daemon_home, tmp_path, server_python) as desk:
        path = write(daemon_home.project / "front.ipynb", CELL)
        script = Path(__file__).with_name("lid_front_end.py")
        command = [sys.executable, str(script), desk.session, str(path), str(tmp_path / "connection.json")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as front_end:
            assert front_end.stdout is not None
            proxy = int(await in_thread(front_end.stdout.readline))
            assert await in_thread(front_end.stdout.readline) == "line 0\n"
            begun = time.monotonic()
            await anyio.sleep(KILLED_AT)
            await desk.close_lid(front_end.pid, proxy)
        await anyio.sleep(BACK_AT - (time.monotonic() - begun))
        slowness = await in_thread(slowness_now)
        away = int((time.monotonic() - begun) * SCALE) - 2
        opened = await desk.open_lid()
        await in_thread(eventually, lambda: lines_of(read(path)[0]) >= away, f"{away} lines are in the notebook", 60)
        took = time.monotonic() - opened
        assert took < PROMISE_S * max(slowness, await in_thread(slowness_now))
        bound = END_AT + 60
        await in_thread(eventually, lambda: lines_of(read(path)[0]) == LINES, "the tail is in the notebook", bound)
        # The cell ends a moment after its last line, with the last word of the bar.
        await in_thread(eventually, lambda: "600/600" in printed(read(path)[0], "stderr"), "the cell has ended")
        assert_complete(path)
