"""A user at a terminal and an emulated Colab; at the end nothing was broken in its protocol, and no machine is left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from cli_support import Desk, desk_in
from colab_bridge.testing.colab import EmulatorOptions
from colab_bridge.testing.colab.threaded import ThreadedEmulator, threaded_emulator

__all__ = ["desk_on", "emulated"]


@contextlib.contextmanager
def emulated(options: EmulatorOptions | None = None) -> Iterator[ThreadedEmulator]:
    """Run an emulator."""
    with threaded_emulator(options) as found:
        yield found
        assert [str(violation) for violation in found.violations] == []


@contextlib.contextmanager
def desk_on(colab: ThreadedEmulator, folders: pytest.TempPathFactory) -> Iterator[Desk]:
    """A user who is signed in there by a token."""
    with desk_in(folders.mktemp("desk")) as found:
        found.environ |= colab.env()
        yield found
    assert dict(colab.state.runtimes) == {}
