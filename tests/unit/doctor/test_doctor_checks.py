"""What the doctor finds, on this machine and on broken ones."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from colab_bridge.cli import doctor_checks as checks
from colab_bridge.cli.commands.doctor import examine, next_step, run_all
from colab_bridge.cli.doctor_checks import Check, Machine, Status
from colab_bridge.cli.doctor_network import check_proxy, check_runtime
from colab_bridge.config.paths import Paths
from colab_bridge.config.settings import load_settings


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    paths = Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path / "home")})
    return Machine(paths=paths, project=tmp_path / "project", environ={}, version="1.2.3")


def with_settings(machine: Machine, text: str) -> Machine:
    machine.paths.ensure()
    machine.paths.user_config.write_text(text)
    machine.paths.user_config.chmod(0o600)
    return replace(machine, resolved=load_settings(machine.paths, machine.project, machine.environ))


def only(found: list[Check]) -> Check:
    assert len(found) == 1, found
    return found[0]


# -- folders, disk, settings -------------------------------------------------------------------------------


def test_folders_that_work_are_ok(machine: Machine) -> None:
    assert only(checks.check_folders(machine)).status is Status.OK


def test_a_folder_that_cannot_be_made_fails_with_its_fix(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = only(
        checks.check_folders(replace(machine, paths=Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path / "file")})))
    )
    assert found.status is Status.FAIL
    assert "COLAB_BRIDGE_HOME" in found.fix


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="mode bits do not stop root, and are POSIX")
def test_a_folder_that_cannot_be_written_fails(machine: Machine) -> None:
    machine.paths.ensure()
    machine.paths.cache_dir.chmod(0o500)
    assert only(checks.check_folders(machine)).status is Status.FAIL


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("free_mib", "status"), [(5000, Status.OK), (500, Status.WARN), (50, Status.FAIL)])
def test_a_disk_is_judged_by_its_free_space(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, free_mib: int, status: Status
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(1 << 40, 0, free_mib << 20))
    assert only(checks.check_disk(machine)).status is status


def test_a_broken_settings_file_fails_with_file_and_line(machine: Machine) -> None:
    machine.paths.ensure()
    machine.paths.user_config.write_text("port = 1\nport = \n")
    resolved, found = checks.check_config(machine)
    assert resolved is None
    assert "line 2" in only(found).text
    assert only(found).fix


def test_settings_in_two_project_files_are_reported(machine: Machine) -> None:
    (machine.project / "pyproject.toml").write_text("[tool.colab-bridge]\nport = 1\n")
    (machine.project / "colab-bridge.toml").write_text("port = 2\n")
    _, found = checks.check_config(machine)
    assert only(found).status is Status.WARN
    assert "is not read" in only(found).text


def test_a_default_runtime_that_is_not_configured_fails(machine: Machine) -> None:
    (machine.project / "colab-bridge.toml").write_text("runtime = 'gpu'\n")
    _, found = checks.check_config(machine)
    assert only(found).status is Status.FAIL
    assert only(found).fix == "colab-bridge config add-runtime gpu --url URL"


# -- processes ---------------------------------------------------------------------------------------------


def test_the_packages_of_this_environment_load(machine: Machine) -> None:
    assert only(checks.check_packages(machine)).status is Status.OK


def test_a_package_that_does_not_load_is_named(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "uvicorn.py").write_text("raise ImportError('built for another platform')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    found = only(checks.check_packages(machine))
    assert found.status is Status.FAIL
    assert "uvicorn" in found.text
    assert "another platform" in found.text


def test_a_project_environment_without_ipykernel_is_reported_with_the_command(machine: Machine) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(machine.project / ".venv")], check=True, timeout=60
    )
    found = only(checks.check_interpreter(machine))
    assert found.status is Status.WARN
    assert found.fix.endswith("-m pip install ipykernel")


def test_a_configured_interpreter_without_ipykernel_fails(machine: Machine, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True, timeout=60)
    python = tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    found = only(checks.check_interpreter(with_settings(machine, f"local.python = '{python}'\n")))
    assert found.status is Status.FAIL
    assert "pip install ipykernel" in found.fix


def test_an_active_environment_is_taken_into_account(machine: Machine, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True, timeout=60)
    found = only(checks.check_interpreter(replace(machine, environ={"VIRTUAL_ENV": str(tmp_path / "bare")})))
    assert found.status is Status.WARN


def test_this_interpreter_can_run_kernels(machine: Machine) -> None:
    assert only(checks.check_interpreter(machine)).status is Status.OK


def test_no_daemon_is_no_fault(machine: Machine) -> None:
    found = only(checks.check_daemon(machine))
    assert (found.status, found.fix) == (Status.OK, "")


def test_a_daemon_of_another_version_is_reported(machine: Machine, serve: Serve) -> None:
    server = serve({"/v1/status": (200, {"daemon": {"version": "9.9.9", "notices": [{"text": "state was damaged"}]}})})
    machine.paths.ensure()
    address = {"schema": 1, "pid": 1, "create_time": 1.0, "port": server.port, "token": "t", "version": "9.9.9"}
    machine.paths.daemon_file.write_text(json.dumps(address))
    found = checks.check_daemon(machine)
    assert [check.status for check in found] == [Status.WARN, Status.WARN]
    assert "9.9.9" in found[0].text
    assert found[0].fix == "colab-bridge daemon restart"
    assert found[1].text == "state was damaged"


def test_a_daemon_that_does_not_answer_fails_in_time(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        machine.paths.ensure()
        address = {"schema": 1, "pid": 1, "create_time": 1.0, "port": silent.getsockname()[1], "token": "t"}
        machine.paths.daemon_file.write_text(json.dumps(address))
        begun = time.monotonic()
        found = only(checks.check_daemon(machine))
    assert found.status is Status.FAIL
    assert time.monotonic() - begun < 6


def test_a_daemon_port_that_is_taken_fails(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = checks.check_daemon(with_settings(machine, f"port = {taken.getsockname()[1]}\n"))
    assert [check.status for check in found] == [Status.OK, Status.FAIL]
    assert found[1].fix == "colab-bridge config set port 0"


def test_this_machine_can_talk_to_itself(machine: Machine) -> None:
    assert only(checks.check_loopback(machine)).status is Status.OK


# -- kernelspecs -------------------------------------------------------------------------------------------


def install_kernelspec(tmp_path: Path, name: str, program: str) -> None:
    folder = tmp_path / "jupyter" / "kernels" / name
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": [program, "-f", "{connection_file}"]}))


def test_kernelspecs_that_are_missing_are_one_command_away(machine: Machine) -> None:
    found = only(checks.check_kernelspecs(machine))
    assert (found.status, found.fix) == (Status.WARN, "colab-bridge kernels install")


def test_installed_kernelspecs_are_ok(machine: Machine, tmp_path: Path) -> None:
    install_kernelspec(tmp_path, "colab-bridge-local", sys.executable)
    assert only(checks.check_kernelspecs(machine)).status is Status.OK


def test_a_kernelspec_whose_program_has_gone_is_reported(machine: Machine, tmp_path: Path) -> None:
    install_kernelspec(tmp_path, "colab-bridge-local", str(tmp_path / "deleted" / "python"))
    found = only(checks.check_kernelspecs(machine))
    assert found.status is Status.WARN
    assert "not there any more" in found.text


def test_a_damaged_kernelspec_counts_as_missing(machine: Machine, tmp_path: Path) -> None:
    install_kernelspec(tmp_path, "colab-bridge-local", sys.executable)
    (tmp_path / "jupyter" / "kernels" / "colab-bridge-local" / "kernel.json").write_text("{")
    assert only(checks.check_kernelspecs(machine)).fix == "colab-bridge kernels install"


def test_a_runtime_without_its_kernelspec_is_named(machine: Machine, tmp_path: Path) -> None:
    install_kernelspec(tmp_path, "colab-bridge-local", sys.executable)
    found = only(checks.check_kernelspecs(with_settings(machine, "[runtimes.gpu]\nurl = 'http://x'\n")))
    assert "(gpu)" in found.text


# -- network -----------------------------------------------------------------------------------------------


class Served(NamedTuple):
    """A small server: its port, and the Authorization header of each request by path."""

    port: int
    seen: dict[str, str | None]


Serve = Callable[[dict[str, tuple[int, Any]]], Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(answers: dict[str, tuple[int, Any]]) -> Served:
        seen: dict[str, str | None] = {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                seen[self.path] = self.headers.get("Authorization")
                status, body = answers.get(self.path, (404, {}))
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", str(body))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return Served(server.server_address[1], seen)

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join(5)
        server.server_close()


_JUPYTER = {"/api": (200, {"version": "2.14.1"}), "/api/kernelspecs": (200, {"default": "python3", "kernelspecs": {}})}


def runtime(machine: Machine, port: int, *, default: bool = False) -> Machine:
    chosen = "runtime = 'gpu'\n" if default else ""
    return with_settings(machine, f"{chosen}[runtimes.gpu]\nurl = 'http://127.0.0.1:{port}/lab'\ntoken = 's3cr3t'\n")


def test_a_server_that_takes_our_token_is_ok(machine: Machine, serve: Serve) -> None:
    server = serve(_JUPYTER)
    found = only(check_runtime(runtime(machine, server.port), "gpu"))
    assert found.status is Status.OK
    assert "2.14.1" in found.text
    assert server.seen["/api/kernelspecs"] == "token s3cr3t"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_told_with_the_command_and_without_the_token(
    machine: Machine, serve: Serve, status: int
) -> None:
    server = serve(_JUPYTER | {"/api/kernelspecs": (status, {})})
    found = only(check_runtime(runtime(machine, server.port), "gpu"))
    assert found.fix == "colab-bridge config set runtimes.gpu.token -"
    assert "s3cr3t" not in found.text + found.fix


def test_our_token_is_not_sent_to_where_a_server_redirects(machine: Machine, serve: Serve) -> None:
    thief = serve({"/api": (200, {})})
    server = serve({"/api": (302, f"http://127.0.0.1:{thief.port}/api")})
    found = only(check_runtime(runtime(machine, server.port), "gpu"))
    assert found.status is Status.WARN
    assert thief.seen == {}


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"/api": (200, b"<html>")},
        {"/api": (200, [1]), "/api/kernelspecs": (200, {})},
        {"/api": (200, b"[" * 60_000)},
    ],
)
def test_something_that_is_no_jupyter_server_is_recognised(
    machine: Machine, serve: Serve, answers: dict[str, tuple[int, Any]]
) -> None:
    found = only(check_runtime(runtime(machine, serve(answers).port), "gpu"))
    assert "no Jupyter server" in found.text
    assert found.fix == "colab-bridge config add-runtime gpu --url URL"


@pytest.mark.parametrize(("default", "status"), [(False, Status.WARN), (True, Status.FAIL)])
def test_only_the_default_runtime_must_be_reachable(machine: Machine, default: bool, status: Status) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = only(check_runtime(runtime(machine, port, default=default), "gpu"))
    assert found.status is status
    assert "not reachable" in found.text


def test_a_server_that_says_nothing_is_given_up(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        found = only(check_runtime(runtime(machine, silent.getsockname()[1]), "gpu"))
    assert "no answer" in found.text
    assert time.monotonic() - begun < 5


def test_a_token_variable_that_is_not_set_is_named(machine: Machine) -> None:
    changed = with_settings(machine, "[runtimes.gpu]\nurl = 'http://127.0.0.1:9'\ntoken_env = 'MY_TOKEN'\n")
    assert "MY_TOKEN is not set" in only(check_runtime(changed, "gpu")).text


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({}, Status.OK),
        ({"HTTPS_PROXY": "http://me:pw@proxy:3128"}, Status.WARN),
        ({"http_proxy": "http://proxy", "no_proxy": "localhost"}, Status.WARN),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "localhost,127.0.0.1,::1"}, Status.OK),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "*"}, Status.OK),
        ({"HTTPS_PROXY": ""}, Status.OK),
    ],
)
def test_a_proxy_must_leave_local_connections_alone(machine: Machine, environ: dict[str, str], status: Status) -> None:
    found = only(check_proxy(replace(machine, environ=environ)))
    assert found.status is status
    assert "pw" not in found.text + found.fix


def test_a_clock_that_is_far_behind_is_reported(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(checks.check_clock(machine)).status is Status.OK
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert only(checks.check_clock(machine)).status is Status.WARN


# -- all together ------------------------------------------------------------------------------------------


def check(status: Status, fix: str = "") -> Check:
    return Check(id="x", status=status, text="", fix=fix)


@pytest.mark.parametrize(
    ("found", "step"),
    [
        ([check(Status.OK)], None),
        ([check(Status.WARN, "a"), check(Status.WARN, "b")], "a"),
        ([check(Status.WARN, "a"), check(Status.FAIL, "b"), check(Status.FAIL, "c")], "b"),
        ([check(Status.WARN)], None),
    ],
)
def test_there_is_at_most_one_next_step_and_failures_come_first(found: list[Check], step: str | None) -> None:
    assert next_step(found) == step


def test_a_check_that_hangs_does_not_hold_up_the_others() -> None:
    release = threading.Event()

    def hang() -> list[Check]:
        release.wait(30)
        return []

    begun = time.monotonic()
    found = run_all([("slow", hang), ("quick", lambda: [check(Status.OK)])], deadline_s=0.2)
    release.set()
    assert time.monotonic() - begun < 5
    assert [(one.id, one.status) for one in found] == [("slow", Status.WARN), ("x", Status.OK)]


def test_a_check_that_breaks_becomes_a_result() -> None:
    def explode() -> list[Check]:
        raise RuntimeError("no\nluck")

    found = only(run_all([("broken", explode)], deadline_s=5))
    assert found.status is Status.WARN
    assert found.text == "this check itself failed: RuntimeError: no luck"


def test_broken_settings_do_not_stop_the_other_checks(machine: Machine) -> None:
    machine.paths.ensure()
    machine.paths.user_config.write_text("prot = 1")
    found = {one.id: one.status for one in examine(machine)}
    assert found["config"] is Status.FAIL
    assert found["packages"] is Status.OK
    assert found["interpreter"] is Status.OK


def test_twenty_silent_runtimes_are_asked_side_by_side(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with_settings(machine, "".join(f"[runtimes.r{n}]\nurl = '{url}'\n" for n in range(20)))
        begun = time.monotonic()
        found = [one for one in examine(machine) if one.id.startswith("runtime:")]
    assert len(found) == 20
    assert time.monotonic() - begun < 9
