"""Machines for the tests of the emulator's data side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from colab_bridge.testing.colab.vm.machine import Machine
from vm_support import ControlSide, machine


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def control() -> ControlSide:
    """The control side of the module's machine."""
    return ControlSide()


@pytest.fixture(scope="module")
async def vm(tmp_path_factory: pytest.TempPathFactory, control: ControlSide) -> AsyncIterator[Machine]:
    """One machine for the tests of a module, which leave it as they found it."""
    async with machine(tmp_path_factory.mktemp("vm"), control) as started:
        yield started
