"""A shell on the runtime and ports of it, as a user gets them at a terminal."""

from __future__ import annotations

import os
import signal
import sys
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest

from cli_support import Desk, desk_in, eventually

if sys.platform == "win32":
    pytest.skip("pseudo terminals are for POSIX", allow_module_level=True)

from terminal_support import SERVE, exit_status, fetch, forwarded_port, open_console


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        yield made


@pytest.fixture(scope="module")
def served(desk: Desk) -> int:
    """A port on which a small web server listens in the kernel."""
    return int(desk.out("exec", SERVE))


@pytest.fixture
def terminal(desk: Desk, served: int) -> Iterator[Any]:
    children: list[Any] = []

    def started(*argv: str) -> Any:
        children.append(open_console(desk, *argv))
        return children[-1]

    yield started
    for child in children:
        child.close(force=True)


def test_a_shell_runs_commands_in_a_terminal_of_the_same_size(terminal: Any) -> None:
    child = terminal()
    child.sendline("echo sum-$((40+2)); stty size")
    child.expect("sum-42")
    child.expect("30 100")
    child.sendline("exit 5")
    assert exit_status(child) == 5


def test_a_new_size_reaches_the_shell(terminal: Any) -> None:
    child = terminal("--name", "sized")
    child.sendline("echo ready-$((0+1))")
    child.expect("ready-1")
    child.setwinsize(20, 90)
    child.sendline("stty size")
    child.expect("20 90")
    child.sendline("exit")
    assert exit_status(child) == 0


def test_a_shell_that_was_left_is_there_when_one_comes_back(desk: Desk, terminal: Any) -> None:
    child = terminal("--name", "kept")
    child.sendline("V=value; echo set-$((0+1))")
    child.expect("set-1")
    child.send("\x1d")
    child.expect("goes on")
    assert exit_status(child) == 0
    assert [shell["name"] for shell in desk.document("console", "--list")["shells"]] == ["kept"]
    child = terminal("--name", "kept")
    child.expect("set-1")
    child.sendline("echo again-$V")
    child.expect("again-value")
    child.sendline("exit")
    assert exit_status(child) == 0


def test_a_killed_daemon_does_not_end_the_shell(desk: Desk, terminal: Any) -> None:
    child = terminal("--name", "survivor")
    child.sendline("V=alive; echo before-$((0+1))")
    child.expect("before-1")
    os.kill(int(desk.document("status")["daemon"]["pid"]), signal.SIGKILL)
    child.sendline("echo after-$V")
    child.expect("after-alive", timeout=60)
    child.sendline("exit")
    assert exit_status(child) == 0


def test_without_a_terminal_it_says_what_to_do_instead(desk: Desk, served: int) -> None:
    done = desk.run("console")
    assert done.returncode == 2
    assert "colab-bridge run -- COMMAND" in done.stderr


def test_a_forwarded_port_answers_until_ctrl_c(desk: Desk, served: int) -> None:
    process = desk.popen("port-forward", f"{served}:0", "--json")
    port = forwarded_port(process)
    assert fetch(port) == "hello from /x"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    with pytest.raises(urllib.error.URLError):
        fetch(port)


def test_a_forward_whose_command_was_killed_is_closed(desk: Desk, served: int) -> None:
    process = desk.popen("port-forward", f"{served}:0", "--json")
    port = forwarded_port(process)
    assert fetch(port) == "hello from /x"
    process.kill()
    process.wait(20)

    def closed() -> bool:
        try:
            fetch(port)
        except urllib.error.URLError:
            return True
        return False

    assert eventually(closed, "the port is closed")


def test_a_port_on_which_nothing_listens_is_said_at_once(desk: Desk, served: int) -> None:
    process = desk.popen("port-forward", "1:0")
    assert process.stderr is not None
    assert "nothing listens on port 1" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.parametrize("text", ["0", "x", "70000", "80:x", "80:70000", ":"])
def test_what_is_no_port_is_refused_at_once(desk: Desk, text: str) -> None:
    done = desk.run("port-forward", text)
    assert done.returncode == 2
    assert "6006:9000" in done.stderr
