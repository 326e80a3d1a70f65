"""Whatever is killed in the middle of a cell: the record and the notebook hold every line once, in order.

The cells print a numbered line every 100 ms. An agent on this machine keeps what kernels say while no daemon runs, so
nothing is missing.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon_home import DaemonHome, Seen, eventually, kill
from notebook_files import code, errors, printed, read, write

LINES = 20
PRINTING = f"import time\nfor n in range({LINES}):\n    print('line', n, flush=True)\n    time.sleep(0.1)"
EVERY_LINE = "".join(f"line {n}\n" for n in range(LINES))


@pytest.fixture
def path(shared_home: DaemonHome, request: pytest.FixtureRequest) -> Path:
    """A notebook of this test alone in the project that they share; it has a kernel of its own."""
    return shared_home.project / f"{request.node.name}.ipynb"


def assert_nothing_lost(home: DaemonHome, run_id: str, seen: Seen) -> None:
    """Nothing is missing, and nothing is said to be."""
    assert seen.of("lost") == []
    assert home.view(run_id)["output_may_be_lost"] == ""


def test_a_killed_daemon_loses_no_line_of_the_cell_under_way(shared_home: DaemonHome, path: Path) -> None:
    write(path, "x = 1", PRINTING, "print('after', x)")
    run = shared_home.start_notebook(path)
    shared_home.until_text(run["id"], "line 9\n")
    shared_home.kill_daemon()
    seen = shared_home.follow(run["id"])
    _, second, third = read(path)
    assert printed(second) == EVERY_LINE
    assert printed(third) == "after 1\n"
    assert seen.text() == EVERY_LINE + "after 1\n"
    assert seen.status == "ok"
    assert_nothing_lost(shared_home, run["id"], seen)


def test_a_daemon_killed_twice_loses_no_line(shared_home: DaemonHome, path: Path) -> None:
    write(path, PRINTING)
    run = shared_home.start_notebook(path)
    for last in ("line 5\n", "line 12\n"):
        shared_home.until_text(run["id"], last)
        shared_home.kill_daemon()
    seen = shared_home.follow(run["id"])
    assert printed(read(path)[0]) == EVERY_LINE
    assert (seen.text(), seen.status) == (EVERY_LINE, "ok")
    assert_nothing_lost(shared_home, run["id"], seen)
    assert len(seen.of("cell_started")) == 1
    assert len(seen.of("cell_finished")) == 1


def test_a_daemon_that_is_away_while_the_cell_ends_still_brings_its_outputs(
    shared_home: DaemonHome, path: Path
) -> None:
    write(path, PRINTING, "print('next')")
    run = shared_home.start_notebook(path)
    shared_home.until_text(run["id"], "line 14\n")
    shared_home.kill_daemon()
    time.sleep(2)  # the cell ends now; the server keeps what it sends
    seen = shared_home.follow(run["id"])
    first, second = read(path)
    assert printed(first) == EVERY_LINE
    assert printed(second) == "next\n"
    assert seen.status == "ok"


def test_a_viewer_that_watches_sees_every_event_once_across_the_kill(shared_home: DaemonHome) -> None:
    shared_home.code("1")
    pid = shared_home.pid
    request = shared_home.request("code", code=PRINTING)
    run = shared_home.client().post("/v1/runs", request)
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.8; kill -9 {pid}"])
    seen = shared_home.follow(run["id"])
    killer.wait()
    numbered = [event["seq"] for event in seen.events if "seq" in event]
    assert numbered == sorted(set(numbered))
    assert seen.text() == EVERY_LINE
    assert any(event["state"] == "reconnecting" for event in seen.of("link"))


def test_a_copy_has_the_cells_before_the_kill_too(shared_home: DaemonHome, path: Path) -> None:
    write(path, "print('early')", PRINTING)
    target = path.with_name("out.ipynb")
    run = shared_home.start_notebook(path, output_path=str(target))
    shared_home.until_text(run["id"], "line 5\n")
    shared_home.kill_daemon()
    shared_home.follow(run["id"])
    early, late = read(target)
    assert (printed(early), printed(late)) == ("early\n", EVERY_LINE)
    assert [printed(cell) for cell in read(path)] == ["", ""]


def test_a_display_of_a_cell_before_the_kill_can_still_be_updated(shared_home: DaemonHome, path: Path) -> None:
    write(path, "h = display('old', display_id='d')", PRINTING, "h.update('new')")
    run = shared_home.start_notebook(path)
    shared_home.until_text(run["id"], "line 5\n")
    shared_home.kill_daemon()
    shared_home.follow(run["id"])
    first, second, _ = read(path)
    assert first["outputs"][0]["data"]["text/plain"] == "'new'"
    assert printed(second) == EVERY_LINE


def test_parameters_are_still_there_after_the_kill(shared_home: DaemonHome, path: Path) -> None:
    write(path, code("p = 1", "parameters"), PRINTING, "print(p)")
    run = shared_home.start_notebook(path, parameters={"p": 5})
    shared_home.until_text(run["id"], "line 5\n")
    shared_home.kill_daemon()
    shared_home.follow(run["id"])
    cells = read(path)
    assert [cell["source"] for cell in cells][1] == "# Parameters\np = 5"
    assert (printed(cells[2]), printed(cells[3])) == (EVERY_LINE, "5\n")


def test_a_cell_added_while_no_daemon_ran_does_not_move_the_outputs(shared_home: DaemonHome, path: Path) -> None:
    write(path, "print('early')", PRINTING, "print('late')")
    run = shared_home.start_notebook(path)
    shared_home.until_text(run["id"], "line 5\n")
    shared_home.kill_daemon()
    content = json.loads(path.read_bytes())
    content["cells"].insert(0, code("print('mine')", cell_id="mine"))
    path.write_text(json.dumps(content))
    shared_home.follow(run["id"])
    found = {cell["id"]: printed(cell) for cell in read(path)}
    assert found == {"mine": "", "c0": "early\n", "c1": EVERY_LINE, "c2": "late\n"}


def saving(home: DaemonHome, run_id: str, path: Path) -> bool:
    """Wait until a save is under way, and return False when the run has ended before that.

    There is a temporary file beside the notebook then, for some milliseconds.
    """
    looks = itertools.count(1)

    def seen() -> str:
        if list(path.parent.glob(f".{path.name}.*.tmp")):
            return "saving"
        return "ended" if next(looks) % 200 == 0 and home.view(run_id)["status"] != "running" else ""

    return eventually(seen, "a save", pause_s=0.0005) == "saving"


def kill_while_saving(home: DaemonHome, run_id: str, path: Path) -> None:
    """Kill three daemons within seconds, each in the middle of a save."""
    for _ in range(3):
        if not saving(home, run_id, path):
            return
        home.kill_daemon()
        read(path)
        home.client()


def test_daemons_killed_while_they_save_leave_a_sound_notebook(shared_home: DaemonHome, path: Path) -> None:
    big = "import time\nfor n in range(60):\n    print('line', n, 'x' * 400_000, flush=True)\n    time.sleep(0.1)"
    write(path, big)
    run = shared_home.start_notebook(path)
    kill_while_saving(shared_home, run["id"], path)
    seen = shared_home.follow(run["id"])
    (cell,) = read(path)
    assert [int(line.split()[1]) for line in printed(cell).splitlines()] == list(range(60))
    assert printed(cell) == shared_home.record(run["id"]).text()
    assert (seen.status, errors(cell)) == ("ok", [])
    assert_nothing_lost(shared_home, run["id"], seen)
    assert list(path.parent.glob(f".{path.name}.*.tmp")) == []


def test_daemons_killed_while_they_save_a_failed_cell_do_not_go_on_behind_it(
    shared_home: DaemonHome, path: Path
) -> None:
    write(path, "print('x' * 30_000_000)\n1/0", "open('went_on', 'w')")
    run = shared_home.start_notebook(path)
    kill_while_saving(shared_home, run["id"], path)
    seen = shared_home.follow(run["id"])
    assert seen.status == "error"
    assert errors(read(path)[0]) == ["ZeroDivisionError"]
    assert len(printed(read(path)[0])) == 30_000_001
    assert_nothing_lost(shared_home, run["id"], seen)
    assert not (shared_home.project / "went_on").exists()


def test_an_input_request_is_still_open_after_the_kill(shared_home: DaemonHome) -> None:
    request = shared_home.request("code", code="print('hello', input('who? '))", allow_stdin=True)
    run = shared_home.client().post("/v1/runs", request)
    eventually(lambda: shared_home.record(run["id"]).of("input_request"), "the question")
    shared_home.kill_daemon()
    shared_home.client().post(f"/v1/runs/{run['id']}/input", {"value": "Ada"})
    assert shared_home.follow(run["id"]).text() == "hello Ada\n"


def test_a_script_survives_the_kill_with_its_exit_code(shared_home: DaemonHome) -> None:
    source = PRINTING + "\nraise SystemExit(4)"
    run = shared_home.start("script", path=str(shared_home.project / "p.py"), source=source, argv=[])
    shared_home.until_text(run["id"], "line 5\n")
    shared_home.kill_daemon()
    seen = shared_home.follow(run["id"])
    assert (seen.text(), seen.finished["exit_code"]) == (EVERY_LINE, 4)


def test_variables_outlive_the_daemon(shared_home: DaemonHome) -> None:
    first = shared_home.code("kept = 3")
    shared_home.kill_daemon()
    seen = shared_home.code("print(kept)")
    assert (seen.text(), seen.kernel) == ("3\n", first.kernel)


def test_an_orderly_stop_of_the_daemon_is_no_worse(shared_home: DaemonHome, path: Path) -> None:
    write(path, PRINTING)
    run = shared_home.start_notebook(path)
    shared_home.until_text(run["id"], "line 5\n")
    shared_home.stop_daemon()
    seen = shared_home.follow(run["id"])
    assert printed(read(path)[0]) == EVERY_LINE
    assert (seen.text(), seen.status) == (EVERY_LINE, "ok")


def test_a_killed_viewer_changes_nothing_for_the_run(daemon_home: DaemonHome) -> None:
    path = write(daemon_home.project / "n.ipynb", PRINTING)
    viewer = subprocess.Popen(
        [sys.executable, "-m", "colab_bridge", "run", str(path)],
        cwd=daemon_home.project,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    assert viewer.stdout is not None
    try:
        eventually(lambda: path.stat().st_size > 700 and "line 3\\n" in path.read_text(), "lines in the file")
        viewer.send_signal(signal.SIGKILL)
    finally:
        viewer.kill()
        viewer.wait()
        viewer.stdout.close()
    (run,) = daemon_home.client().get("/v1/runs")["runs"]
    seen = daemon_home.follow(run["id"])
    assert printed(read(path)[0]) == EVERY_LINE
    assert (seen.text(), seen.status, daemon_home.view(run["id"])["output_may_be_lost"]) == (EVERY_LINE, "ok", "")


def test_a_killed_runtime_ends_the_run_as_lost_with_its_outputs_in_the_notebook(daemon_home: DaemonHome) -> None:
    path = write(daemon_home.project / "n.ipynb", "print('early')", PRINTING, "print('never')")
    run = daemon_home.start_notebook(path)
    daemon_home.until_text(run["id"], "line 9\n")
    started = time.monotonic()
    kill(daemon_home.runtime_pid())
    seen = daemon_home.follow(run["id"])
    assert time.monotonic() - started < 15
    early, cell, never = read(path)
    assert (seen.status, seen.finished["exit_code"]) == ("lost", 69)
    assert printed(early) == "early\n"
    assert EVERY_LINE.startswith(printed(cell))
    assert "line 9\n" in printed(cell)
    assert never["outputs"] == []
    assert daemon_home.view(run["id"])["output_may_be_lost"]


def test_after_the_runtime_was_killed_the_next_run_gets_a_new_one_and_says_so(daemon_home: DaemonHome) -> None:
    daemon_home.code("gone = 1")
    kill(daemon_home.runtime_pid())
    assert daemon_home.code("print('gone' in globals())").text() == "False\n"
    notices = daemon_home.client().get("/v1/status")["daemon"]["notices"]
    assert any("started anew" in notice for notice in notices)


def test_daemon_and_runtime_killed_together_leave_what_was_recorded_in_the_notebook(daemon_home: DaemonHome) -> None:
    path = write(daemon_home.project / "n.ipynb", PRINTING)
    run = daemon_home.start_notebook(path)
    daemon_home.until_text(run["id"], "line 9\n")
    runtime = daemon_home.runtime_pid()
    daemon_home.kill_daemon()
    kill(runtime)
    daemon_home.client()
    ended = eventually(lambda: (run_now := daemon_home.view(run["id"]))["status"] != "running" and run_now, "its end")
    assert (ended["status"], ended["exit_code"]) == ("lost", 69)
    assert ended["output_may_be_lost"]
    assert "line 9\n" in printed(read(path)[0])
    assert EVERY_LINE.startswith(printed(read(path)[0]))


def test_a_killed_kernel_ends_the_run_as_lost(shared_home: DaemonHome, path: Path) -> None:
    write(path, "import os\nprint('pid', os.getpid(), flush=True)\n" + PRINTING)
    run = shared_home.start_notebook(path)
    shared_home.until_text(run["id"], "line 5\n")
    pid = int(shared_home.record(run["id"]).text().split()[1])
    os.kill(pid, signal.SIGKILL)
    seen = shared_home.follow(run["id"])
    assert seen.status == "lost"
    assert errors(read(path)[0]) == []
    assert "line 5\n" in printed(read(path)[0])


def test_a_kernel_that_was_killed_while_nothing_ran_is_replaced_with_a_word(shared_home: DaemonHome) -> None:
    seen = shared_home.code("import os; print(os.getpid())")
    kill(int(seen.text()))
    gone = seen.kernel

    def is_dead() -> bool:
        found = shared_home.client().get("/v1/kernels")["kernels"]
        return all(kernel["state"] == "dead" for kernel in found if kernel["id"] == gone)

    eventually(is_dead, "its death is noticed")
    seen = shared_home.code("print('os' in globals())")
    assert seen.text() == "False\n"
    assert "the kernel had ended" in seen.notices
    assert "without its variables" in seen.notices
    assert shared_home.code("1").notices == ""


def test_a_kernel_that_ended_while_no_daemon_ran_is_replaced_with_a_word(daemon_home: DaemonHome) -> None:
    pid = int(daemon_home.code("import os; print(os.getpid())").text())
    daemon_home.kill_daemon()
    kill(pid)

    def state() -> str:
        return str(daemon_home.client().get("/v1/kernels")["kernels"][0]["state"])

    # Before anybody has seen the death, a request goes to the dead kernel and ends with the word of it.
    eventually(lambda: state() == "dead", "the death of the kernel is known")
    seen = daemon_home.code("print('os' in globals())")
    assert seen.text() == "False\n"
    assert "without its variables" in seen.notices


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP is POSIX")
def test_a_daemon_stopped_and_continued_loses_nothing(shared_home: DaemonHome, path: Path) -> None:
    write(path, PRINTING)
    run = shared_home.start_notebook(path)
    shared_home.until_text(run["id"], "line 5\n")
    pid = shared_home.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(1.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    seen = shared_home.follow(run["id"])
    assert (seen.text(), printed(read(path)[0])) == (EVERY_LINE, EVERY_LINE)
    assert shared_home.view(run["id"])["output_may_be_lost"] == ""
