"""What commands say about accounts, machines and what they cost, on emulated machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_support import Desk, eventually
from colab_bridge.testing.colab import Fault
from colab_bridge.testing.colab.threaded import ThreadedEmulator
from colab_browser import opened_in_a_browser
from colab_desk import desk_on

LINE = "account dev@example.com"
START_S = 90.0


@pytest.fixture(scope="module")
def desk(colab: ThreadedEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A user who holds a T4 already."""
    with desk_on(colab, tmp_path_factory) as found:
        made = found.run("new", "--gpu", "T4", timeout_s=START_S)
        assert made.returncode == 0, made.stderr
        assert made.stderr.splitlines().count(LINE) == 1
        yield found


@pytest.mark.parametrize(
    "command",
    [
        ("exec", "1 + 1"),
        ("run", "--", "true"),
        ("run", "-d", "--", "true"),
        ("run", "notes.ipynb"),
        ("run", "--cron", "0 7 * * 1", "notes.ipynb"),
        ("deploy", "notes.ipynb"),
    ],
    ids=" ".join,
)
def test_a_command_that_spends_says_once_from_which_account(desk: Desk, command: tuple[str, ...]) -> None:
    desk.notebook("notes.ipynb", "print(1)")
    done = desk.run(*command, timeout_s=START_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines().count(LINE) == 1
    assert LINE not in done.stdout


def test_a_command_that_prints_json_names_the_account_in_it_alone(desk: Desk) -> None:
    done = desk.run("run", "-d", "--json", "--", "true", timeout_s=START_S)
    assert LINE not in done.stderr
    assert '"account": "dev@example.com"' in done.stdout


def test_an_adopted_runtime_comes_with_its_account(desk: Desk, colab: ThreadedEmulator) -> None:
    endpoint = opened_in_a_browser(colab, "dev@example.com")
    done = desk.run("adopt", endpoint, "-s", "theirs", timeout_s=START_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines().count(LINE) == 1
    desk.out("stop", "theirs", timeout_s=START_S)
    desk.out("new", "--gpu", "T4", timeout_s=START_S)  # what asks for nothing uses the T4 again


def test_a_command_on_the_local_runtime_names_no_account(desk: Desk) -> None:
    done = desk.run("exec", "--runtime", "local", "1 + 1", timeout_s=START_S)
    assert done.returncode == 0, done.stderr
    assert "account" not in done.stderr


@pytest.fixture
def notices(desk: Desk, tmp_path: Path) -> Iterator[Path]:
    """Have notices announced at once; return the file into which a desktop of its own writes them."""
    shown, tools = tmp_path / "shown", tmp_path / "tools"
    tools.mkdir()
    tool = tools / "notify-send"
    tool.write_text(f'#!/bin/sh\nshift 2\nprintf "%s\\n" "$@" >> {shown}\n')
    tool.chmod(0o755)
    before = desk.environ["PATH"]
    desk.environ["PATH"] = f"{tools}{os.pathsep}{before}"
    desk.out("config", "set", "notify.after_s", "0")
    desk.out("daemon", "stop")  # the next one finds the tool
    yield shown
    desk.environ["PATH"] = before
    desk.out("config", "unset", "notify.after_s")


@pytest.mark.skipif(sys.platform != "linux", reason="notify-send is Linux's")
def test_a_wait_for_a_machine_that_ends_is_told_on_the_desktop(
    desk: Desk, colab: ThreadedEmulator, notices: Path
) -> None:
    colab.state.capacity["L4"] = 0
    said = desk.refusal("new", "-s", "never", "--gpu", "L4", "--wait", "0.1s", timeout_s=START_S)
    assert "no such machine free" in said
    eventually(lambda: "no machine for never" in notices.read_text(), "the end of the wait is told")
    waiting = desk.popen("new", "-s", "patient", "--gpu", "L4", "--wait", "2h")
    assert waiting.stderr is not None
    next(line for line in waiting.stderr if "again in" in line)
    del colab.state.capacity["L4"]
    assert waiting.wait(START_S) == 0
    eventually(lambda: "patient has its machine" in notices.read_text(), "the machine is told")
    assert "Colab L4, high memory" in notices.read_text()
    desk.out("stop", "patient", timeout_s=START_S)


def test_a_budget_that_nobody_can_keep_buys_nothing(desk: Desk, colab: ThreadedEmulator) -> None:
    colab.faults.add(Fault(kind="status", service="colab", path="/tun/m/ccu-info", status=500, count=None))
    try:
        before = set(colab.state.runtimes)
        said = desk.refusal("run", "--gpu", "L4", "--budget", "5", "--", "true", timeout_s=START_S)
        assert "a budget of 5 compute units cannot be kept" in said
        assert said.splitlines()[-1].endswith("add --no-budget")
        assert set(colab.state.runtimes) == before
        done = desk.run("run", "--gpu", "L4", "--no-budget", "--", "true", timeout_s=START_S)
        assert done.returncode == 0, done.stderr
    finally:
        colab.faults.clear()
