"""Notices and schedules of a real daemon, which is killed in between."""

from __future__ import annotations

from typing import Any

from daemon_home import DaemonHome, eventually, kill
from notebook_files import write


def tell(home: DaemonHome, url: str) -> None:
    """Have every job announced at once, by webhook alone."""
    home.paths.user_config.parent.mkdir(parents=True, exist_ok=True)
    home.paths.user_config.write_text(f'[notify]\nafter_s = 0.0\ndesktop = false\nwebhook = "{url}"\n')
    home.paths.user_config.chmod(0o600)


def test_each_event_of_a_job_is_announced_once_across_killed_daemons(daemon_home: DaemonHome, receiver: Any) -> None:
    tell(daemon_home, receiver.url)
    asking = write(daemon_home.project / "ask.ipynb", "print('step 1')", "print('got', input('which? '))", "1 / 0")
    notebook = {"path": str(asking)}
    run = daemon_home.start("notebook", notebook=notebook, detached=True, allow_stdin=True)["id"]
    eventually(lambda: receiver.events(run) == ["input"], "the question is announced")
    daemon_home.kill_daemon()
    eventually(lambda: daemon_home.client().get(f"/v1/jobs/{run}")["waiting_for_input"], "the new daemon knows of it")
    daemon_home.client().post(f"/v1/runs/{run}/input", {"value": "a"})
    eventually(lambda: receiver.events(run) == ["input", "failed"], "the end is announced")
    daemon_home.kill_daemon()

    gone = daemon_home.start("code", code="import time; time.sleep(600)", detached=True)["id"]
    daemon_home.kill_daemon()
    kill(daemon_home_runtime(daemon_home))
    daemon_home.client().get("/v1/status")
    eventually(lambda: receiver.events(gone) == ["lost"], "the loss is announced")

    last = daemon_home.start("code", code="print('line one'); print('line two')", detached=True)["id"]
    eventually(lambda: receiver.events(last) == ["ended"], "the end of another one is announced")
    assert receiver.events(run) == ["input", "failed"]
    (failed,) = [document for document in receiver.got if document["run"] == run and document["event"] == "failed"]
    assert failed["text"].startswith("ask.ipynb has failed\nafter ")
    assert "ZeroDivisionError" in failed["text"]
    assert next(document["last_line"] for document in receiver.got if document["run"] == last) == "line two"
    assert "T0SECRET" not in daemon_home.daemon_log()


def daemon_home_runtime(home: DaemonHome) -> int:
    """Return the process of the local runtime, without starting a daemon."""
    from colab_bridge.store import Store

    store = Store.open(home.paths.database)
    try:
        (session,) = store.sessions()
        assert session.handle is not None
        return int(session.handle.label.rpartition(" ")[2])
    finally:
        store.close()


def test_a_schedule_of_a_second_starts_runs_one_after_the_other_also_after_a_kill(daemon_home: DaemonHome) -> None:
    marks = daemon_home.project / "marks.txt"
    program = (
        "import os, pathlib, time; m = pathlib.Path('marks.txt'); l = pathlib.Path('lock');"
        "os.close(os.open(l, os.O_CREAT | os.O_EXCL)); time.sleep(0.3); l.unlink(); m.open('a').write('x')"
    )
    request = daemon_home.request("module", module="runpy_mark")
    (daemon_home.project / "runpy_mark.py").write_text(program)
    made = daemon_home.client().post("/v1/schedules", {"rule": "every 1s", "request": request})
    assert (made["rule"], made["project"]) == ("every 1s", str(daemon_home.project))

    def count() -> int:
        return len(marks.read_text()) if marks.exists() else 0

    eventually(lambda: count() >= 2, "two runs have ended", 40)
    daemon_home.kill_daemon()
    before = count()
    daemon_home.client()
    eventually(lambda: count() >= before + 2, "runs go on after the kill", 40)
    daemon_home.client().delete(f"/v1/schedules/{made['id']}")
    jobs = daemon_home.client().get("/v1/jobs")["jobs"]
    eventually(
        lambda: all(job["status"] != "running" for job in daemon_home.client().get("/v1/jobs")["jobs"]),
        "all have ended",
    )
    jobs = daemon_home.client().get("/v1/jobs")["jobs"]
    # One that met another could not have made the lock. (Over a plain WebSocket, a kill may lose the reply of one; that
    # is declared, and its exit status is not known then. It has run once all the same.)
    assert "FileExistsError" not in "".join(str(daemon_home.record(job["id"]).events) for job in jobs)
    assert {job["schedule"] for job in jobs} == {made["id"]}
    assert len({job["id"] for job in jobs}) == len(jobs) == count()
    assert daemon_home.client().get("/v1/schedules")["schedules"] == []
