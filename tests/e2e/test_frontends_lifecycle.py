"""Starts, restarts, deaths and disappearances, with real processes that are really killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from colab_bridge.errors import TransientError
from frontends_support import WAIT_S, Bridge, FrontEnd, bridge, eventually, start_front_end, text_of

__all__ = ["bridge", "start_front_end"]

Start = Callable[..., FrontEnd]
pytestmark = [
    pytest.mark.ecosystem,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals"),
]


def kernel_of(bridge: Bridge, front: FrontEnd) -> str:
    """Return the daemon's id of the kernel behind a front end."""
    name = os.path.basename(front.manager.connection_file)
    (found,) = [k["id"] for k in bridge.kernels() if os.path.basename(k["key"]) in (name, front_notebook(front))]
    return str(found)


def front_notebook(front: FrontEnd) -> str:
    return os.path.basename(getattr(front, "notebook", "") or "-")


def kill_front_end(front: FrontEnd) -> None:
    """Kill the proxy as ``kill -9`` does."""
    process = psutil.Process(front.pid)
    process.kill()
    eventually(lambda: not front.manager.is_alive(), "the proxy is dead")


def test_an_orderly_shutdown_removes_the_kernel_and_ends_with_0(bridge: Bridge, start_front_end: Start) -> None:
    front = start_front_end()
    kernel = kernel_of(bridge, front)
    process = front.manager.provisioner.process
    front.manager.shutdown_kernel()
    assert process.returncode == 0
    assert kernel not in bridge.kernel_ids()


def test_a_restart_clears_all_variables_and_leaves_no_second_kernel(bridge: Bridge, start_front_end: Start) -> None:
    front = start_front_end()
    front.run("x = 1")
    before = bridge.kernel_ids()
    front.manager.restart_kernel()
    front.client.wait_for_ready(timeout=30)
    assert text_of(front.run("print('x' in globals())")) == "False\n"
    after = bridge.kernel_ids()
    assert len(after) == len(before)
    assert after != before


def test_a_restart_while_a_cell_runs_does_not_wait_for_it(bridge: Bridge, start_front_end: Start) -> None:
    front = start_front_end()
    front.wait_until_busy(front.client.execute("while True: pass"))
    begun = time.monotonic()
    front.manager.restart_kernel()
    front.client.wait_for_ready(timeout=30)
    assert time.monotonic() - begun < 10
    assert text_of(front.run("print('new')")) == "new\n"


def test_an_idle_kernel_goes_within_two_seconds_after_its_front_end_was_killed(
    bridge: Bridge, start_front_end: Start
) -> None:
    front = start_front_end()
    kernel = kernel_of(bridge, front)
    kill_front_end(front)
    eventually(lambda: kernel not in bridge.kernel_ids(), "the kernel is removed", timeout_s=2)


def test_a_busy_kernel_whose_front_end_was_killed_finishes_its_work_first(
    bridge: Bridge, start_front_end: Start
) -> None:
    front = start_front_end()
    kernel = kernel_of(bridge, front)
    done = bridge.project / "done.txt"
    front.wait_until_busy(front.client.execute("import time; time.sleep(3); open('done.txt', 'w').write('x')"))
    kill_front_end(front)
    # 1 s is what an idle kernel would not have survived.
    time.sleep(1)
    assert kernel in bridge.kernel_ids()
    eventually(done.exists, "the cell has ended", timeout_s=5)
    eventually(lambda: kernel not in bridge.kernel_ids(), "the kernel is removed", timeout_s=3)


def test_the_next_start_of_the_same_notebook_gets_the_busy_kernel_back(bridge: Bridge, start_front_end: Start) -> None:
    env = {"JPY_SESSION_NAME": str(bridge.project / "long.ipynb")}
    first = start_front_end(env=env)
    first.notebook = "long.ipynb"  # type: ignore[attr-defined]
    kernel = kernel_of(bridge, first)
    first.wait_until_busy(first.client.execute("import time; time.sleep(9); kept = 'kept'"))
    kill_front_end(first)
    time.sleep(6)  # a start within five seconds would be the second half of a restart
    second = start_front_end(env=env)
    messages = second.run("print(kept)")
    assert text_of(messages) == "kept\n"
    assert "still at work from before" in text_of(messages, "stderr")
    assert kernel in bridge.kernel_ids()


@pytest.mark.parametrize("busy", [False, True])
def test_a_restart_in_the_way_of_vs_code_gives_a_fresh_kernel(
    bridge: Bridge, start_front_end: Start, busy: bool
) -> None:
    env = {"VSCODE_PID": str(os.getpid())}
    first = start_front_end(env=env)
    first.run("x = 1")
    kernel = kernel_of(bridge, first)
    if busy:
        first.wait_until_busy(first.client.execute("while True: pass"))
    process = psutil.Process(first.pid)
    assert process.children(recursive=True) == []
    # Without a shutdown_request, first what is below the process, then the process.
    process.send_signal(signal.SIGTERM)
    eventually(lambda: not first.manager.is_alive(), "the proxy has ended")
    second = start_front_end(env=env)
    assert text_of(second.run("print('x' in globals())")) == "False\n"
    eventually(lambda: kernel not in bridge.kernel_ids(), "the old kernel is removed", timeout_s=3)


def test_a_kernel_that_dies_ends_the_proxy_so_that_the_front_end_sees_it(
    bridge: Bridge, start_front_end: Start
) -> None:
    front = start_front_end()
    kernel = kernel_of(bridge, front)
    process = front.manager.provisioner.process
    front.client.execute("import os, time; print('last words', flush=True); time.sleep(0.5); os._exit(1)")
    front.published(lambda m: m["msg_type"] == "stream" and "last words" in m["content"]["text"])
    assert process.wait(WAIT_S) == 1
    eventually(lambda: kernel not in bridge.kernel_ids(), "the kernel is removed", timeout_s=3)
    front.manager.restart_kernel(now=True)
    front.client.wait_for_ready(timeout=30)
    assert text_of(front.run("print('again')")) == "again\n"


def test_a_kernel_that_somebody_else_removes_ends_the_proxy(bridge: Bridge, start_front_end: Start) -> None:
    front = start_front_end()
    process = front.manager.provisioner.process
    bridge.client().delete(f"/v1/kernels/{kernel_of(bridge, front)}")
    assert process.wait(WAIT_S) == 1


def test_the_last_front_end_leaves_no_kernel(bridge: Bridge, start_front_end: Start) -> None:
    start_front_end().close()
    eventually(lambda: not bridge.kernels(), "no kernel is left", timeout_s=5)


def line_numbers(text: str) -> list[int]:
    return [int(line) for line in text.split() if line.isdigit()]


def test_a_killed_daemon_in_the_middle_of_a_cell_costs_no_line_or_says_so(
    bridge: Bridge, start_front_end: Start
) -> None:
    front = start_front_end()
    msg_id = front.client.execute("import time\nfor n in range(60):\n    print(n, flush=True)\n    time.sleep(0.1)")
    front.published(lambda m: m["msg_type"] == "stream" and "10" in m["content"]["text"])
    old = bridge.daemon_pid
    os.kill(old, signal.SIGKILL)
    messages = front.outputs(msg_id, timeout_s=30)
    assert front.reply(msg_id)["content"]["status"] == "ok"
    numbers = line_numbers(text_of(front.seen))
    assert numbers == sorted(set(numbers)), "a line came twice or out of order"
    if "output may be missing" not in text_of(messages, "stderr"):
        assert numbers == list(range(60))
    assert bridge.daemon_pid != old
    assert text_of(front.run("print('after')")) == "after\n"


def test_a_request_made_while_there_is_no_daemon_is_carried_out_once(bridge: Bridge, start_front_end: Start) -> None:
    front = start_front_end()
    front.run("count = 0")
    os.kill(bridge.daemon_pid, signal.SIGKILL)
    assert text_of(front.run("count += 1; print(count)")) == "1\n"
    assert text_of(front.run("print(count)")) == "1\n"


def test_variables_survive_a_daemon_that_was_stopped_and_started(bridge: Bridge, start_front_end: Start) -> None:
    front = start_front_end()
    front.run("x = 41")
    old = bridge.daemon_pid
    bridge.client().post("/v1/shutdown")
    eventually(lambda: not psutil.pid_exists(old), "the daemon has ended")
    assert text_of(front.run("print(x + 1)")) == "42\n"


def test_a_stopped_daemon_is_not_started_again_by_an_idle_kernel(bridge: Bridge, start_front_end: Start) -> None:
    front = start_front_end()
    front.run("x = 1")
    old = bridge.daemon_pid
    bridge.client().post("/v1/shutdown")
    eventually(lambda: not psutil.pid_exists(old), "the daemon has ended")
    time.sleep(3)  # longer than any delay between two attempts
    with pytest.raises(TransientError, match="no daemon"):
        bridge.client()
    assert text_of(front.run("print(x)")) == "1\n"
