"""Which faults keep code from running, and which are only told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from colab_bridge.errors import ColabBridgeError, ConflictError, TransientError, UserError
from colab_bridge.ports.barrier import BarrierRefused
from colab_bridge.sync.barrier import KernelBarrier
from colab_bridge.wire.message import RawMessage

pytestmark = pytest.mark.anyio


def barrier_with(error: ColabBridgeError, notes: list[dict[str, Any]], *, stale: bool = False) -> KernelBarrier:
    """Return a barrier whose folders cannot be opened, for a reason."""

    async def controller() -> None:
        raise error

    hub: Any = SimpleNamespace(note=notes.append, record=SimpleNamespace(next_seq=1))
    kernel: Any = SimpleNamespace(cwd="")
    return KernelBarrier(kernel, hub, controller, lambda run: stale)


def request() -> RawMessage:
    return RawMessage.build("shell", "execute_request", {"code": "1", "silent": False}, msg_id="run-1.1", session="s")


@pytest.mark.parametrize(
    "error",
    [
        ConflictError("another process syncs p already", hint="stop it"),
        TransientError("no answer", hint="wait"),
    ],
)
async def test_code_is_not_run_with_files_of_another_time_unless_somebody_wants_it(error: ColabBridgeError) -> None:
    notes: list[dict[str, Any]] = []
    with pytest.raises(BarrierRefused) as caught:
        await barrier_with(error, notes).before(request())
    assert error.message in str(caught.value)
    assert notes == []
    await barrier_with(error, notes, stale=True).before(request())
    assert [(note["level"], error.message in note["text"]) for note in notes] == [("warning", True)]


async def test_code_in_a_folder_that_can_never_be_synced_is_run_with_a_warning() -> None:
    notes: list[dict[str, Any]] = []
    await barrier_with(UserError("your home folder", hint="another one"), notes).before(request())
    assert [note["text"] for note in notes] == ["your home folder (another one)"]
