"""``colab-bridge emulator`` as other programs start and end it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

PROGRAM = [sys.executable, "-m", "colab_bridge", "emulator"]
WAIT_S = 60


@contextlib.contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    with subprocess.Popen([*PROGRAM, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            if process.poll() is None:
                process.kill()


def call(url: str, **headers: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=WAIT_S) as answer:
        return json.loads(answer.read().decode().removeprefix(")]}'\n"))


def assign(line: dict[str, Any]) -> str:
    """Make a runtime; return its endpoint."""
    headers = {"Authorization": f"Bearer {line['access_token']}", "X-Colab-Client-Agent": "t"}
    headers["Accept"] = "application/json"
    url = f"{line['COLAB_BRIDGE_COLAB_URL']}/tun/m/assign?nbh={'n' * 44}&authuser=0"
    token = call(url, **headers)["token"]
    request = urllib.request.Request(url, method="POST", headers={**headers, "X-Goog-Colab-Token": token})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=WAIT_S) as answer:
        return str(json.loads(answer.read().decode().removeprefix(")]}'\n"))["endpoint"])


def wait_for(happened: Callable[[], object]) -> None:
    """Wait until a process that says nothing about it has come to something."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_says_one_line_with_everything_that_a_client_needs(tmp_path: Path) -> None:
    port_file = tmp_path / "emulator.json"
    with started("--port-file", str(port_file), "--stdin-eof", "--tier", "free", "--token-ttl", "7") as (process, line):
        assert json.loads(port_file.read_text()) == line
        urls = {name: value for name, value in line.items() if name.startswith("COLAB_BRIDGE_")}
        assert len(urls) == 5
        assert line["env"] == {**urls, "COLAB_BRIDGE_ACCESS_TOKEN": line["access_token"]}
        assert line["pid"] == process.pid
        state = call(line["control_url"] + "/state")
        assert state["token_ttl_s"] == 7
        assert state["accounts"][0]["tier"] == "free"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(WAIT_S) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these signals to one process")
@pytest.mark.parametrize(("ends", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_and_all_of_its_machines(ends: signal.Signals, status: int) -> None:
    with started() as (process, line):
        endpoint = assign(line)
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        assert endpoint in str(call(line["control_url"] + "/state")["runtimes"])
        process.send_signal(ends)
        assert process.wait(WAIT_S) == status
        gone, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
        assert len(gone) == len(family)


def test_it_ends_quietly_in_the_middle_of_an_allocation() -> None:
    with subprocess.Popen(
        [*PROGRAM, "--stdin-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        line = json.loads(process.stdout.readline())
        with ThreadPoolExecutor(1) as pool:
            assigning = pool.submit(assign, line)
            watched = psutil.Process(process.pid)
            wait_for(watched.children)
            family = watched.children(recursive=True)
            process.stdin.close()
            assert isinstance(assigning.exception(WAIT_S), (http.client.RemoteDisconnected, ConnectionError))
        assert process.wait(WAIT_S) == 0
        assert process.stderr.read() == ""
        assert psutil.wait_procs(family, timeout=10)[1] == []


def test_it_ends_with_the_process_that_holds_its_stdin() -> None:
    with started("--stdin-eof") as (process, line):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(WAIT_S) == 0
        with pytest.raises(urllib.error.URLError):
            call(line["control_url"] + "/state")


def test_a_port_file_that_cannot_be_written_is_said_in_two_lines(tmp_path: Path) -> None:
    command = [*PROGRAM, "--port-file", str(tmp_path / "missing" / "file")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("option", [["--token-ttl", "0"], ["--tier", "gold"], ["--idle-timeout", "-1"]])
def test_a_wrong_option_is_a_usage_error(option: list[str]) -> None:
    ended = subprocess.run([*PROGRAM, *option], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
