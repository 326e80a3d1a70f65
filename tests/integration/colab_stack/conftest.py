"""The daemon in front of an emulated Colab with real machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from colab_emulated import Emulated, emulated
from daemon_home import DaemonHome, open_home


@pytest.fixture(scope="module")
def ttl_s() -> float:
    """Life of proxy tokens; a module that wants another one overrides this."""
    return 3600.0


@pytest.fixture(scope="module")
def colab(ttl_s: float) -> Iterator[Emulated]:
    with emulated("--token-ttl", str(ttl_s)) as running:
        yield running
        assert running.call("GET", "/violations") == {"violations": []}


@pytest.fixture
def home(colab: Emulated, tmp_path: Path) -> Iterator[DaemonHome]:
    """A home whose daemon uses the emulator."""
    with pytest.MonkeyPatch.context() as patch, open_home(tmp_path) as made:
        for name, value in colab.env.items():
            patch.setenv(name, value)
        yield made
        for session in made.client().get("/v1/sessions")["sessions"]:
            made.client().delete(f"/v1/sessions/{session['name']}", timeout_s=60)
        assert colab.endpoints == []
