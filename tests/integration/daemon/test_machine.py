"""The machine of a session and the processes of a run, asked of the daemon."""

from __future__ import annotations

import sys

import pytest

from daemon_home import DaemonHome, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows processes as files")


# The pause lets the line out before the interpreter is held.
COMPUTING = "import time\nprint('up', flush=True)\ntime.sleep(0.5)\nsum(range(10**10))"


@pytest.fixture
def home(shared_home: DaemonHome) -> DaemonHome:
    return shared_home


def test_a_session_tells_how_its_machine_is(home: DaemonHome) -> None:
    session = home.code("1").of("started")[0]["run"]["session"]
    found = home.client().get(f"/v1/sessions/{session}/machine")["found"]
    assert found["machine"]["memory_total"] > found["machine"]["memory_used"] > 0
    shown = home.client().get("/v1/status", machines=1)["sessions"]
    assert [one["machine"]["machine"]["memory_total"] for one in shown if one["name"] == session] == [
        found["machine"]["memory_total"]
    ]


def test_status_looks_at_no_machine_unless_asked(home: DaemonHome) -> None:
    home.code("1")
    assert {one["machine"] for one in home.client().get("/v1/status")["sessions"]} == {None}


def test_a_run_that_waits_for_a_child_says_for_which(home: DaemonHome) -> None:
    run = home.start("code", code="import subprocess\nprint('up', flush=True)\nsubprocess.run(['sleep', '60'])")
    home.until_text(run["id"], "up")

    def waiting() -> str:
        found = home.client().get(f"/v1/runs/{run['id']}/process")["found"]
        return str(found["verdict"]["text"]) if found["verdict"]["code"] == "child" else ""

    assert "sleep" in eventually(waiting, "the kernel waits for its child")
    home.client().post(f"/v1/runs/{run['id']}/kill", {"restart": False})
    home.follow(run["id"])


def test_a_run_that_computes_in_native_code_is_said_to(home: DaemonHome) -> None:
    run = home.start("code", code=COMPUTING)
    home.until_text(run["id"], "up")
    what = "the kernel computes"
    eventually(
        lambda: home.client().get(f"/v1/runs/{run['id']}/process")["found"]["verdict"]["code"] == "computes", what
    )
    home.client().post(f"/v1/runs/{run['id']}/kill", {"restart": False})
    assert home.follow(run["id"]).status == "interrupted"
