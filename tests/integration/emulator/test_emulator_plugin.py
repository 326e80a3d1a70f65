"""What other projects use: the fixture, and the emulator without asynchronous code."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from colab_bridge.testing.colab import EmulatorOptions, threaded_emulator
from emulator_caller import start_named

TESTS = """
import json, os, subprocess, sys, urllib.request

import pytest

from colab_bridge.testing.colab import EmulatorOptions


@pytest.fixture
def colab_emulator_options():
    return EmulatorOptions(tier="free")


def test_the_program_lists_nothing(colab_emulator):
    program = "import os; print(os.environ['COLAB_BRIDGE_COLAB_URL'])"
    env = {**os.environ, **colab_emulator.env()}
    ended = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert ended.stdout.strip() == colab_emulator.urls["COLAB_BRIDGE_COLAB_URL"]
    assert colab_emulator.state.account("dev@example.com").tier == "free"
    assert colab_emulator.violations == []
"""


def listing(colab_url: str, token: str) -> dict[str, object]:
    request = urllib.request.Request(
        f"{colab_url}/tun/m/assignments?authuser=0",
        headers={"Authorization": f"Bearer {token}", "X-Colab-Client-Agent": "t", "Accept": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        listed: dict[str, object] = json.loads(answer.read().decode().removeprefix(")]}'\n"))
    return listed


def test_a_project_of_its_own_uses_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_program.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "colab_bridge.testing.pytest_plugin",
        "-p",
        "no:cacheprovider",
    ]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout


def test_it_runs_beside_a_program_that_is_not_asynchronous() -> None:
    with threaded_emulator(EmulatorOptions(), start_machine=start_named) as colab:
        url = colab.urls["COLAB_BRIDGE_COLAB_URL"]
        assert listing(url, colab.access_token) == {"assignments": []}
        assert [record.path for record in colab.requests] == ["/tun/m/assignments"]
        colab.faults.add(kind="status", path="/tun/m/assignments", status=500)
        with pytest.raises(urllib.error.HTTPError, match="500") as caught:
            listing(url, colab.access_token)
        caught.value.close()
        colab.advance(10)
        assert colab.clock.offset_s == 10
        with pytest.raises(KeyError):
            colab.kill("nothing")
        assert colab.service_account()["type"] == "service_account"
    with pytest.raises(urllib.error.URLError):
        listing(url, "gone")
