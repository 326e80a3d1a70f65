"""A shell, a port and SSH of an emulated T4, as a user gets them at a terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from cli_support import Desk, desk_in
from colab_bridge.testing.colab import EmulatorOptions
from colab_bridge.testing.colab.threaded import ThreadedEmulator, threaded_emulator

if sys.platform == "win32":
    pytest.skip("pseudo terminals are for POSIX", allow_module_level=True)

import pexpect

#: An SSH server of a machine needs the program, and root to log in as.
SSH = os.geteuid() == 0 and shutil.which("sshd", path="/usr/sbin:/usr/bin") is not None
START_S = 60.0

SERVE = """
import http.server, threading
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1])
"""


@pytest.fixture(scope="module")
def colab() -> Iterator[ThreadedEmulator]:
    with threaded_emulator(EmulatorOptions(ssh=SSH, token_ttl_s=20)) as found:
        yield found
        assert [str(violation) for violation in found.violations] == []


@pytest.fixture(scope="module")
def desk(colab: ThreadedEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A user whose project has a T4."""
    with desk_in(tmp_path_factory.mktemp("desk")) as found:
        found.environ |= colab.env()
        assert found.out("exec", "--gpu", "T4", "print('there')", timeout_s=START_S) == "there\n"
        yield found
    assert dict(colab.state.runtimes) == {}


def console(desk: Desk, *argv: str) -> Any:
    command, *rest = desk.argv("console", *argv)
    environ = desk.environ | {"SHELL": "/bin/sh", "PS1": "$ "}
    size = (30, 100)
    child = pexpect.spawn(
        command, rest, env=environ, cwd=str(desk.project), encoding="utf-8", timeout=30, dimensions=size
    )
    child.expect("Ctrl-]")
    return child


def ended(child: Any) -> int:
    child.expect(pexpect.EOF)
    child.close()
    return int(child.exitstatus)


def test_a_shell_is_on_the_machine_and_there_when_one_comes_back(desk: Desk) -> None:
    child = console(desk)
    child.sendline("V=kept; pwd; stty size")
    child.expect("/content/workspace\r")
    child.expect("30 100")
    child.setwinsize(20, 90)
    child.sendline("stty size")
    child.expect("20 90")
    child.send("\x1d")
    child.expect("goes on")
    assert ended(child) == 0
    child = console(desk)
    child.sendline("echo again-$V; exit 5")
    child.expect("again-kept")
    assert ended(child) == 5


def test_a_port_of_the_machine_answers_here_though_its_tokens_end(desk: Desk, colab: ThreadedEmulator) -> None:
    port = int(desk.out("exec", SERVE))
    process = desk.popen("port-forward", f"{port}:0", "--json")
    local = opened(process)
    assert fetch(local) == "hello from /x"
    colab.tokens.expire_all()
    assert fetch(local) == "hello from /x"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/x", timeout=20) as answer:
        return str(answer.read().decode())


def opened(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    document = ""
    while not document.endswith("\n}\n"):
        document += process.stdout.readline()
    return int(json.loads(document)["forwards"][0]["local_port"])


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
