"""How a process is detached on each system, with stand-ins for what cannot run here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from colab_bridge._util.process import identify
from colab_bridge._util.process_spawn import (
    CREATE_BREAKAWAY_FROM_JOB,
    CREATE_NEW_PROCESS_GROUP,
    DETACHED_PROCESS,
    detach_attempts,
    spawn,
)


class FakePopen:
    """Records its calls; refuses as many of them as it is told."""

    def __init__(self, refuse: int = 0) -> None:
        self.calls: list[dict[str, Any]] = []
        self._refuse = refuse

    def __call__(self, argv: list[str], **options: Any) -> Any:
        self.calls.append(options)
        if len(self.calls) <= self._refuse:
            raise PermissionError(5, "Access is denied")
        return SimpleNamespace(pid=4711)


def _request(tmp_path: Path) -> dict[str, Any]:
    return {"argv": ["x"], "cwd": str(tmp_path), "env": {}, "log_path": str(tmp_path / "log")}


def test_on_windows_a_process_leaves_console_group_and_job(tmp_path: Path) -> None:
    popen = FakePopen()
    assert spawn(_request(tmp_path), "win32", popen) == 4711
    flags = DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP | CREATE_BREAKAWAY_FROM_JOB
    assert popen.calls[0]["creationflags"] == flags
    assert "start_new_session" not in popen.calls[0]


def test_on_windows_a_job_that_may_not_be_left_is_accepted(tmp_path: Path) -> None:
    popen = FakePopen(refuse=1)
    assert spawn(_request(tmp_path), "win32", popen) == 4711
    assert popen.calls[1]["creationflags"] == DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP


def test_a_refusal_that_has_no_alternative_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        spawn(_request(tmp_path), "win32", FakePopen(refuse=2))


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_on_posix_a_process_gets_a_session_of_its_own(platform: str) -> None:
    assert detach_attempts(platform) == [{"start_new_session": True}]


def test_a_process_inherits_nothing_but_its_log(tmp_path: Path) -> None:
    popen = FakePopen()
    spawn(_request(tmp_path), "linux", popen)
    options = popen.calls[0]
    assert options["close_fds"] is True
    assert options["stdin"] == subprocess.DEVNULL
    assert options["stdout"] == options["stderr"]


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_process_is_identified_by_number_and_start_on_each_system(platform: str) -> None:
    first, second = identify(os.getpid(), platform), identify(os.getpid(), platform)
    assert first is not None
    assert first == second
    assert json.loads(json.dumps(first.create_time)) == first.create_time


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_number_that_nobody_has_identifies_nothing(platform: str) -> None:
    unused = next(pid for pid in range(2**22, 2**22 + 1000) if not psutil.pid_exists(pid))
    assert identify(unused, platform) is None
    assert identify(0, platform) is None
    assert identify(-1, platform) is None


def test_the_module_that_the_command_line_imports_is_light() -> None:
    heavy = "('psutil', 'anyio', 'asyncio')"
    code = f"import sys; import colab_bridge._util.process; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
