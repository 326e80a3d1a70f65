"""A notebook whose front end has gone is completed by the daemon, cell by cell, from the kernel's record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from channels_client import channels, front_end_kernel
from colab_bridge.kernels.proxy.identity import process_of
from daemon_home import DaemonHome, eventually
from notebook_files import printed, read, write

SLOW = """\
import time
from IPython.display import display, update_display
display('begun', display_id='bar')
for n in range(12):
    print(n, flush=True)
    print(f'\\r{n} of 12', end='', flush=True) if n == 11 else None
    time.sleep(0.1)
update_display('done', display_id='bar')
'last'
"""
NUMBERS = "".join(f"{n}\n" for n in range(12))


@pytest.fixture
def home(shared_home: DaemonHome) -> DaemonHome:
    return shared_home


async def in_thread(function: Any, *arguments: Any, **members: Any) -> Any:
    return await anyio.to_thread.run_sync(lambda: function(*arguments, **members))


async def submit(front: Any, code: str, cell: str) -> str:
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    return str(await front.send("shell", "execute_request", content, metadata={"cellId": cell}))


async def vanish_during(home: DaemonHome, kernel: dict[str, Any], cells: dict[str, str]) -> None:
    """Execute cells as a front end that is killed after the last one's first output."""
    async with channels(home.client(), str(kernel["id"])) as front:
        for cell, code in cells.items():
            request = await submit(front, code, cell)
        await front.until(lambda: front.text(request))
        front.socket.transport.abort()


async def completed(path: Path, cell: int) -> list[dict[str, Any]]:
    def whole() -> list[dict[str, Any]] | None:
        cells = read(path)
        return cells if any(o["output_type"] == "execute_result" for o in cells[cell]["outputs"]) else None

    return list(await in_thread(eventually, whole, "the cell's result is in the file"))


async def test_a_cell_that_ran_on_alone_is_completed_and_no_other_is_touched(home: DaemonHome) -> None:
    path = write(home.project / "alone.ipynb", "1 + 1", SLOW, "never")
    kernel = await in_thread(front_end_kernel, home, "alone.ipynb")
    await vanish_during(home, kernel, {"c1": SLOW})
    before, cell, after = await completed(path, 1)
    assert printed(cell) == NUMBERS + "11 of 12"
    assert [o["data"]["text/plain"] for o in cell["outputs"] if "data" in o] == ["'done'", "'last'"]
    assert cell["execution_count"] == 1
    assert (before["outputs"], after["outputs"]) == ([], [])


async def test_a_notebook_that_was_edited_meanwhile_keeps_its_edits(home: DaemonHome) -> None:
    path = write(home.project / "edited.ipynb", SLOW)
    kernel = await in_thread(front_end_kernel, home, "edited.ipynb")
    await vanish_during(home, kernel, {"c0": SLOW})
    content = json.loads(path.read_text("utf-8"))
    content["cells"].insert(0, {"cell_type": "markdown", "id": "new", "metadata": {}, "source": "my words"})
    content["cells"][1]["source"] = "# edited\n" + SLOW
    path.write_text(json.dumps(content), "utf-8")
    words, cell = await completed(path, 1)
    assert words["source"] == "my words"
    assert cell["source"].startswith("# edited")
    assert printed(cell) == NUMBERS + "11 of 12"


async def test_a_cell_that_had_ended_but_was_not_saved_is_completed_too(home: DaemonHome) -> None:
    path = write(home.project / "late.ipynb", "print('short')", SLOW)
    kernel = await in_thread(front_end_kernel, home, "late.ipynb")
    await vanish_during(home, kernel, {"c0": "print('short')", "c1": SLOW})
    first, second = await completed(path, 1)
    assert (printed(first), first["execution_count"]) == ("short\n", 1)
    assert printed(second) == NUMBERS + "11 of 12"


async def test_a_front_end_that_comes_back_keeps_its_file_to_itself(home: DaemonHome) -> None:
    path = write(home.project / "mine.ipynb", SLOW)
    kernel = await in_thread(front_end_kernel, home, "mine.ipynb")
    await vanish_during(home, kernel, {"c0": SLOW})
    before = path.read_bytes()
    async with channels(home.client(), str(kernel["id"])) as front:
        await front.until(lambda: any(m.msg_type == "execute_reply" for m in front.messages))
        await front.execute("1")
    assert path.read_bytes() == before


async def test_front_end_and_daemon_may_die_together(home: DaemonHome) -> None:
    path = write(home.project / "both.ipynb", SLOW)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as proxy:
        process = process_of(proxy.pid)
        identity = {"front_end": "test", "notebook": str(path), "process": process}
        body = {"project": str(home.project), "cwd": str(home.project), "identity": identity}
        kernel = await in_thread(home.client().post, "/v1/kernels", body)
        async with channels(home.client(), str(kernel["id"])) as front:
            request = await submit(front, SLOW, "c0")
            await front.until(lambda: front.text(request))
            proxy.kill()
            home.kill_daemon()
    await in_thread(home.client)
    (cell,) = await completed(path, 0)
    assert printed(cell) == NUMBERS + "11 of 12"
