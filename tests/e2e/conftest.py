"""What several files of this ring start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from colab_bridge.testing.colab.threaded import ThreadedEmulator
from colab_desk import emulated


@pytest.fixture(scope="module")
def colab() -> Iterator[ThreadedEmulator]:
    """An emulator for the tests of a file."""
    with emulated() as found:
        yield found
