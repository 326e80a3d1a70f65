"""Every way to lose output of a plain kernel WebSocket, against the tunnel: nothing lost, doubled or out of order."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from colab_bridge.testing.jupyter import start_jupyter_server
from daemon_home import DaemonHome
from tunnel_rig import TunnelRig, in_thread, nothing_lost, numbered, tunnel_session

LINES = 14
SLOWLY = f"import time\nfor n in range({LINES}):\n    print(n, flush=True)\n    time.sleep(0.25)"

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@pytest.mark.parametrize("how", ["reset", "close", "truncate"])
async def test_a_cut_in_the_middle_of_a_cell_loses_nothing(rig: TunnelRig, how: str) -> None:
    run = await rig.start(SLOWLY)
    await rig.until_text(run, "2\n")
    if how == "truncate":
        rig.relay.truncate_after(700)
    else:
        getattr(rig.relay, how)()
    seen = await rig.follow(run)
    assert seen.text() == numbered(LINES)
    assert (seen.status, nothing_lost(rig.home, seen)) == ("ok", True)


async def test_a_black_hole_in_the_middle_of_a_cell_loses_nothing(rig: TunnelRig) -> None:
    run = await rig.start(SLOWLY)
    await rig.until_text(run, "2\n")
    rig.relay.blackhole()
    await anyio.sleep(1.5)
    rig.relay.restore()
    seen = await rig.follow(run)
    assert seen.text() == numbered(LINES)
    assert (seen.status, nothing_lost(rig.home, seen)) == ("ok", True)


async def test_a_cell_that_ends_while_the_link_is_down_is_complete(rig: TunnelRig) -> None:
    run = await rig.start(SLOWLY)
    await rig.until_text(run, "2\n")
    rig.relay.blackhole(refuse_new=True)
    await anyio.sleep(LINES * 0.25)
    rig.relay.restore()
    seen = await rig.follow(run)
    assert seen.text() == numbered(LINES)
    assert (seen.status, nothing_lost(rig.home, seen)) == ("ok", True)


async def test_a_question_that_is_asked_while_the_link_is_down_is_answered(rig: TunnelRig) -> None:
    run = await rig.start(
        "import time\nprint('begun', flush=True)\ntime.sleep(1)\nprint('Hello', input('name? '))", allow_stdin=True
    )
    await rig.until_text(run, "begun\n")
    rig.relay.blackhole(refuse_new=True)
    await anyio.sleep(2)
    rig.relay.restore()

    def answer() -> None:
        with rig.home.client().stream("GET", f"/v1/runs/{run}/events", follow=1) as events:
            assert any(event["type"] == "input_request" for event in events)

    await in_thread(answer)
    rig.relay.reset()  # the answer is written into a dead socket
    await in_thread(rig.home.client().post, f"/v1/runs/{run}/input", {"value": "Ada", "eof": False})
    seen = await rig.follow(run)
    assert seen.text() == "begun\nHello Ada\n"


async def test_another_tools_connection_to_the_kernel_takes_nothing_away(rig: TunnelRig) -> None:
    async with rig.other_viewer():
        run = await rig.start(SLOWLY)
        await rig.until_text(run, "2\n")
        rig.relay.reset()
        seen = await rig.follow(run)
    assert seen.text() == numbered(LINES)
    assert nothing_lost(rig.home, seen)


async def test_five_thousand_lines_while_the_link_is_down_are_all_there(rig: TunnelRig) -> None:
    code = "import time\nprint('go', flush=True)\ntime.sleep(1)\nfor n in range(5000):\n    print(n, flush=True)"
    run = await rig.start(code)
    await rig.until_text(run, "go\n")
    rig.relay.blackhole()
    await anyio.sleep(3)
    rig.relay.restore()
    seen = await rig.follow(run)
    assert seen.text() == "go\n" + numbered(5000)
    assert nothing_lost(rig.home, seen)


async def test_eight_megabytes_while_the_link_is_down_are_all_there(rig: TunnelRig) -> None:
    code = (
        "import time\nprint('go', flush=True)\ntime.sleep(1)\n"
        "for n in range(80):\n    print(str(n % 10) * 100_000, flush=True)"
    )
    run = await rig.start(code)
    await rig.until_text(run, "go\n")
    rig.relay.blackhole()
    await anyio.sleep(3)
    rig.relay.restore()
    seen = await rig.follow(run)
    assert seen.text() == "go\n" + "".join(str(n % 10) * 100_000 + "\n" for n in range(80))
    assert nothing_lost(rig.home, seen)


async def test_a_request_that_is_sent_into_a_dead_socket_arrives_once(rig: TunnelRig) -> None:
    await rig.code("count = 0")
    rig.relay.blackhole()
    run = await rig.start("count += 1\nprint('count', count)")
    await anyio.sleep(2)
    rig.relay.restore()
    seen = await rig.follow(run)
    assert seen.text() == "count 1\n"
    assert (await rig.code("print(count)")).text() == "1\n"


async def test_a_server_that_keeps_nothing_for_us_loses_nothing(shared_home: DaemonHome, tmp_path: Path) -> None:
    async with (
        start_jupyter_server(tmp_path, MappingKernelManager__buffer_offline_messages=False) as server,
        tunnel_session(shared_home, server) as rig,
    ):
        run = await rig.start(SLOWLY)
        await rig.until_text(run, "2\n")
        rig.relay.reset()
        seen = await rig.follow(run)
        assert seen.text() == numbered(LINES)
        assert nothing_lost(shared_home, seen)
