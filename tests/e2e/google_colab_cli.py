"""Google's own command-line client for Colab, as it comes from the package index, pointed at the emulator."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(sys.prefix) / "tools"
COLAB = TOOLS / "google-colab-cli" / "bin" / "colab"
TIMEOUT_S = 90

# The client has no option for its addresses. This file is loaded by its interpreter before it and changes nothing else.
_SITE = """
import os
from colab_cli import client
client.Prod.__init__.__defaults__ = (os.environ["COLAB_BRIDGE_COLAB_URL"], os.environ["COLAB_BRIDGE_GAPI_URL"])
"""


def skip_unless_installed() -> None:
    """Skip a module where the client could not be installed, with the reason that its installation has left."""
    if not COLAB.exists():
        why = TOOLS / "google-colab-cli.why"
        reason = why.read_text().strip() if why.exists() else "run: sh scripts/install-google-colab-cli.sh"
        pytest.skip(f"google-colab-cli is not installed: {reason}", allow_module_level=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorProcess:
    """``colab-bridge emulator`` in a process of its own."""

    env: dict[str, str]
    control_url: str
    access_token: str
    process: subprocess.Popen[str]

    def get(self, path: str) -> Any:
        return self._call(urllib.request.Request(self.control_url + path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call(urllib.request.Request(self.control_url + path, json.dumps(body).encode(), method="POST"))

    def runtimes(self) -> list[dict[str, Any]]:
        runtimes: list[dict[str, Any]] = self.get("/state")["runtimes"]
        return runtimes

    def _call(self, request: urllib.request.Request) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)


@contextlib.contextmanager
def run_emulator(*options: str) -> Iterator[EmulatorProcess]:
    """Run an emulator until the block is left; it must end by itself, with status 0, when it is asked to."""
    command = [sys.executable, "-m", "colab_bridge", "emulator", "--stdin-eof", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            yield EmulatorProcess(
                env=line["env"], control_url=line["control_url"], access_token=line["access_token"], process=process
            )
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                status = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert status == 0


class GoogleColabCli:
    """One user of the client, with a home of their own.

    Args:
        home: Their home folder.
        emulator: What they work with.
    """

    def __init__(self, home: Path, emulator: EmulatorProcess) -> None:
        self.home = home
        settings = home / ".config" / "colab-cli"
        settings.mkdir(parents=True)
        signed_in = {
            "token": emulator.access_token,
            "refresh_token": "never used: the token does not expire",
            "client_id": "client",
            "client_secret": "secret",
            "scopes": ["https://www.googleapis.com/auth/colaboratory"],
            "expiry": "2099-01-01T00:00:00Z",
        }
        (settings / "token.json").write_text(json.dumps(signed_in))
        (settings / "settings.json").write_text(json.dumps({"enable_update_check": False}))
        site = home / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_SITE)
        kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "PYTHONPATH"}
        self._env = {
            **kept,
            **emulator.env,
            "HOME": str(home),
            "PYTHONPATH": str(site),
            "COLAB_CLI_ASSIGN_RETRIES": "0",
            "NO_COLOR": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one command, without a terminal: it would ask there instead of on stdin."""
        return subprocess.Popen(
            [str(COLAB), *arguments],
            env=self._env,
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, stdin: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command, which must end with this status."""
        ended = subprocess.run(
            [str(COLAB), *arguments],
            input=stdin,
            env=self._env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            start_new_session=True,
        )
        assert ended.returncode == status, f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        return ended
