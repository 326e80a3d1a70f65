from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from apply_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.open(tmp_path / "root")
    yield made
    made.close()


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder in memory where the system has one: these tests make some hundred small trees each."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)
