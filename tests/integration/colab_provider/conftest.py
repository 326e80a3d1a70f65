"""Fixtures of the provider's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from colab_bridge.testing.colab import EmulatorOptions, emulator
from colab_scenes import Scene, Tokens, start_named


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def options() -> EmulatorOptions:
    """Settings of the emulator; a test that needs others overrides this by parametrisation."""
    return EmulatorOptions()


@pytest.fixture
async def scene(anyio_backend: str, options: EmulatorOptions, tmp_path: Path) -> AsyncIterator[Scene]:
    del anyio_backend
    async with emulator(options, start_machine=start_named) as colab:
        made = Scene(colab, tmp_path / "colab", Tokens(colab))
        try:
            yield made
            assert colab.violations == []
        finally:
            await made.provider.aclose()
