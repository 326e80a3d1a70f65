"""The keys of every JSON answer: scripts rely on them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cli_support import Desk, desk_in

SESSION = {
    "name",
    "chosen_at",
    "project",
    "provider",
    "runtime",
    "default",
    "state",
    "label",
    "created_at",
    "isolated",
    "root",
    "url",
    "transport",
    "machine",
    "account",
    "kept",
    "kernels",
}
RUN = {
    "run",
    "session",
    "kind",
    "title",
    "status",
    "exit_code",
    "duration_s",
    "stdout",
    "stderr",
    "result",
    "error",
    "files",
    "notebook",
    "outputs",
    "output_may_be_lost",
}
LISTED_RUN = {
    "id",
    "session",
    "account",
    "kernel",
    "kind",
    "title",
    "status",
    "exit_code",
    "first_seq",
    "created_at",
    "finished_at",
    "output_may_be_lost",
    "progress",
    "units",
    "notebook",
    "detached",
}
DAEMON = {"running", "pid", "version", "uptime_s", "rss_bytes", "home", "notices", "port"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        made.out("exec", "1")
        yield made


def keys(value: Any) -> set[str]:
    assert isinstance(value, dict)
    return set(value)


def test_a_run_is_one_document(desk: Desk) -> None:
    done = desk.run("exec", "--json", "import sys; print('o'); print('e', file=sys.stderr); raise ValueError('v')")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr, keys(document)) == (1, "", RUN)
    assert (document["stdout"], document["stderr"], document["error"]["ename"]) == ("o\n", "e\n", "ValueError")


def test_status_names_daemon_sessions_and_runs(desk: Desk) -> None:
    document = desk.document("status")
    assert keys(document) == {"daemon", "sessions", "runs"}
    assert keys(document["sessions"][0]) == SESSION


def test_listings_hold_lists(desk: Desk) -> None:
    assert keys(desk.document("sessions")["sessions"][0]) == SESSION
    assert keys(desk.document("logs", "--list")["runs"][0]) == LISTED_RUN


def test_the_daemon_tells_its_process(desk: Desk) -> None:
    assert keys(desk.document("daemon", "status")) >= DAEMON
    assert keys(desk.document("daemon", "logs")) == {"path", "lines"}


def test_the_version_is_a_document_too(desk: Desk) -> None:
    assert keys(desk.document("version")) == {"version", "python"}


def test_kernelspecs_are_installed_listed_and_removed(desk: Desk) -> None:
    installed = desk.document("kernels", "install")["installed"]
    assert "colab-bridge-local" in [spec["name"] for spec in installed]
    listed = desk.document("kernels", "list")["kernelspecs"]
    assert keys(listed[0]) == {"name", "runtime", "display_name", "path"}
    assert desk.document("kernels", "remove")["removed"] == [spec["name"] for spec in listed]
    assert desk.document("kernels", "list")["kernelspecs"] == []


def test_interrupt_restart_and_stop_say_what_they_did(desk: Desk) -> None:
    desk.out("exec", "x = 1")
    assert desk.document("interrupt") == {"interrupted": [], "killed": False}
    assert len(desk.document("restart")["restarted"]) == 1
    assert desk.run("exec", "x").returncode == 1


def test_an_error_is_a_document_and_a_message(desk: Desk) -> None:
    done = desk.run("exec", "--json", "-s", "no-such-session", "1")
    problem = json.loads(done.stdout)["error"]
    assert {"title", "detail", "code", "hint", "status"} <= set(problem)
    assert done.returncode == 2
    assert "no-such-session" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="the tables are the same; one system is enough")
def test_tables_have_a_head_and_no_trailing_blanks(desk: Desk) -> None:
    for argv, first in ((("sessions",), "session"), (("logs", "--list"), "run")):
        lines = desk.out(*argv).splitlines()
        assert lines[0].startswith(first)
        assert all(line == line.rstrip() for line in lines)
