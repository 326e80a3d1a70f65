from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from colab_bridge.store import Store
from scripted_upstream import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    store = Store.open(tmp_path / "state" / "state.db", clock=clock)
    yield store
    assert store.notices == []
    store.close()
