"""Command line, connection file and identity of the proxy kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.errors import UserError
from colab_bridge.kernels.proxy.arguments import parse_arguments
from colab_bridge.kernels.proxy.connection_file import read_connection_file
from colab_bridge.kernels.proxy.identity import front_end_of, kernel_request

PORTS = {"shell_port": 1, "control_port": 2, "stdin_port": 3, "iopub_port": 4, "hb_port": 5}
VALID: dict[str, Any] = {**PORTS, "transport": "tcp", "ip": "127.0.0.1", "key": "k", "signature_scheme": "hmac-sha256"}


def written(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "c.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("argv", [["/c.json"], ["-f", "/c.json"], ["--f=/c.json"], ["--runtime", "r", "/c.json"]])
def test_the_connection_file_is_found_in_every_style(argv: list[str]) -> None:
    assert parse_arguments(argv).connection_file == Path("/c.json").absolute()


def test_all_options_are_read() -> None:
    found = parse_arguments(
        ["--runtime", "r", "--session", "s", "--kernel-name", "k", "--project", "/p", "-f", "c.json"]
    )
    assert (found.runtime, found.session, found.kernel_name) == ("r", "s", "k")
    assert found.project == Path("/p").absolute()
    assert found.connection_file == Path.cwd() / "c.json"


def test_no_connection_file_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as failure:
        parse_arguments([])
    assert failure.value.code == 2
    assert "started by Jupyter front ends" in capsys.readouterr().err


def test_tcp_and_ipc_addresses(tmp_path: Path) -> None:
    assert read_connection_file(written(tmp_path, VALID)).address("iopub") == "tcp://127.0.0.1:4"
    ipc = {**VALID, "transport": "ipc", "ip": "/run/k"}
    assert read_connection_file(written(tmp_path, ipc)).address("hb") == "ipc:///run/k-5"


def test_keys_are_not_in_the_repr(tmp_path: Path) -> None:
    secret = "S" * 40
    value = {**VALID, "key": "tellnobody", "curve_publickey": "P" * 40, "curve_secretkey": secret}
    found = read_connection_file(written(tmp_path, value))
    assert found.curve is not None
    assert "tellnobody" not in repr(found)
    assert secret not in repr(found)


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "udp"},
        {"shell_port": 0},
        {"hb_port": 70_000},
        {"iopub_port": "1"},
        {"key": 7},
        {"signature_scheme": "plain"},
        {"signature_scheme": "hmac-rot13"},
        {"curve_publickey": "short", "curve_secretkey": "short"},
        {"curve_secretkey": "S" * 40},
    ],
)
def test_a_damaged_connection_file_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError) as failure:
        read_connection_file(written(tmp_path, {**VALID, **change}))
    assert "\n" not in failure.value.message
    assert failure.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        read_connection_file(written(tmp_path, text))


def test_a_missing_connection_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_connection_file(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "unknown"),
        ({"JPY_PARENT_PID": "1"}, "jupyter"),
        ({"VSCODE_PID": "1"}, "vscode"),
        ({"VSCODE_PID": "1", "JPY_SESSION_NAME": "/n.ipynb"}, "jupyter"),
        ({"VSCODE_GIT_IPC_HANDLE": "x", "TERM_PROGRAM": "vscode", "JPY_PARENT_PID": "1"}, "jupyter"),
    ],
)
def test_the_front_end_is_known_by_its_environment(environ: dict[str, str], expected: str) -> None:
    assert front_end_of(environ) == expected


def test_the_request_names_the_project_above_the_notebook(tmp_path: Path) -> None:
    (tmp_path / ".colab-bridge").mkdir()
    folder = tmp_path / "notebooks"
    folder.mkdir()
    body = kernel_request(parse_arguments(["c.json"]), {"JPY_SESSION_NAME": "x/../n.ipynb", "HOME": "/"}, folder, 7)
    assert (body["project"], body["cwd"]) == (str(tmp_path), str(folder))
    assert body["identity"]["notebook"] == str(folder / "n.ipynb")
    assert body["env"] == {}
    assert "runtime" not in body
