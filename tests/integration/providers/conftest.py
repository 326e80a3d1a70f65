"""Fixtures for tests that start real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_is_left_running(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a process behind; servers and kernels all have a path of the test in their arguments."""
    yield
    left = [process for process in psutil.process_iter() if str(tmp_path) in _arguments(process)]
    for process in left:
        process.kill()
    assert not left


def _arguments(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())  # empty for a zombie
    except psutil.Error:
        return ""
