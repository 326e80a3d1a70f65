"""Work that goes on with nobody attached: started detached, left, found again, ended."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli_support import WAIT_S, Desk, desk_in, eventually

FOREVER = "import time\nprint('begun', flush=True)\nwhile True:\n    time.sleep(0.1)\n"
STUBBORN = (
    "import time\nprint('begun', flush=True)\n"
    "while True:\n    try:\n        time.sleep(0.1)\n    except KeyboardInterrupt:\n        print('no', flush=True)\n"
)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_in(tmp_path) as made:
        yield made


def start(desk: Desk, *argv: str) -> str:
    """Start a job and return what scripts get: the id, alone on stdout."""
    done = desk.run("run", "-d", *argv)
    assert done.returncode == 0, done.stderr
    assert f"job attach {done.stdout.strip()}" in done.stderr
    return done.stdout.strip()


def status_of(desk: Desk, job: str) -> dict[str, Any]:
    found: dict[str, Any] = desk.document("job", "status", job)["job"]
    return found


def ended(desk: Desk, job: str) -> dict[str, Any]:
    eventually(lambda: status_of(desk, job)["status"] not in ("queued", "running"), f"{job} has ended", 2 * WAIT_S)
    return status_of(desk, job)


def test_a_detached_notebook_is_completed_across_a_killed_daemon(desk: Desk) -> None:
    counting = "import time\nfor n in range(15):\n    print('line', n, flush=True)\n    time.sleep(0.1)"
    path = desk.notebook("n.ipynb", "x = 1", counting, "print('after', x)\nopen('made.txt', 'w').close()")
    job = start(desk, "n.ipynb")
    eventually(lambda: "line 3\n" in desk.out("job", "logs", job), "the second cell prints")
    pid = desk.daemon_pid()
    assert pid is not None
    psutil.Process(pid).kill()
    # Any command brings the daemon back, and with it the job: the cells that were not sent yet follow.
    assert ended(desk, job)["status"] == "ok"
    text = desk.out("job", "logs", job)
    assert text == "".join(f"line {n}\n" for n in range(15)) + "after 1\n"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert "".join(cells[1]["outputs"][0]["text"]) + "".join(cells[2]["outputs"][0]["text"]) == text
    result = desk.document("job", "result", job)["result"]
    assert (result["status"], result["exit_code"]) == ("ok", 0)
    assert str(path) in result["outputs"]


def test_two_jobs_run_at_the_same_time_and_each_has_its_own_result(desk: Desk) -> None:
    # Each waits for the file that the other one makes, so neither ends unless both run.
    source = (
        "import pathlib, sys, time\nmine, other = sys.argv[1:]\npathlib.Path(mine).touch()\n"
        "while not pathlib.Path(other).exists():\n    time.sleep(0.02)\nprint('met', other)\nsys.exit(int(mine[0]))\n"
    )
    desk.write("meet.py", source)
    three, four = start(desk, "meet.py", "3.txt", "4.txt"), start(desk, "meet.py", "4.txt", "3.txt")
    assert (ended(desk, three)["exit_code"], ended(desk, four)["exit_code"]) == (3, 4)
    assert desk.out("job", "logs", three) == "met 4.txt\n"
    assert desk.run("job", "result", four).returncode == 4
    listed = desk.document("job", "list")["jobs"]
    assert {one["id"] for one in listed} == {three, four}


def test_a_cancelled_job_ends_with_its_kernel_even_if_it_ignores_the_interrupt(desk: Desk) -> None:
    desk.write("forever.py", FOREVER)
    desk.write("stubborn.py", STUBBORN)
    plain, stubborn = start(desk, "forever.py"), start(desk, "stubborn.py")
    for job in (plain, stubborn):
        eventually(lambda job=job: "begun" in desk.out("job", "logs", job), "it prints")
    assert desk.document("job", "cancel", plain)["how"] == "interrupted"
    assert desk.document("job", "cancel", stubborn, "--grace", "0.5")["how"] == "killed"
    assert [status_of(desk, job)["exit_code"] for job in (plain, stubborn)] == [130, 130]
    assert [kernel for session in desk.document("sessions")["sessions"] for kernel in session["kernels"]] == []
    desk.refusal("job", "cancel", plain, status=73)


def test_ctrl_c_on_an_attached_job_leaves_it_running_and_says_so(desk: Desk) -> None:
    desk.write("forever.py", FOREVER)
    job = start(desk, "forever.py")
    attached = desk.popen("job", "attach", job)
    assert attached.stdout is not None
    assert attached.stdout.readline() == "begun\n"
    attached.send_signal(signal.SIGINT)
    _, said = attached.communicate(timeout=WAIT_S)
    assert attached.returncode == 130
    assert f"{job} still runs" in said
    assert status_of(desk, job)["status"] == "running"
    desk.refusal("job", "result", job, status=73)
    desk.out("job", "cancel", job)


def test_a_job_that_asks_is_answered_by_whoever_attaches(desk: Desk) -> None:
    desk.write("ask.py", "print('hello', input('name? '))")
    job = start(desk, "ask.py")
    eventually(lambda: status_of(desk, job)["waiting_for_input"], "it asks")
    done = desk.run("job", "attach", job, stdin="Ada\n")
    assert (done.returncode, done.stdout) == (0, "hello Ada\n")
    assert status_of(desk, job)["waiting_for_input"] is False
