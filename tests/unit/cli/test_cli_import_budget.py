"""The command line stays light: what may be imported on its way, as `-X importtime` sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BANNED = {
    "aiosqlite",
    "anyio",
    "asyncio",
    "email",
    "fastapi",
    "http.client",
    "httpx2",
    "jupyter_client",
    "platformdirs",
    "psutil",
    "pydantic",
    "rich",
    "sqlite3",
    "ssl",
    "starlette",
    "subprocess",
    "tomlkit",
    "uvicorn",
    "websockets",
    "zmq",
}


def imported(code: str, home: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env=os.environ | {"COLAB_BRIDGE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:") and "|" in line]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("argv", [["--version"], ["version"], ["--help"], ["exec", "--help"], ["run", "--help"]])
def test_a_command_that_asks_nobody_imports_nothing_heavy(argv: list[str], tmp_path: Path) -> None:
    names = imported(f"from colab_bridge.cli.main import run; run({argv!r})", tmp_path)
    assert "colab_bridge.cli.main" in names
    assert not {name for name in names if name in BANNED or name.partition(".")[0] in BANNED}


def test_the_version_alone_does_not_even_import_click(tmp_path: Path) -> None:
    names = imported("from colab_bridge.cli.main import run; run(['--version'])", tmp_path)
    assert not {"click", "json", "socket", "dataclasses", "pathlib"} & names


def test_what_a_run_needs_is_light(tmp_path: Path) -> None:
    modules = "colab_bridge.cli.start_run, colab_bridge.cli.commands.exec, colab_bridge.cli.commands.run"
    names = imported(f"import {modules}, colab_bridge.cli.commands.status, colab_bridge.cli.commands.attach", tmp_path)
    assert "colab_bridge.client.follow" in names
    assert not {name for name in names if name in BANNED or name.partition(".")[0] in BANNED}
