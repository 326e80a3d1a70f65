"""Work that goes on with nobody attached: started detached, left, found again, ended."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


def test_a_second_run_of_a_notebook_tells_how_far_it_is_and_how_long_it_takes(desk: Desk) -> None:
    waiting = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)"
    bar = "import sys\nsys.stderr.write('\\rfit:  25%|##   | 25/100 [00:10<00:30,  2.5it/s]')\nsys.stderr.flush()\n"
    desk.notebook("n.ipynb", "x = 1", bar + waiting)
    desk.write("go", "")
    ended(desk, start(desk, "n.ipynb"))
    (desk.project / "go").unlink()
    job = start(desk, "n.ipynb")
    eventually(lambda: status_of(desk, job)["progress"]["fraction"], "the bar is seen")
    progress = status_of(desk, job)["progress"]
    assert (progress["done"], progress["total"], progress["n"], progress["of"]) == (1, 2, 25, 100)
    assert (progress["label"], progress["rate"], progress["unit"]) == ("fit", 2.5, "it")
    assert 0 < progress["eta_s"] <= 30
    assert "cell 2 of 2, 25 % (25/100), about" in desk.out("job", "status", job)
    assert "25 % (25/100)" in desk.out("status")
    assert "25 % (25/100)" in desk.out("job", "list")
    desk.write("go", "")
    assert ended(desk, job)["progress"]["eta_s"] is None


def test_a_schedule_is_made_listed_and_removed_and_its_run_is_a_job(desk: Desk) -> None:
    desk.write("tick.py", "print('tick')")
    made = desk.run("run", "--every", "1d", "tick.py")
    schedule = made.stdout.strip()
    assert (made.returncode, schedule[:9]) == (0, "schedule-")
    assert f"schedule remove {schedule}" in made.stderr
    jobs = eventually(lambda: desk.document("job", "list")["jobs"], "its first run begins at once")
    assert [job["schedule"] for job in jobs] == [schedule]
    assert ended(desk, jobs[0]["id"])["status"] == "ok"
    assert desk.out("job", "logs") == "tick\n"
    (listed,) = desk.document("schedule", "list")["schedules"]
    assert (listed["id"], listed["rule"], listed["last_run"]) == (schedule, "every 1d", jobs[0]["id"])
    assert set(listed) == {
        "id", "project", "title", "rule", "next_at", "last_run", "last_due", "last_error", "created_at",
    }  # fmt: skip
    assert "tick.py" in desk.out("schedule", "list")
    assert desk.document("schedule", "remove", schedule) == {"removed": schedule}
    assert desk.document("schedule", "list") == {"schedules": []}
    desk.refusal("schedule", "remove", schedule, status=2)


@pytest.mark.parametrize(
    "argv",
    [
        ("run", "--every", "soon", "x.py"),
        ("run", "--cron", "every day", "x.py"),
        ("run", "--every", "1d", "--cron", "0 7 * * *", "x.py"),
        ("run", "-d", "missing.py"),
        ("job", "status", "run-unknown"),
        ("job", "logs"),
        ("job", "result", "run-unknown"),
        ("config", "set", "notify.webhook", "http://example.org/plain"),
        ("config", "set", "notify.when", "sometimes"),
    ],
)
def test_what_cannot_be_done_is_said_in_three_lines_at_most(quiet_desk: Desk, argv: tuple[str, ...]) -> None:
    said = quiet_desk.refusal(*argv, status=2)
    assert len(said.splitlines()) == 2


@pytest.fixture(scope="module")
def quiet_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("quiet")) as made:
        made.write("x.py", "")
        yield made


def test_a_run_that_is_watched_tells_of_its_end_when_it_is_asked_to(desk: Desk) -> None:
    got: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/hook/SECRET"
            for key, value in (("webhook", address), ("after_s", "0"), ("desktop", "false")):
                desk.out("config", "set", f"notify.{key}", value)
            assert "SECRET" not in desk.out("config", "list")
            desk.write("quiet.py", "print('quiet')")
            assert desk.out("run", "quiet.py") == "quiet\n"
            desk.write("loud.py", "print('loud')\nraise SystemExit(3)")
            assert desk.run("run", "--notify", "loud.py").returncode == 3
            eventually(lambda: got, "the notice is posted")
        finally:
            server.shutdown()
            serving.join()
    assert [(notice["event"], notice["exit_code"], notice["last_line"]) for notice in got] == [("failed", 3, "loud")]
