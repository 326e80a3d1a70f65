"""Which session a command means that names none."""

from __future__ import annotations

from typing import Any

from daemon_home import DaemonHome


def make(home: DaemonHome, **body: Any) -> dict[str, Any]:
    return home.client().post("/v1/sessions", {"project": str(home.project), **body})


def session_of_a_run(home: DaemonHome, **body: Any) -> str:
    request = {"kind": "code", "code": "1", "project": str(home.project), "cwd": str(home.project), **body}
    return str(home.client().post("/v1/runs", request)["session"])


def test_what_names_nothing_goes_to_the_session_that_was_asked_for_last(daemon_home: DaemonHome) -> None:
    plain = session_of_a_run(daemon_home)
    made = make(daemon_home, name="box", provider="local", options={"isolated": True}, choose=True)["name"]
    assert session_of_a_run(daemon_home) == made
    assert session_of_a_run(daemon_home, provider="local") == plain
    assert session_of_a_run(daemon_home, env={"COLAB_BRIDGE_PROVIDER": "local"}) == plain
    daemon_home.stop_daemon()
    assert session_of_a_run(daemon_home) == made
    daemon_home.client().delete(f"/v1/sessions/{made}")
    assert session_of_a_run(daemon_home) == plain


def test_a_session_that_a_run_made_by_itself_is_nobodys_choice(daemon_home: DaemonHome) -> None:
    isolated = session_of_a_run(daemon_home, provider="local", options={"isolated": True})
    assert session_of_a_run(daemon_home) != isolated


def test_a_session_that_a_program_made_for_itself_is_nobodys_choice_either(daemon_home: DaemonHome) -> None:
    made = make(daemon_home, name="box", provider="local", options={"isolated": True})["name"]
    assert session_of_a_run(daemon_home) != made
