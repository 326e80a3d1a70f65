from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from colab_bridge.store import Store


class FixedClock:
    """A clock that stands still."""

    def time(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "state" / "state.db", clock=FixedClock())
    yield store
    assert store.notices == []
    store.close()
