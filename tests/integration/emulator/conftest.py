"""An emulator whose machines are names only: its control side needs no more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from colab_bridge.testing.colab import ColabEmulator, EmulatorOptions, emulator
from emulator_caller import Caller, open_caller, start_named


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def options() -> EmulatorOptions:
    """Settings of ``colab``; a test that needs others overrides this by parametrisation."""
    return EmulatorOptions()


@pytest.fixture
async def colab(anyio_backend: str, options: EmulatorOptions) -> AsyncIterator[ColabEmulator]:
    async with emulator(options, start_machine=start_named) as running:
        yield running


@pytest.fixture
async def caller(colab: ColabEmulator) -> AsyncIterator[Caller]:
    """A careful client of ``colab``, signed in as its first account."""
    async with open_caller(colab) as opened:
        yield opened
