"""Fixtures for every test folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_home import DaemonHome, open_home


@pytest.fixture
def daemon_home(tmp_path: Path) -> Iterator[DaemonHome]:
    """A temporary ``COLAB_BRIDGE_HOME`` for one test; daemon, runtimes and kernels are ended afterwards."""
    with open_home(tmp_path) as home:
        yield home


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHome]:
    """The same for a whole module, for tests that do not disturb one another."""
    with open_home(tmp_path_factory.mktemp("shared")) as home:
        yield home
