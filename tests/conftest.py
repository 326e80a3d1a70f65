"""Fixtures for every test folder, and the order of the files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_home import DaemonHome, open_home
from long_files import read_table

# jsonschema does without it: a grammar for a format that no schema here uses, which takes a second to compile.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the order within a file stays."""
    seconds = read_table()
    items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], 0.0))


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
