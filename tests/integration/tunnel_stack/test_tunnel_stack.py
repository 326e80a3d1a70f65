"""The whole way through the agent: floods, kills, restarts, large requests, and the end of a session."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from colab_bridge.kernels.rest import JupyterServer
from daemon_home import DaemonHome
from notebook_files import printed, read, write
from tunnel_rig import TunnelRig, in_thread, nothing_lost, numbered

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

SLOWLY = "import time\nfor n in range(24):\n    print(n, flush=True)\n    time.sleep(0.15)"


async def test_twenty_thousand_displays_are_complete_on_a_server_with_default_limits(rig: TunnelRig) -> None:
    seen = await rig.code("for n in range(20_000):\n    display(n)")
    assert [event["data"]["text/plain"] for event in seen.of("display")] == [str(n) for n in range(20_000)]
    assert nothing_lost(rig.home, seen)


async def test_eighty_megabytes_of_big_displays_are_complete(rig: TunnelRig) -> None:
    code = (
        "for n in range(40):\n    display({'text/plain': str(n), 'text/html': chr(97 + n % 26) * 2_000_000}, raw=True)"
    )
    seen = await rig.code(code)
    shown = [event["data"] for event in seen.of("display")]
    assert [data["text/plain"] for data in shown] == [str(n) for n in range(40)]
    assert all(data["text/html"] == chr(97 + n % 26) * 2_000_000 for n, data in enumerate(shown))
    assert nothing_lost(rig.home, seen)


async def test_fifty_megabytes_of_stdout_are_complete(rig: TunnelRig) -> None:
    code = "import sys\nfor n in range(500):\n    sys.stdout.write(chr(97 + n % 26) * 100_000)\n    sys.stdout.flush()"
    seen = await rig.code(code)
    assert seen.text() == "".join(chr(97 + n % 26) * 100_000 for n in range(500))
    assert nothing_lost(rig.home, seen)


async def test_a_daemon_killed_in_the_middle_of_a_cell_leaves_record_and_notebook_complete(rig: TunnelRig) -> None:
    path = write(rig.home.project / "killed.ipynb", SLOWLY, "print('after')")
    members: dict[str, Any] = {"session": rig.session, "notebook": {"path": str(path)}}
    run = await in_thread(rig.home.start, "notebook", **members)
    for last in ("5\n", "15\n"):
        await rig.until_text(run["id"], last)
        await in_thread(rig.home.kill_daemon)
    seen = await rig.follow(run["id"])
    first, second = read(path)
    assert printed(first) == numbered(24)
    assert printed(second) == "after\n"
    assert seen.text() == numbered(24) + "after\n"
    assert (seen.status, nothing_lost(rig.home, seen)) == ("ok", True)


async def test_a_cell_that_ended_while_no_daemon_ran_is_complete(rig: TunnelRig) -> None:
    path = write(rig.home.project / "away.ipynb", SLOWLY)
    members: dict[str, Any] = {"session": rig.session, "notebook": {"path": str(path)}}
    run = await in_thread(rig.home.start, "notebook", **members)
    await rig.until_text(run["id"], "5\n")
    await in_thread(rig.home.kill_daemon)
    await anyio.sleep(24 * 0.15 + 1)
    seen = await rig.follow(run["id"])
    assert printed(read(path)[0]) == numbered(24)
    assert nothing_lost(rig.home, seen)


async def test_the_first_output_after_a_restart_arrives(rig: TunnelRig) -> None:
    kernel = (await rig.view())["kernels"][0]["id"]
    for round_number in range(3):
        await in_thread(rig.home.client().post, f"/v1/kernels/{kernel}/restart")
        seen = await rig.code(f"print('round', {round_number})")
        assert seen.text() == f"round {round_number}\n"
    assert (await rig.view())["kernels"][0]["state"] == "idle"


async def test_a_kernel_that_dies_is_reported(rig: TunnelRig) -> None:
    seen = await rig.code("import os, time\nprint('last', flush=True)\ntime.sleep(0.5)\nos._exit(9)")
    assert seen.status == "lost"
    assert seen.text() == "last\n"
    assert (await rig.code("print('again')")).text() == "again\n"


async def test_a_request_larger_than_a_server_takes_is_executed(rig: TunnelRig) -> None:
    seen = await rig.code(f"text = '{'x' * 12 * 2**20}'\nprint(len(text))")
    assert seen.text() == f"{12 * 2**20}\n"


async def test_a_session_that_ends_takes_agent_and_doorman_with_it(shared_home: DaemonHome, rig: TunnelRig) -> None:
    view = await rig.view()
    assert view["transport"]["mode"] == "tunnel"
    assert len(view["kernels"]) == 1
    server = JupyterServer(rig.server.endpoint())
    assert len(await server.list_kernels()) == 2
    await in_thread(shared_home.client().delete, f"/v1/sessions/{rig.session}", timeout_s=40)
    assert await server.list_kernels() == []
    await server.aclose()
