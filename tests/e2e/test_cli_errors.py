"""Bad input: one to three lines on stderr, the last one is the fix, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_support import Desk, desk_in


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        made.out("exec", "1")
        yield made


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


NOTEBOOKS = {
    "empty": "",
    "no-json": "{",
    "a-list": "[]",
    "no-cells": '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
    "format-3": json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": []}]}),
    "format-99": json.dumps({"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}),
    "binary": "\x00\x01",
}


@pytest.mark.parametrize("kind", sorted(NOTEBOOKS))
def test_a_damaged_notebook_is_refused_and_left_alone(desk: Desk, kind: str) -> None:
    path = desk.write(f"{kind}.ipynb", NOTEBOOKS[kind])
    before = path.read_bytes()
    said = desk.refusal("run", path.name, status=2)
    assert path.name in said
    assert path.read_bytes() == before


@pytest.mark.parametrize("target", ["missing.py", "missing.ipynb", "."])
def test_what_is_not_there_or_a_folder_is_named(desk: Desk, target: str) -> None:
    assert target.removesuffix("/") in desk.refusal("run", target, status=2)


def test_a_script_that_is_no_python_raises_like_python(desk: Desk) -> None:
    desk.write("broken.py", "def f(:\n")
    done = desk.run("run", "broken.py")
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr


def test_a_kernelspec_that_does_not_exist_is_named(desk: Desk) -> None:
    path = desk.notebook("spec.ipynb", "1")
    value = json.loads(path.read_text(encoding="utf-8"))
    value["metadata"]["kernelspec"] = {"name": "klingon-99", "display_name": "Klingon", "language": "klingon"}
    path.write_text(json.dumps(value), encoding="utf-8")
    assert "klingon" in desk.refusal("run", "spec.ipynb").lower()


def test_an_unknown_session_names_the_known_ones(desk: Desk) -> None:
    assert "colab-bridge new -s nowhere" in desk.refusal("exec", "-s", "nowhere", "1", status=2)


def test_an_unknown_runtime_names_the_known_ones(desk: Desk) -> None:
    assert "local" in desk.refusal("exec", "-r", "nowhere", "1", status=2)


def test_a_name_that_is_taken_is_said(desk: Desk) -> None:
    name = desk.document("sessions")["sessions"][0]["name"]
    assert name in desk.refusal("new", "-s", name, status=2)


@pytest.mark.parametrize("run", ["run-nope", "../../etc", "a b", "last?x=1"])
def test_an_unknown_run_is_said(desk: Desk, run: str) -> None:
    desk.refusal("logs", run)
    desk.refusal("attach", run)


def test_an_unreachable_server_is_said_within_seconds(desk: Desk, closed_port: int) -> None:
    begun = time.monotonic()
    said = desk.refusal("exec", "--url", f"http://127.0.0.1:{closed_port}/?token=s3cret-t0ken", "1")
    assert time.monotonic() - begun < 15
    assert str(closed_port) in said
    assert "s3cret" not in said


def test_a_server_without_tls_behind_an_https_address_is_said(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        process = desk.popen("exec", "--url", f"https://127.0.0.1:{listener.getsockname()[1]}/?token=x", "1")
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.0 400 this is not TLS\r\n\r\n")
        listener.close()
        _, err = process.communicate(timeout=30)
    assert process.returncode not in (0, 70)
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


def test_a_wrong_token_is_said_and_never_repeated(desk: Desk) -> None:
    server = next(process for process in _runtime_servers(desk))
    said = desk.refusal("exec", "--url", f"http://127.0.0.1:{server}/?token=wr0ng-t0ken", "1")
    assert "token" in said
    assert "wr0ng" not in said
    assert "wr0ng" not in (desk.home / "state" / "daemon.log").read_text(encoding="utf-8")


def _runtime_servers(desk: Desk) -> Iterator[int]:
    """Yield the ports of the local Jupyter servers that belong to this desk."""
    import psutil

    for process in psutil.Process(desk.daemon_pid()).children(recursive=True) + list(psutil.process_iter()):
        try:
            ours = process.environ().get("COLAB_BRIDGE_HOME") == str(desk.home)
            if ours and "local_server" in " ".join(process.cmdline()):
                for connection in process.net_connections(kind="tcp4"):
                    if connection.status == psutil.CONN_LISTEN:
                        yield connection.laddr.port
        except psutil.Error:
            continue


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://user:pw@host/", "http://host:99999/"])
def test_an_address_that_is_none_is_said(desk: Desk, url: str) -> None:
    assert "pw" not in desk.refusal("exec", "--url", url, "1", status=2)


def test_an_unknown_key_in_the_project_file_is_named(desk: Desk) -> None:
    path = desk.write("colab-bridge.toml", "frobnicate = 1\n")
    try:
        assert "frobnicate" in desk.refusal("exec", "1", status=2)
    finally:
        path.unlink()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_notebook_in_a_read_only_folder_is_said_before_anything_runs(desk: Desk) -> None:
    path = desk.notebook("locked/a.ipynb", "open('ran', 'w').close()")
    path.parent.chmod(0o500)
    try:
        assert "a.ipynb" in desk.refusal("run", str(path))
    finally:
        path.parent.chmod(0o700)


def test_a_full_disk_of_answers_to_stdout_is_no_crash(desk: Desk) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    import subprocess

    with open("/dev/full", "w") as full:
        done = subprocess.run(
            desk.argv("exec", "print('x' * 100)"),
            cwd=desk.project,
            env=desk.environ,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode not in (0, 70)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_a_home_that_cannot_be_made_is_said(desk: Desk) -> None:
    file = desk.write("a-file", "")
    assert str(file) in desk.refusal("exec", "1", COLAB_BRIDGE_HOME=str(file / "x"))


def test_nothing_ends_up_in_the_crash_logs(desk: Desk) -> None:
    assert list((desk.home / "state").glob("crash-*")) == []


def test_stop_all_asks_before_it_ends_anything(desk: Desk) -> None:
    assert "--yes" in desk.refusal("stop", "--all", status=2)
    assert desk.document("sessions")["sessions"]
