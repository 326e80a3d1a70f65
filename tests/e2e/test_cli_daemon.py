"""The daemon from the outside: started once, killed at any moment, found again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from cli_support import Desk, desk_in, eventually

LINES = 30
COUNTING = f"import time\nfor n in range({LINES}):\n    print('line', n, flush=True)\n    time.sleep(0.1)"
EXPECTED = "".join(f"line {n}\n" for n in range(LINES))


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        yield made


def kill(pid: int | None) -> None:
    assert pid is not None
    psutil.Process(pid).kill()


def test_status_never_starts_it_and_start_and_stop_do_what_they_say(desk: Desk) -> None:
    assert desk.document("daemon", "status") == {"running": False, "pid": None}
    started = desk.document("daemon", "start")
    assert psutil.pid_exists(started["pid"])
    assert desk.document("daemon", "start")["pid"] == started["pid"]
    assert desk.daemon_pid() == started["pid"]
    assert desk.document("daemon", "stop") == {"running": False, "stopped": True}
    eventually(lambda: not psutil.pid_exists(started["pid"]), "the process has ended")
    assert desk.document("daemon", "stop") == {"running": False, "stopped": False}


def test_commands_at_the_same_moment_end_up_with_one_daemon(desk: Desk) -> None:
    processes = [desk.popen("daemon", "start", "--json") for _ in range(4)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, results
    assert len({line for out, _ in results for line in out.splitlines() if '"pid"' in line}) == 1


def test_the_daemon_is_no_descendant_of_the_command_that_started_it(desk: Desk) -> None:
    pid = desk.document("daemon", "start")["pid"]
    assert os.getpid() not in [parent.pid for parent in psutil.Process(pid).parents()]


def test_a_file_that_a_killed_daemon_left_is_no_obstacle(desk: Desk) -> None:
    first = desk.document("daemon", "start")["pid"]
    kill(first)
    eventually(lambda: not psutil.pid_exists(first) or psutil.Process(first).status() == "zombie", "it has ended")
    assert desk.daemon_pid() is None
    assert desk.out("exec", "1") == "1\n"


def test_a_daemon_that_is_killed_in_a_run_costs_no_line(desk: Desk) -> None:
    desk.out("exec", "1")
    process = desk.popen("exec", COUNTING)
    assert process.stdout is not None
    first = process.stdout.readline()
    kill(desk.daemon_pid())
    out, err = process.communicate(timeout=60)
    assert first + out == EXPECTED, err
    assert process.returncode == 0
    assert "the daemon went away and is back" in err


def test_a_command_line_that_is_killed_in_a_run_costs_no_line(desk: Desk) -> None:
    desk.out("exec", "1")
    process = desk.popen("exec", COUNTING)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=20)
    assert desk.out("attach") == EXPECTED


def test_a_daemon_that_is_stopped_on_purpose_stays_stopped(desk: Desk) -> None:
    desk.out("exec", "1")
    process = desk.popen("exec", "import time\nprint('on', flush=True)\ntime.sleep(20)\nprint('off')")
    assert process.stdout is not None
    process.stdout.readline()
    desk.out("daemon", "stop")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert err.splitlines()[-1].startswith("  Come back to it: colab-bridge attach run-")
    assert desk.daemon_pid() is None


def test_a_restart_of_the_daemon_in_a_run_is_survived(desk: Desk) -> None:
    desk.out("exec", "1")
    process = desk.popen("exec", COUNTING)
    assert process.stdout is not None
    first = process.stdout.readline()
    desk.out("daemon", "restart")
    out, err = process.communicate(timeout=60)
    assert first + out == EXPECTED, err


def test_a_port_that_is_taken_is_said(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = desk.refusal("daemon", "start", "--port", port)
    assert f"port {port} cannot be used" in said


@pytest.mark.skipif(sys.platform == "win32", reason="stopped processes are for POSIX")
def test_a_daemon_that_hangs_is_said_within_seconds(desk: Desk) -> None:
    pid = desk.document("daemon", "start")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        said = desk.refusal("exec", "1", status=75)
        assert time.monotonic() - begun < 10
        assert "daemon restart" in said
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_second_daemon_refuses_to_start(desk: Desk) -> None:
    desk.document("daemon", "start")
    done = subprocess.run(
        [sys.executable, "-m", "colab_bridge.daemon"],
        env=desk.environ,
        cwd=desk.project,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 73
    assert len(done.stderr.strip().splitlines()) <= 3
