"""Fixtures for the tests of signing in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sign_in_desk import Desk, open_desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A user and the emulated service; no violation of the protocol may be left."""
    async with open_desk(tmp_path) as found:
        yield found
