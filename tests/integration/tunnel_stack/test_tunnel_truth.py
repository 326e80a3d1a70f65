"""What ``interrupt`` and ``restart`` say about kernels in the tunnel that do not listen, or are dead, is true."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deaf_cells import IN_C_CODE, STUBBORN
from tunnel_rig import TunnelRig, in_thread

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]


async def typed(rig: TunnelRig, *argv: str) -> str:
    """Type a command and return what it says; it must succeed, and soon."""
    program = "from colab_bridge.cli.main import main; main()"
    command = [sys.executable, "-c", program, *argv]
    done = await in_thread(
        subprocess.run, command, cwd=rig.home.project, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(done.stderr)


async def state(rig: TunnelRig) -> str:
    return str((await rig.view())["kernels"][0]["state"])


@pytest.mark.parametrize("code", [IN_C_CODE, STUBBORN], ids=["in C code", "swallows the interrupt"])
async def test_a_run_that_does_not_listen_is_said_to_go_on_and_a_restart_ends_it(rig: TunnelRig, code: str) -> None:
    run = await rig.start(code)
    await rig.until_text(run, "ready")
    said = await typed(rig, "interrupt", run)
    assert f"{run}: it was asked to stop and goes on" in said
    assert f"colab-bridge interrupt {run} --kill" in said
    assert await state(rig) == "busy"
    assert "the kernel is new" in await typed(rig, "restart", rig.session)
    assert (await rig.follow(run)).status == "lost"
    assert (await rig.code("print('code' in globals())")).text() == "False\n"
    assert "nothing runs there" in await typed(rig, "interrupt", rig.session)


async def test_after_a_death_a_restart_is_no_error_and_the_next_run_has_a_new_kernel(rig: TunnelRig) -> None:
    seen = await rig.code("import os; os._exit(1)")
    assert seen.status == "lost"
    assert "new" in await typed(rig, "restart", rig.session)
    assert (await rig.code("print('seen' in globals(), 'alive')")).text() == "False alive\n"
    assert "nothing runs there" in await typed(rig, "interrupt", rig.session)
