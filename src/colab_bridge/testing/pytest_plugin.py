"""Fixtures for the tests of programs that use Colab.

Load them with ``pytest -p colab_bridge.testing.pytest_plugin``, or in the top ``conftest.py``::

    pytest_plugins = ["colab_bridge.testing.pytest_plugin"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from colab_bridge.testing.colab import EmulatorOptions
from colab_bridge.testing.colab.threaded import ThreadedEmulator, threaded_emulator

__all__ = ["colab_emulator", "colab_emulator_options"]


@pytest.fixture
def colab_emulator_options() -> EmulatorOptions:
    """Settings of :func:`colab_emulator`; a project or a test replaces this fixture by its own."""
    return EmulatorOptions()


@pytest.fixture
def colab_emulator(colab_emulator_options: EmulatorOptions) -> Iterator[ThreadedEmulator]:
    """An emulator of Colab's back end for one test, with real machines.

    ``colab_emulator.env()`` is the environment that makes Colab Bridge, or anything else that reads these variables,
    use it. At the end of a test everything that it started is ended.
    """
    with threaded_emulator(colab_emulator_options) as running:
        yield running
