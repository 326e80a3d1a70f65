from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apply_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.open(tmp_path / "root")
    yield made
    made.close()
