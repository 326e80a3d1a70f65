"""A shell, a port and SSH of an emulated T4, as a user gets them at a terminal."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator

import pytest

from cli_support import Desk
from colab_bridge.testing.colab import EmulatorOptions
from colab_bridge.testing.colab.threaded import ThreadedEmulator
from colab_desk import desk_on, emulated

if sys.platform == "win32":
    pytest.skip("pseudo terminals are for POSIX", allow_module_level=True)

from terminal_support import SERVE, exit_status, fetch, forwarded_port, open_console

#: An SSH server of a machine needs the program, and root to log in as.
SSH = os.geteuid() == 0 and shutil.which("sshd", path="/usr/sbin:/usr/bin") is not None
START_S = 60.0


@pytest.fixture(scope="module")
def colab() -> Iterator[ThreadedEmulator]:
    with emulated(EmulatorOptions(ssh=SSH, token_ttl_s=20)) as found:
        yield found


@pytest.fixture(scope="module")
def desk(colab: ThreadedEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A user whose project has a T4."""
    with desk_on(colab, tmp_path_factory) as found:
        assert found.out("exec", "--gpu", "T4", "print('there')", timeout_s=START_S) == "there\n"
        yield found


def test_a_shell_is_on_the_machine_and_there_when_one_comes_back(desk: Desk) -> None:
    child = open_console(desk)
    child.sendline("V=kept; pwd; stty size")
    child.expect("/content/workspace\r")
    child.expect("30 100")
    child.setwinsize(20, 90)
    child.sendline("stty size")
    child.expect("20 90")
    child.send("\x1d")
    child.expect("goes on")
    assert exit_status(child) == 0
    child = open_console(desk)
    child.sendline("echo again-$V; exit 5")
    child.expect("again-kept")
    assert exit_status(child) == 5


def test_a_port_of_the_machine_answers_here_though_its_tokens_end(desk: Desk, colab: ThreadedEmulator) -> None:
    port = int(desk.out("exec", SERVE))
    process = desk.popen("port-forward", f"{port}:0", "--json")
    local = forwarded_port(process)
    assert fetch(local) == "hello from /x"
    colab.tokens.expire_all()
    assert fetch(local) == "hello from /x"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.skipif(SSH, reason="this machine has an SSH server for emulated machines; the next test uses it")
def test_ssh_without_a_server_on_the_machine_is_a_short_refusal(desk: Desk) -> None:
    desk.refusal("ssh", "--proxy-mode", timeout_s=START_S)


@pytest.mark.skipif(not SSH, reason="needs sshd and root for the SSH server of an emulated machine")
@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs an ssh client")
def test_a_command_runs_over_ssh_and_its_bytes_and_status_come_back(desk: Desk) -> None:
    done = desk.run("ssh", "ls -d /content; head -c 300000 /dev/zero | wc -c; exit 7", timeout_s=START_S)
    assert (done.returncode, done.stdout.split()) == (7, ["/content", "300000"]), done.stderr
    fed = desk.run("ssh", "wc -c", stdin="x" * 200_000, timeout_s=START_S)
    assert (fed.returncode, fed.stdout.strip()) == (0, "200000"), fed.stderr
