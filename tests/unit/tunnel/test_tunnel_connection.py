"""Connection files, ids and processes, some of them hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.agent.tunnel.connection import (
    Unreachable,
    find_file,
    is_kernel_id,
    read_file,
    runtime_folders,
)
from colab_bridge.agent.tunnel.processes import KernelProcess, find_process, is_running

GOOD = {
    "transport": "tcp",
    "ip": "127.0.0.1",
    "shell_port": 1,
    "iopub_port": 2,
    "stdin_port": 3,
    "control_port": 4,
    "hb_port": 5,
    "key": "k",
    "signature_scheme": "hmac-sha256",
}


def written(folder: Path, value: Any) -> Path:
    path = folder / "kernel-x.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.parametrize("value", ["", "../x", "a/b", "a.b", "x" * 101, "a\n", "ü", None, 7, "a\0"])
def test_what_could_leave_the_folder_is_no_kernel_id(value: object) -> None:
    assert not is_kernel_id(value)


def test_an_id_of_a_server_is_one() -> None:
    assert is_kernel_id("edda5838-1c58-46d1-8556-a853d6c8012c")


def test_a_good_file_gives_addresses(tmp_path: Path) -> None:
    found = read_file(written(tmp_path, GOOD))
    assert found.address("iopub") == "tcp://127.0.0.1:2"
    assert (found.key, found.digest) == (b"k", "sha256")
    ipc = read_file(written(tmp_path, {**GOOD, "transport": "ipc", "ip": "/run/k"}))
    assert ipc.address("shell") == "ipc:///run/k-1"
    assert read_file(written(tmp_path, {**GOOD, "ip": "0.0.0.0"})).address("shell") == "tcp://127.0.0.1:1"
    assert read_file(written(tmp_path, {**GOOD, "ip": "::1"})).address("shell") == "tcp://[::1]:1"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "[]",
        "[" * 60_000,
        " " * 70_000 + "{}",
        {**GOOD, "transport": "pgm"},
        {**GOOD, "ip": 5},
        {**GOOD, "ip": "a\nb"},
        {**GOOD, "shell_port": 0},
        {**GOOD, "shell_port": 65536},
        {**GOOD, "shell_port": True},
        {**GOOD, "shell_port": "1"},
        {**GOOD, "key": 1},
        {**GOOD, "signature_scheme": "sha256"},
        {**GOOD, "signature_scheme": "hmac-nothing"},
        {**GOOD, "curve_publickey": 1},
    ],
    ids=range(16),
)
def test_any_other_file_is_said_to_be_unusable(tmp_path: Path, value: object) -> None:
    with pytest.raises(Unreachable):
        read_file(written(tmp_path, value))


def test_the_first_folder_that_has_the_file_counts_and_hints_come_before_guesses(tmp_path: Path) -> None:
    environ = {"JUPYTER_RUNTIME_DIR": str(tmp_path / "env"), "JUPYTER_DATA_DIR": str(tmp_path / "data")}
    folders = runtime_folders(environ, {"jupyter_runtime_dir": str(tmp_path / "hint")}, "linux")
    assert folders[:3] == [tmp_path / "hint", tmp_path / "env", tmp_path / "data" / "runtime"]
    assert find_file("x", folders) is None
    (tmp_path / "data" / "runtime").mkdir(parents=True)
    path = written(tmp_path / "data" / "runtime", GOOD)
    assert find_file("x", folders) == path


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_the_folder_is_where_jupyter_has_it(platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from jupyter_core import paths

    monkeypatch.setattr(paths.sys, "platform", platform)
    monkeypatch.setattr(paths, "use_platform_dirs", lambda: False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "roaming"))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    environ = {"APPDATA": str(tmp_path / "roaming")}
    assert Path(paths.jupyter_runtime_dir()) == runtime_folders(environ, {}, platform)[0]


class FakeProc:
    """A folder that looks like ``/proc``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pid: int, parent: int, started: int, *argv: str, session: int = 0, state: str = "S") -> None:
        place = self.folder / str(pid)
        place.mkdir()
        (place / "cmdline").write_bytes(b"\0".join(part.encode() for part in argv) + b"\0")
        middle = " ".join(["0"] * 15)
        (place / "stat").write_text(f"{pid} (a) b) {state} {parent} {session} {session} {middle} {started} 0 0 0")

    def find(self, before: KernelProcess | None = None) -> KernelProcess | None:
        return find_process("kernel-x.json", before, self.folder)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


KERNEL = ("python", "-m", "ipykernel_launcher", "-f", "/r/kernel-x.json")


def test_the_oldest_of_a_family_is_the_kernel(proc: FakeProc) -> None:
    proc.add(10, 1, 100, "server")
    proc.add(30, 10, 200, *KERNEL)
    proc.add(20, 30, 300, *KERNEL)
    proc.add(40, 10, 50, "python", "other.json")
    assert proc.find() == KernelProcess(30, 200)


def test_a_shell_that_starts_the_kernel_is_not_the_kernel(proc: FakeProc) -> None:
    proc.add(30, 10, 200, "/bin/bash", "-c", "python -f /r/kernel-x.json")
    proc.add(31, 30, 201, *KERNEL)
    assert proc.find() == KernelProcess(31, 201)


def test_a_child_that_a_dead_kernel_left_behind_is_not_the_next_kernel(proc: FakeProc) -> None:
    before = KernelProcess(30, 200)
    proc.add(35, 1, 250, *KERNEL, session=30)
    assert proc.find(before) is None
    proc.add(50, 10, 400, *KERNEL, session=50)
    assert proc.find(before) == KernelProcess(50, 400)


def test_a_process_that_has_ended_or_is_another_one_does_not_run(proc: FakeProc) -> None:
    proc.add(30, 10, 200, *KERNEL)
    proc.add(31, 10, 200, *KERNEL, state="Z")
    assert is_running(KernelProcess(30, 200), proc.folder)
    assert not is_running(KernelProcess(30, 199), proc.folder)
    assert not is_running(KernelProcess(31, 200), proc.folder)
    assert not is_running(KernelProcess(32, 200), proc.folder)


def test_without_a_list_of_processes_none_is_found(tmp_path: Path) -> None:
    assert find_process("kernel-x.json", None, tmp_path / "none") is None
